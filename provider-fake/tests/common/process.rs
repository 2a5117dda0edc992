//! The real binary as a process that a test may kill and start again, with its log in a file.
#![allow(dead_code)] // each test crate uses its part
#![allow(clippy::expect_used, clippy::panic)] // a test may panic

use std::fs::File;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

/// How long a process may take until it listens.
const PATIENCE: Duration = Duration::from_mins(2);

/// The provider's process, which the suite may kill.
pub struct Provider {
    folder: PathBuf,
    flags: Vec<&'static str>,
    child: Mutex<Option<Child>>,
}

impl Provider {
    /// Starts it on what is in the folder.
    pub fn start(folder: &Path, flags: &[&'static str]) -> Arc<Self> {
        let provider = Arc::new(Self {
            folder: folder.to_owned(),
            flags: flags.to_vec(),
            child: Mutex::new(None),
        });
        provider.restart().expect("started");
        provider
    }

    /// Where it listens.
    pub fn socket(&self) -> PathBuf {
        self.folder.join("fake.sock")
    }

    /// What it said.
    pub fn log(&self) -> PathBuf {
        self.folder.join("log")
    }

    /// Kills it without warning, if it runs, and starts it again.
    pub fn restart(&self) -> anyhow::Result<()> {
        let mut child = self.child.lock().expect("no panic");
        if let Some(mut old) = child.take() {
            old.kill()?;
            old.wait()?;
        }
        let log = File::options().create(true).append(true).open(self.log())?;
        let mut started = Command::new(env!("CARGO_BIN_EXE_provider-fake"));
        started
            .arg(format!("--listen=unix://{}", self.socket().display()))
            .arg(format!("--state-dir={}/state", self.folder.display()))
            .arg("--log-level=trace")
            .args(&self.flags)
            .stdin(Stdio::null())
            .stdout(log.try_clone()?)
            .stderr(log);
        *child = Some(started.spawn()?);
        Ok(())
    }
}

impl Drop for Provider {
    fn drop(&mut self) {
        if let Some(mut child) = self.child.lock().expect("no panic").take() {
            let _ = child.kill();
            let _ = child.wait();
        }
    }
}

/// Waits until the process answers on its socket.
pub async fn until_it_listens(provider: &Provider) {
    let end = Instant::now() + PATIENCE;
    while tokio::net::UnixStream::connect(provider.socket()).await.is_err() {
        assert!(Instant::now() < end, "the provider does not listen");
        // There is nothing to wait on before the socket is there.
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
}
