//! A real core with an API server in the same process, shared by many rows: each row has
//! a namespace and a provider of its own. What the core logs is kept, to look for what
//! must not be in it.

use std::io::Write;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::OnceLock;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use anyhow::Context as _;
use core_controller::telemetry::Metrics;
use core_controller::{Core, Options};
use embedded_apiserver::ApiServer;
use kube::Client;
use parking_lot::Mutex;
use provider_host::HostTimes;
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;
use tracing_subscriber::EnvFilter;

/// How long anything may take. Nothing waits for it when all is well.
pub const PATIENCE: Duration = Duration::from_secs(150);

/// Short times, so that what is waited for comes soon; none of them decides what is done.
/// Deadlines leave room for a machine that is busy: a call that ends by one is another row.
pub fn host_times() -> HostTimes {
    HostTimes {
        probe_interval: Duration::from_secs(1),
        probe_failures: 20,
        connect: Duration::from_secs(20),
        reconnect_min: Duration::from_millis(20),
        reconnect_max: Duration::from_millis(100),
        socket_poll: Duration::from_millis(50),
        max_deadline: Duration::from_secs(12),
        deadline_grace: Duration::from_millis(200),
        watch_silence: Duration::from_secs(1),
        max_wait: Duration::from_millis(300),
        ..HostTimes::default()
    }
}

/// The options of the cores of this suite.
pub fn options() -> Options {
    Options {
        install_crds: true,
        events_per_second: 10_000,
        host_times: host_times(),
        ..Options::default()
    }
}

/// An API server and a core.
pub struct World {
    /// A client, with the rights of a user.
    pub client: Client,
    server: ApiServer,
    folder: tempfile::TempDir,
    options: Options,
    core: Mutex<Option<(JoinHandle<anyhow::Result<()>>, CancellationToken)>>,
    scenes: AtomicUsize,
}

impl World {
    /// Starts both.
    pub async fn start() -> anyhow::Result<Self> {
        Self::start_with(options()).await
    }

    /// Starts both, the core with these options.
    pub async fn start_with(options: Options) -> anyhow::Result<Self> {
        keep_logs();
        let server = ApiServer::builder().in_memory().build().await?;
        let world = Self {
            client: Client::new(server.service(), "default"),
            server,
            folder: tempfile::Builder::new().prefix("or").tempdir()?,
            options,
            core: Mutex::new(None),
            scenes: AtomicUsize::new(1),
        };
        world.start_core();
        world.kinds().await?;
        Ok(world)
    }

    /// Starts a core, also after one has ended.
    pub fn start_core(&self) {
        let stop = CancellationToken::new();
        let core = Core::run_with(
            self.client.clone(),
            self.options.clone(),
            Arc::<Metrics>::default(),
            stop.clone(),
        );
        *self.core.lock() = Some((tokio::spawn(core), stop));
    }

    /// Stops the core in order.
    pub async fn stop_core(&self) -> anyhow::Result<()> {
        let core = self.core.lock().take();
        let (core, stop) = core.context("no core runs")?;
        stop.cancel();
        tokio::time::timeout(PATIENCE, core).await??
    }

    /// Waits until the core ends by itself; how it ended.
    pub async fn core_ended(&self) -> anyhow::Result<anyhow::Result<()>> {
        let core = self.core.lock().take();
        let (core, _) = core.context("no core runs")?;
        Ok(tokio::time::timeout(PATIENCE, core).await??)
    }

    /// Stops everything.
    pub async fn stop(self) -> anyhow::Result<()> {
        self.stop_core().await?;
        drop(self.server);
        Ok(())
    }

    /// Waits until the kinds are served; this cannot be watched.
    async fn kinds(&self) -> anyhow::Result<()> {
        let served = async {
            loop {
                let resources = self
                    .client
                    .list_api_group_resources("cluster.outrigger.dev/v1alpha1")
                    .await;
                if resources.is_ok_and(|list| list.resources.iter().any(|found| found.name == "providers")) {
                    return;
                }
                tokio::time::sleep(Duration::from_millis(20)).await;
            }
        };
        tokio::time::timeout(PATIENCE, served)
            .await
            .context("the kinds are not served")
    }

    /// A number for a new scene, and the path of its socket.
    pub fn number(&self) -> (usize, PathBuf) {
        let number = self.scenes.fetch_add(1, Ordering::Relaxed);
        (number, self.folder.path().join(format!("{number}.sock")))
    }

    /// The folder of the sockets.
    pub fn folder(&self) -> &Path {
        self.folder.path()
    }
}

static LOGS: OnceLock<Arc<Mutex<Vec<u8>>>> = OnceLock::new();

struct Logs(Arc<Mutex<Vec<u8>>>);

impl Write for Logs {
    fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
        self.0.lock().extend_from_slice(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> std::io::Result<()> {
        Ok(())
    }
}

/// Keeps all that our crates log from now on. `MIRROR_LOG` also prints it.
fn keep_logs() {
    LOGS.get_or_init(|| {
        let kept = Arc::<Mutex<Vec<u8>>>::default();
        let all = "off,core_controller=trace,provider_host=trace,outrigger_planner=trace";
        let subscriber = tracing_subscriber::fmt().with_ansi(false);
        if let Ok(filter) = std::env::var("MIRROR_LOG") {
            let _ = subscriber.with_env_filter(EnvFilter::new(filter)).try_init();
        } else {
            let into = Arc::clone(&kept);
            let _ = subscriber
                .with_env_filter(EnvFilter::new(all))
                .with_writer(move || Logs(Arc::clone(&into)))
                .try_init();
        }
        kept
    });
}

/// The lines that were logged so far and hold this text.
pub fn logged(text: &str) -> Vec<String> {
    let Some(logs) = LOGS.get() else { return Vec::new() };
    let logs = String::from_utf8_lossy(&logs.lock()).into_owned();
    logs.lines()
        .filter(|line| line.contains(text))
        .map(str::to_owned)
        .collect()
}
