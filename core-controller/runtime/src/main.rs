//! The binary `core-controller`: flags, logs, a client, and the core until a signal.
//!
//! Not for: anything that a library could do.

use std::process::ExitCode;

use anyhow::Context as _;
use clap::{CommandFactory as _, Parser as _};
use core_controller::cli::Arguments;
use core_controller::{Core, Options, telemetry};
use tokio_util::sync::CancellationToken;

#[tokio::main]
async fn main() -> ExitCode {
    let arguments = match Arguments::try_parse() {
        Ok(arguments) => arguments,
        Err(error) => return usage(&error),
    };
    let options = match arguments.options() {
        Ok(options) => options,
        Err(message) => {
            return usage(&Arguments::command().error(clap::error::ErrorKind::ValueValidation, message));
        }
    };
    let _logs = match telemetry::logs::init(
        "core-controller",
        arguments.log_format,
        &arguments.log,
        arguments.otlp_endpoint.as_deref(),
    ) {
        Ok(guard) => guard,
        Err(error) => {
            return usage(&Arguments::command().error(clap::error::ErrorKind::ValueValidation, error));
        }
    };
    match run(&arguments, options).await {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            tracing::error!("{error:#}");
            ExitCode::FAILURE
        }
    }
}

/// Help and version go out as they are; of what is wrong, one clear line.
fn usage(error: &clap::Error) -> ExitCode {
    use clap::error::ErrorKind;
    use std::io::Write as _;
    if matches!(error.kind(), ErrorKind::DisplayHelp | ErrorKind::DisplayVersion) {
        let _ = error.print();
        return ExitCode::SUCCESS;
    }
    let text = error.render().to_string();
    let line = text
        .lines()
        .map(str::trim)
        .take_while(|line| !line.starts_with("Usage:") && !line.starts_with("For more information"))
        .filter(|line| !line.is_empty())
        .collect::<Vec<_>>()
        .join(" ");
    let _ = writeln!(std::io::stderr(), "{line}");
    ExitCode::from(2)
}

async fn run(arguments: &Arguments, options: Options) -> anyhow::Result<()> {
    rustls::crypto::ring::default_provider()
        .install_default()
        .map_err(|_| anyhow::anyhow!("failed to set the TLS provider up"))?;
    let client = client(arguments).await?;
    let shutdown = CancellationToken::new();
    tokio::spawn({
        let shutdown = shutdown.clone();
        async move {
            terminated().await;
            shutdown.cancel();
        }
    });
    Core::run(client, options, shutdown).await
}

async fn client(arguments: &Arguments) -> anyhow::Result<kube::Client> {
    let choice = kube::config::KubeConfigOptions {
        context: arguments.context.clone(),
        ..kube::config::KubeConfigOptions::default()
    };
    let config = match &arguments.kubeconfig {
        Some(path) => {
            let file = kube::config::Kubeconfig::read_from(path)
                .with_context(|| format!("failed to read the kubeconfig {}", path.display()))?;
            kube::Config::from_custom_kubeconfig(file, &choice)
                .await
                .with_context(|| format!("failed to use the kubeconfig {}", path.display()))?
        }
        None if arguments.context.is_some() => kube::Config::from_kubeconfig(&choice)
            .await
            .context("failed to use the kubeconfig")?,
        None => kube::Config::infer()
            .await
            .context("failed to find a kubeconfig or a service account; give --kubeconfig FILE")?,
    };
    kube::Client::try_from(config).context("failed to make a client for the API server")
}

/// Waits for the signal that ends the process.
async fn terminated() {
    use tokio::signal::unix::{SignalKind, signal};
    match (signal(SignalKind::terminate()), signal(SignalKind::interrupt())) {
        (Ok(mut terminate), Ok(mut interrupt)) => {
            tokio::select! {
                _ = terminate.recv() => {}
                _ = interrupt.recv() => {}
            }
        }
        _ => std::future::pending().await,
    }
}
