//! The two servers: the embedded one, in this process on a socket of its own, and the real
//! kube-apiserver, started by `tests/kube-apiserver/start`.

use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::time::Duration;

use anyhow::{Context as _, bail};
use embedded_apiserver::{ApiServer, Running};
use kube::config::{AuthInfo, KubeConfigOptions, Kubeconfig};
use tokio::io::{AsyncBufReadExt as _, BufReader};
use tokio::process::{Child, ChildStdin, Command};
use tokio_util::sync::CancellationToken;

/// A kubeconfig of a real server that runs already: it is used, and none is started.
pub const RUNNING: &str = "OUTRIGGER_KUBE_APISERVER";

/// Building comes before starting, and takes minutes the first time.
const STARTED_WITHIN: Duration = Duration::from_mins(40);

/// How to talk to one server.
#[derive(Clone)]
pub struct Server {
    /// `embedded` or `real`.
    pub name: &'static str,
    /// With the administrator's certificate.
    pub admin: kube::Client,
    /// With none.
    pub anonymous: kube::Client,
    /// Garbage is collected and namespaces end.
    pub controllers: bool,
    /// It ends with the test: nobody has to clean up after a case, and no controller has to keep up with that.
    pub throwaway: bool,
}

impl std::fmt::Debug for Server {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        formatter.write_str(self.name)
    }
}

impl Server {
    /// Clients of the server that a kubeconfig names.
    pub async fn from_kubeconfig(name: &'static str, yaml: &str, controllers: bool) -> anyhow::Result<Self> {
        let kubeconfig = Kubeconfig::from_yaml(yaml).context("the kubeconfig cannot be read")?;
        let mut config = kube::Config::from_custom_kubeconfig(kubeconfig, &KubeConfigOptions::default()).await?;
        // Cases wait for what they wait for; the client adds no patience or haste of its own.
        config.read_timeout = None;
        config.default_retry = false;
        let admin = kube::Client::try_from(config.clone())?;
        config.auth_info = AuthInfo::default();
        let anonymous = kube::Client::try_from(config)?;
        Ok(Self {
            name,
            admin,
            anonymous,
            controllers,
            throwaway: true,
        })
    }
}

/// The embedded server.
#[derive(Debug)]
pub struct Embedded {
    /// How to talk to it.
    pub server: Server,
    /// Its administrator's kubeconfig.
    pub kubeconfig: PathBuf,
    shutdown: CancellationToken,
    running: Running,
    _folder: tempfile::TempDir,
}

impl Embedded {
    /// Starts it, in memory.
    pub async fn start() -> anyhow::Result<Self> {
        let folder = tempfile::tempdir()?;
        let api = ApiServer::builder().in_memory().build().await?;
        let shutdown = CancellationToken::new();
        let running = api
            .serve(([127, 0, 0, 1], 0).into(), folder.path(), shutdown.clone())
            .await?;
        let server = Server::from_kubeconfig("embedded", running.kubeconfig(), true).await?;
        Ok(Self {
            server,
            kubeconfig: running.kubeconfig_path().to_owned(),
            shutdown,
            running,
            _folder: folder,
        })
    }

    /// Stops it.
    pub async fn stop(self) {
        drop(self.server);
        self.shutdown.cancel();
        self.running.ended().await;
    }
}

/// The real one.
#[derive(Debug)]
pub struct Real {
    /// How to talk to it.
    pub server: Server,
    /// Its administrator's kubeconfig.
    pub kubeconfig: PathBuf,
    started: Option<Started>,
}

#[derive(Debug)]
struct Started {
    child: Child,
    // The script ends when its input does: also when this process is killed.
    input: ChildStdin,
    _folder: tempfile::TempDir,
}

impl Real {
    /// Uses the one that [`RUNNING`] names, or builds and starts one. `durable` keeps etcd's fsync.
    pub async fn start(durable: bool) -> anyhow::Result<Self> {
        if let Some(path) = std::env::var_os(RUNNING).map(PathBuf::from) {
            let yaml = std::fs::read_to_string(&path)
                .with_context(|| format!("{RUNNING} names {}, which cannot be read", path.display()))?;
            let mut server = Server::from_kubeconfig("real", &yaml, true).await?;
            server.throwaway = false;
            return Ok(Self {
                server,
                kubeconfig: path,
                started: None,
            });
        }
        Self::start_own(durable).await
    }

    /// Builds and starts one, whatever runs already. `durable` keeps etcd's fsync.
    pub async fn start_own(durable: bool) -> anyhow::Result<Self> {
        let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("../kube-apiserver/start");
        let folder = tempfile::tempdir()?;
        let mut command = Command::new(&script);
        command.arg(folder.path().join("real"));
        if durable {
            command.arg("--durable");
        }
        let mut child = command
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .kill_on_drop(false)
            .spawn()
            .with_context(|| format!("failed to start {}", script.display()))?;
        let input = child.stdin.take().context("the script has no input")?;
        let output = child.stdout.take().context("the script has no output")?;
        let started = tokio::time::timeout(STARTED_WITHIN, ready(output))
            .await
            .with_context(|| format!("{} was not ready in time", script.display()))?;
        let (kubeconfig, controllers) =
            started.with_context(|| format!("{} failed; what it says stands above", script.display()))?;
        let yaml = std::fs::read_to_string(&kubeconfig)?;
        let server = Server::from_kubeconfig("real", &yaml, controllers).await?;
        Ok(Self {
            server,
            kubeconfig,
            started: Some(Started {
                child,
                input,
                _folder: folder,
            }),
        })
    }

    /// The process that started the servers, where this is not one that ran already.
    pub fn id(&self) -> Option<u32> {
        self.started.as_ref()?.child.id()
    }

    /// Stops it, if it was started here.
    pub async fn stop(self) -> anyhow::Result<()> {
        let Some(Started {
            mut child,
            input,
            _folder,
        }) = self.started
        else {
            return Ok(());
        };
        drop(self.server);
        drop(input);
        child.wait().await?;
        Ok(())
    }
}

async fn ready(output: tokio::process::ChildStdout) -> anyhow::Result<(PathBuf, bool)> {
    let mut lines = BufReader::new(output).lines();
    let mut controllers = false;
    while let Some(line) = lines.next_line().await? {
        match line.split_once(' ') {
            Some(("controllers", answer)) => controllers = answer == "yes",
            Some(("ready", path)) => return Ok((path.into(), controllers)),
            _ => {}
        }
    }
    bail!("it ended before it was ready")
}
