//! A run that is cut short leaves nothing in the cloud: Ctrl-C removes what was made, and
//! after `kill -9` the ledger and `--sweep` do. Both real binaries; the simulated cloud's
//! own audit judges.

#![allow(clippy::expect_used, clippy::panic)] // a test may panic

use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::time::Duration;

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use serde_json::Value;
use tempfile::TempDir;
use tokio::process::{Child, Command};

/// Long enough for a busy machine; nothing here takes as long.
const PATIENCE: Duration = Duration::from_mins(2);

/// provider-fake with a cloud that is slow enough to be met in the midst of its work.
struct Stage {
    folder: TempDir,
    _provider: Child,
}

impl Stage {
    fn new() -> Self {
        let folder = tempfile::Builder::new().prefix("or").tempdir().expect("a folder");
        let state = folder.path().join("state");
        std::fs::create_dir(&state).expect("a folder");
        let provider = Command::new(provider_fake())
            .arg(format!("--listen={}", endpoint(folder.path())))
            .arg(format!("--state-dir={}", state.display()))
            .arg("--require-token=conformance-token-good,conformance-token-rotated")
            .args(["--boot-delay=300ms", "--delete-delay=300ms", "--api-latency=20ms"])
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(std::fs::File::create(folder.path().join("provider.log")).expect("a log"))
            .kill_on_drop(true)
            .spawn()
            .expect("provider-fake starts");
        Self {
            folder,
            _provider: provider,
        }
    }

    async fn listening(self) -> Self {
        let socket = self.folder.path().join("run/actuator.sock");
        until("provider-fake listens", async || socket.exists()).await;
        self
    }

    fn ledger(&self) -> PathBuf {
        self.folder.path().join("ledger")
    }

    /// The suite with these flags besides; only tests that make machines, many at a time.
    fn suite(&self, flags: &[&str]) -> Child {
        Command::new(env!("CARGO_BIN_EXE_actuator-conformance"))
            .args(["--endpoint", &endpoint(self.folder.path())])
            .args(["--config", concat!(env!("CARGO_MANIFEST_DIR"), "/providers/fake.yaml")])
            .arg("--ledger")
            .arg(self.ledger())
            .args(flags)
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(std::fs::File::create(self.folder.path().join("suite.log")).expect("a log"))
            .kill_on_drop(true)
            .spawn()
            .expect("the suite starts")
    }

    fn said(&self) -> String {
        std::fs::read_to_string(self.folder.path().join("suite.log")).unwrap_or_default()
    }

    /// What the cloud holds: live instances, and artefacts that nobody owns.
    async fn audit(&self) -> (usize, usize) {
        let output = Command::new(provider_fake())
            .arg("audit")
            .arg("--state-dir")
            .arg(self.folder.path().join("state"))
            .stdin(Stdio::null())
            .output()
            .await
            .expect("the audit runs");
        let report: Value = serde_json::from_slice(&output.stdout).unwrap_or_default();
        let orphans = report["orphans"].as_array().map_or(0, Vec::len);
        (report["instances"].as_object().map_or(0, serde_json::Map::len), orphans)
    }

    /// Waits until the run has made machines, which are there still.
    async fn midst(&self) {
        until("the suite has made machines", async || self.audit().await.0 >= 3).await;
    }
}

fn endpoint(folder: &Path) -> String {
    format!("unix://{}/run/actuator.sock", folder.display())
}

/// Beside the suite's own binary: `make test` builds both before it runs the tests.
fn provider_fake() -> PathBuf {
    let program = Path::new(env!("CARGO_BIN_EXE_actuator-conformance")).with_file_name("provider-fake");
    assert!(
        program.exists(),
        "{} is missing; run `cargo build -p provider-fake` first",
        program.display()
    );
    program
}

async fn until(what: &str, holds: impl AsyncFn() -> bool) {
    let waiting = async {
        while !holds().await {
            // A cloud on disk tells nobody when it changes.
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    };
    assert!(
        tokio::time::timeout(PATIENCE, waiting).await.is_ok(),
        "it did not come to pass: {what}"
    );
}

async fn code(mut suite: Child) -> Option<i32> {
    let ended = tokio::time::timeout(PATIENCE, suite.wait()).await;
    ended.expect("the suite ends").expect("its end is told").code()
}

fn signal(suite: &Child, signal: Signal) {
    let pid = suite.id().expect("the suite runs");
    kill(Pid::from_raw(i32::try_from(pid).expect("a process id")), signal).expect("the signal is sent");
}

#[tokio::test(flavor = "multi_thread")]
async fn ctrl_c_removes_what_was_made_and_is_no_pass() {
    let stage = Stage::new().listening().await;
    let suite = stage.suite(&["--parallel", "8"]);
    stage.midst().await;
    signal(&suite, Signal::SIGINT);
    assert_eq!(code(suite).await, Some(1), "{}", stage.said());
    assert_eq!(stage.audit().await, (0, 0), "{}", stage.said());
    assert!(
        stage.said().contains("interrupted: removing what was made"),
        "{}",
        stage.said()
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn what_a_killed_run_has_left_is_swept_by_its_ledger() {
    let stage = Stage::new().listening().await;
    let suite = stage.suite(&["--parallel", "8"]);
    stage.midst().await;
    signal(&suite, Signal::SIGKILL);
    assert_eq!(code(suite).await, None);
    assert!(stage.audit().await.0 > 0, "nothing was left, so nothing is shown");
    assert_eq!(code(stage.suite(&["--sweep"])).await, Some(0), "{}", stage.said());
    assert_eq!(stage.audit().await, (0, 0), "{}", stage.said());
    // Again it finds nothing to do, and says so by its code.
    assert_eq!(code(stage.suite(&["--sweep"])).await, Some(0), "{}", stage.said());
}
