//! A provider as a child process: started, watched, started again when it died, and
//! ended with us. Not for: talking to it, which is the core's business.

use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::time::{Duration, Instant};

use anyhow::Context as _;
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use tokio::process::{Child, Command};
use tokio_util::sync::CancellationToken;
use tracing::{info, warn};

use super::data_dir::write_private;

const FIRST_RESTART_DELAY: Duration = Duration::from_millis(200);
const LAST_RESTART_DELAY: Duration = Duration::from_secs(10);
/// A provider that lived this long is well: its next death starts the back-off anew.
const WELL_AFTER: Duration = Duration::from_secs(30);
/// How long a provider may take to end in peace.
const GRACE: Duration = Duration::from_secs(10);

/// What is needed to run a provider.
#[derive(Debug, Clone)]
pub struct ProviderProcess {
    /// The provider's name.
    pub name: String,
    /// The binary.
    pub binary: PathBuf,
    /// Where it shall listen.
    pub socket: PathBuf,
    /// Its own folder.
    pub folder: PathBuf,
}

/// Finds `provider-NAME`: beside this binary first, then on the PATH.
pub fn find_binary(name: &str) -> anyhow::Result<PathBuf> {
    let file = format!("provider-{name}");
    let beside = std::env::current_exe()
        .ok()
        .and_then(|own| own.parent().map(Path::to_owned));
    let path = std::env::var_os("PATH").unwrap_or_default();
    beside
        .into_iter()
        .chain(std::env::split_paths(&path))
        .map(|folder| folder.join(&file))
        .find(|candidate| nix::unistd::access(candidate, nix::unistd::AccessFlags::X_OK).is_ok() && candidate.is_file())
        .with_context(|| {
            format!(
                "no binary {file} beside clusterctl or on the PATH; install it, or name the endpoint of a running one: \
                 --provider {name}=unix:///PATH"
            )
        })
}

impl ProviderProcess {
    /// Runs the provider until `shutdown`, restarting it with back-off whenever it ends.
    pub async fn supervise(self, shutdown: CancellationToken) {
        self.end_leftover().await;
        let mut delay = FIRST_RESTART_DELAY;
        while !shutdown.is_cancelled() {
            let started = Instant::now();
            let ended = match self.start() {
                Ok(mut child) => {
                    tokio::select! {
                        status = child.wait() => match status {
                            Ok(status) => status.to_string(),
                            Err(error) => error.to_string(),
                        },
                        () = shutdown.cancelled() => {
                            self.stop(child).await;
                            return;
                        }
                    }
                }
                Err(error) => format!("{error:#}"),
            };
            if started.elapsed() >= WELL_AFTER {
                delay = FIRST_RESTART_DELAY;
            }
            warn!(
                provider = self.name,
                delay_ms = delay.as_millis(),
                "the provider ended ({ended}) and is started again"
            );
            tokio::select! {
                () = tokio::time::sleep(delay) => {}
                () = shutdown.cancelled() => return,
            }
            delay = (delay * 2).min(LAST_RESTART_DELAY);
        }
    }

    fn start(&self) -> anyhow::Result<Child> {
        let child = Command::new(&self.binary)
            .arg("--listen")
            .arg(format!("unix://{}", self.socket.display()))
            .env("ACTUATOR_STATE_DIR", &self.folder)
            .current_dir(&self.folder)
            .stdin(Stdio::null())
            // Ctrl-C at the terminal goes to the whole process group; the child shall end
            // after the core, when it is told to.
            .process_group(0)
            .kill_on_drop(true)
            .spawn()
            .with_context(|| format!("failed to start {}", self.binary.display()))?;
        if let Some(pid) = child.id() {
            info!(provider = self.name, pid, "started the provider");
            write_private(&self.pid_file(), format!("{pid}\n").as_bytes())?;
        }
        Ok(child)
    }

    async fn stop(&self, mut child: Child) {
        if let Some(pid) = child.id() {
            // It may have ended by itself a moment ago.
            let _ = kill(process_id(pid), Signal::SIGTERM);
        }
        if tokio::time::timeout(GRACE, child.wait()).await.is_err() {
            warn!(
                provider = self.name,
                "the provider did not end within {} s and is killed",
                GRACE.as_secs()
            );
            let _ = child.kill().await;
        }
        let _ = std::fs::remove_file(self.pid_file());
    }

    fn pid_file(&self) -> PathBuf {
        self.folder.join("pid")
    }

    /// A former clusterctl that was killed leaves its provider behind, which holds the
    /// socket. It is ended if it really is ours: our file names it, it runs our binary's
    /// name, and it was told to listen on our socket.
    async fn end_leftover(&self) {
        let Some(pid) = std::fs::read_to_string(self.pid_file())
            .ok()
            .and_then(|text| text.trim().parse::<u32>().ok())
        else {
            return;
        };
        if !self.is_ours(pid) {
            return;
        }
        info!(
            provider = self.name,
            pid, "ending the provider that a former clusterctl left behind"
        );
        let _ = kill(process_id(pid), Signal::SIGTERM);
        let asked = Instant::now();
        while self.is_ours(pid) {
            if asked.elapsed() > GRACE {
                let _ = kill(process_id(pid), Signal::SIGKILL);
            }
            // There is no event for the end of a process that is not our child.
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    }

    fn is_ours(&self, pid: u32) -> bool {
        let Ok(command_line) = std::fs::read(format!("/proc/{pid}/cmdline")) else {
            return false;
        };
        let listen = format!("unix://{}", self.socket.display());
        let words: Vec<&[u8]> = command_line.split(|byte| *byte == 0).collect();
        let program = words
            .first()
            .and_then(|word| std::str::from_utf8(word).ok())
            .map(Path::new);
        program.and_then(Path::file_name) == self.binary.file_name() && words.contains(&listen.as_bytes())
    }
}

fn process_id(pid: u32) -> Pid {
    Pid::from_raw(pid.cast_signed())
}
