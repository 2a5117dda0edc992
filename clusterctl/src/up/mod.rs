//! `clusterctl up`: the management plane in the foreground. API server on one file, the
//! core in process, providers as child processes; it goes on where it was when started
//! again on the same folder.

pub mod data_dir;
pub mod provider_flag;
mod provider_process;

use std::collections::BTreeMap;
use std::io::{IsTerminal as _, Write as _};
use std::net::{Ipv4Addr, SocketAddr};
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use anyhow::Context as _;
use core_controller::telemetry::Metrics;
use core_controller::{Core, Options, ProviderEndpoint, crds};
use embedded_apiserver::ApiServer;
use kube::Client;
use tokio::signal::unix::{SignalKind, signal};
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;
use tracing::{info, warn};
use tracing_subscriber::EnvFilter;

use self::data_dir::DataDir;
use self::provider_process::{ProviderProcess, find_binary};
use crate::cli::UpArgs;

/// How long the children and the core may take to end.
const SHUTDOWN: Duration = Duration::from_secs(20);

/// Runs until Ctrl-C or SIGTERM.
pub async fn run(args: UpArgs) -> anyhow::Result<()> {
    let filter = EnvFilter::try_new(&args.log).with_context(|| format!("--log {:?} is no filter", args.log))?;
    tracing_subscriber::fmt()
        .with_env_filter(filter)
        .with_ansi(std::io::stderr().is_terminal())
        .with_writer(std::io::stderr)
        .init();

    let path = match &args.data_dir {
        Some(path) => path.clone(),
        None => DataDir::default_path()?,
    };
    let data_dir = DataDir::open(&path)?;
    // Everything that can be wrong with the flags is found before anything starts.
    let mut processes = Vec::new();
    let mut endpoints = BTreeMap::new();
    for provider in &args.providers {
        let endpoint = match &provider.endpoint {
            Some(endpoint) => endpoint.clone(),
            None => {
                let process = ProviderProcess {
                    name: provider.name.clone(),
                    binary: find_binary(&provider.name)?,
                    socket: data_dir.provider_socket(&provider.name)?,
                    folder: data_dir.provider(&provider.name)?,
                };
                let endpoint = format!("unix://{}", process.socket.display());
                processes.push(process);
                endpoint
            }
        };
        endpoints.insert(provider.name.clone(), ProviderEndpoint::new(endpoint));
    }

    let stop_server = CancellationToken::new();
    let mut builder = ApiServer::builder().data_file(data_dir.store());
    if args.listen.is_some() {
        // Whoever names an address means it.
        builder = builder.beyond_loopback();
    }
    let server = builder
        .build()
        .await
        .with_context(|| format!("failed to open the API server's file {}", data_dir.store().display()))?;
    let running = serve(&server, &data_dir, args.listen, &stop_server).await?;
    running
        .write_kubeconfig(&data_dir.kubeconfig())
        .with_context(|| format!("failed to write {}", data_dir.kubeconfig().display()))?;
    let client = Client::new(server.service(), "default");
    let metrics = Arc::new(Metrics::default());
    crds::install(&client, &metrics).await?;

    let stop = CancellationToken::new();
    let tasks = TaskTracker::new();
    for process in processes {
        tasks.spawn(process.supervise(stop.clone()));
    }
    let options = Options {
        providers: endpoints,
        // No lease: the lock of the data folder proves that nobody else leads here.
        identity: "clusterctl".to_owned(),
        metrics_listen: args.metrics_listen,
        ..Options::default()
    };
    let without_core = args.without_core;
    let core_stop = stop.clone();
    let mut core = tokio::spawn(async move {
        if without_core {
            core_stop.cancelled().await;
            return Ok(());
        }
        Core::run_with(client, options, metrics, core_stop).await
    });

    say(&format!(
        "ready: export KUBECONFIG={}",
        shell_word(&data_dir.kubeconfig())
    ));
    info!(address = %running.local_addr(), data_dir = %data_dir.path().display(), "the management plane serves");

    let result = tokio::select! {
        () = interrupted() => {
            info!("stopping");
            stop.cancel();
            match tokio::time::timeout(SHUTDOWN, &mut core).await {
                Ok(ended) => ended.context("the core controller panicked")?.context("the core controller failed"),
                Err(_) => {
                    warn!("the core controller did not stop within {} s and is given up", SHUTDOWN.as_secs());
                    Ok(())
                }
            }
        }
        ended = &mut core => match ended.context("the core controller panicked")? {
            Ok(()) => Err(anyhow::anyhow!("the core controller ended by itself")),
            Err(error) => Err(error.context("the core controller failed")),
        },
    };
    stop.cancel();
    tasks.close();
    if tokio::time::timeout(SHUTDOWN, tasks.wait()).await.is_err() {
        warn!(
            "a provider did not stop within {} s and is given up",
            SHUTDOWN.as_secs()
        );
    }
    stop_server.cancel();
    running.ended().await;
    result
}

/// Serves on the address that was asked for; without one on the address of last time, so
/// that a kubeconfig stays good, or on a free one where that is taken by now.
async fn serve(
    server: &ApiServer,
    data_dir: &DataDir,
    listen: Option<SocketAddr>,
    stop: &CancellationToken,
) -> anyhow::Result<embedded_apiserver::Running> {
    let identity = data_dir.identity();
    let running = match (listen, data_dir.remembered_address()) {
        (Some(address), _) => server.serve(address, &identity, stop.clone()).await,
        // An address beyond loopback has to be asked for each time.
        (None, Some(address)) => match server.serve(address, &identity, stop.clone()).await {
            Ok(running) => Ok(running),
            Err(_) => server.serve(free_address(), &identity, stop.clone()).await,
        },
        (None, None) => server.serve(free_address(), &identity, stop.clone()).await,
    }
    .with_context(|| match listen {
        Some(address) => format!("failed to serve the API on {address}; give another --listen"),
        None => "failed to serve the API on a free loopback port".to_owned(),
    })?;
    data_dir.remember_address(running.local_addr())?;
    Ok(running)
}

fn free_address() -> SocketAddr {
    SocketAddr::from((Ipv4Addr::LOCALHOST, 0))
}

/// Ctrl-C or SIGTERM.
async fn interrupted() {
    let mut terminate = match signal(SignalKind::terminate()) {
        Ok(terminate) => terminate,
        Err(error) => {
            warn!(%error, "unable to listen for SIGTERM");
            let _ = tokio::signal::ctrl_c().await;
            return;
        }
    };
    tokio::select! {
        _ = tokio::signal::ctrl_c() => {}
        _ = terminate.recv() => {}
    }
}

/// A path as a shell takes it.
fn shell_word(path: &Path) -> String {
    let text = path.display().to_string();
    if text.chars().all(|c| c.is_ascii_alphanumeric() || "/._-+@:".contains(c)) {
        text
    } else {
        format!("'{}'", text.replace('\'', "'\\''"))
    }
}

/// One line on standard output; scripts read it.
fn say(line: &str) {
    let mut output = std::io::stdout().lock();
    // A reader that went away does not stop the plane.
    let _ = writeln!(output, "{line}").and_then(|()| output.flush());
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn paths_survive_the_shell() {
        assert_eq!(shell_word(Path::new("/a/b-1")), "/a/b-1");
        assert_eq!(shell_word(Path::new("/a b/it's")), "'/a b/it'\\''s'");
    }
}
