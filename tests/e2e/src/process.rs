//! A child process of a test: its output goes to a file, it ends with the test, and it
//! can be killed the hard way.

use std::ffi::OsStr;
use std::fs::File;
use std::path::{Path, PathBuf};
use std::process::{ExitStatus, Stdio};
use std::time::Duration;

use anyhow::{Context as _, bail};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use tokio::io::{AsyncBufReadExt as _, BufReader};
use tokio::process::{Child, Command};
use tokio::sync::mpsc;

/// As many lines of standard output are kept for [`Process::line`]; a test reads few.
const KEPT_LINES: usize = 1024;

/// A child process and where its output goes.
#[derive(Debug)]
pub struct Process {
    name: String,
    child: Child,
    log: PathBuf,
    lines: mpsc::Receiver<String>,
}

impl Process {
    /// Starts `program`; standard error is appended to `log`, standard output is read line by line.
    pub fn start<A: AsRef<OsStr>>(
        program: &Path,
        arguments: impl IntoIterator<Item = A>,
        environment: &[(String, String)],
        log: &Path,
    ) -> anyhow::Result<Self> {
        let file = File::options()
            .create(true)
            .append(true)
            .open(log)
            .with_context(|| format!("failed to open {}", log.display()))?;
        let mut child = Command::new(program)
            .args(arguments)
            .envs(environment.iter().map(|(name, value)| (name, value)))
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(file)
            .kill_on_drop(true)
            .spawn()
            .with_context(|| format!("failed to start {}", program.display()))?;
        let name = program.file_name().unwrap_or_default().to_string_lossy().into_owned();
        let (sender, lines) = mpsc::channel(KEPT_LINES);
        if let Some(stdout) = child.stdout.take() {
            tokio::spawn(async move {
                let mut stdout = BufReader::new(stdout).lines();
                while let Ok(Some(line)) = stdout.next_line().await {
                    // A test that does not read the lines does not care for them.
                    let _ = sender.try_send(line);
                }
            });
        }
        Ok(Self {
            name,
            child,
            log: log.to_owned(),
            lines,
        })
    }

    /// The process id, while it runs.
    pub fn id(&self) -> Option<u32> {
        self.child.id()
    }

    /// The rest of the next line of standard output that starts with `prefix`.
    pub async fn line(&mut self, prefix: &str, within: Duration) -> anyhow::Result<String> {
        let found = tokio::time::timeout(within, async {
            while let Some(line) = self.lines.recv().await {
                if let Some(rest) = line.strip_prefix(prefix) {
                    return Some(rest.to_owned());
                }
            }
            None
        })
        .await;
        match found {
            Ok(Some(rest)) => Ok(rest),
            Ok(None) => bail!("{} ended without a line {prefix:?}:\n{}", self.name, self.output()),
            Err(_) => bail!(
                "{} printed no line {prefix:?} within {within:?}:\n{}",
                self.name,
                self.output()
            ),
        }
    }

    /// What it has written to standard error so far.
    pub fn output(&self) -> String {
        std::fs::read_to_string(&self.log).unwrap_or_default()
    }

    /// `kill -9`, and waits for the end.
    pub async fn kill(&mut self) -> anyhow::Result<()> {
        self.child
            .kill()
            .await
            .with_context(|| format!("failed to kill {}", self.name))
    }

    /// SIGTERM, and waits for the end; an error when it does not end in time.
    pub async fn terminate(&mut self, within: Duration) -> anyhow::Result<ExitStatus> {
        self.signal(Signal::SIGTERM)?;
        self.ended(within).await
    }

    /// Sends a signal.
    pub fn signal(&self, signal: Signal) -> anyhow::Result<()> {
        let pid = self
            .id()
            .with_context(|| format!("{} has ended already:\n{}", self.name, self.output()))?;
        kill(Pid::from_raw(pid.cast_signed()), signal).with_context(|| format!("failed to signal {}", self.name))
    }

    /// Waits for the end.
    pub async fn ended(&mut self, within: Duration) -> anyhow::Result<ExitStatus> {
        match tokio::time::timeout(within, self.child.wait()).await {
            Ok(status) => Ok(status?),
            Err(_) => bail!("{} did not end within {within:?}:\n{}", self.name, self.output()),
        }
    }

    /// Whether it still runs.
    pub fn is_running(&mut self) -> bool {
        matches!(self.child.try_wait(), Ok(None))
    }
}
