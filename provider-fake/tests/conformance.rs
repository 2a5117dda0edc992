//! The conformance suite against the real binary, with crashes and a look into its log.

#![allow(clippy::expect_used, clippy::panic)] // a test may panic

use std::fs::File;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::{Arc, Mutex};

use actuator_conformance::restart::Hook;
use actuator_conformance::{Config, Options, run};

/// The provider's process, which the suite may kill.
struct Provider {
    folder: PathBuf,
    flags: Vec<&'static str>,
    child: Mutex<Option<Child>>,
}

impl Provider {
    fn start(folder: &Path, flags: &[&'static str]) -> Arc<Self> {
        let provider = Arc::new(Self {
            folder: folder.to_owned(),
            flags: flags.to_vec(),
            child: Mutex::new(None),
        });
        provider.restart().expect("started");
        provider
    }

    fn log(&self) -> PathBuf {
        self.folder.join("log")
    }

    fn restart(&self) -> anyhow::Result<()> {
        let mut child = self.child.lock().expect("no panic");
        if let Some(mut old) = child.take() {
            old.kill()?;
            old.wait()?;
        }
        let log = File::options().create(true).append(true).open(self.log())?;
        let mut started = Command::new(env!("CARGO_BIN_EXE_provider-fake"));
        started
            .arg(format!("--listen=unix://{}/fake.sock", self.folder.display()))
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

#[tokio::test(flavor = "multi_thread")]
async fn provider_fake_conforms() {
    let folder = tempfile::tempdir().expect("a folder");
    let tokens = "--require-token=conformance-token-good,conformance-token-rotated";
    let delays = [
        "--boot-delay=50ms",
        "--api-latency=5ms",
        "--delete-delay=50ms",
        "--read-after-write=100ms",
    ];
    let provider = Provider::start(folder.path(), &[&[tokens][..], &delays].concat());
    let path = concat!(env!("CARGO_MANIFEST_DIR"), "/../tests/conformance/providers/fake.yaml");
    let mut config = Config::read(path.as_ref()).expect("a config");
    config.logs = vec![provider.log()];
    let endpoint = format!("unix://{}/fake.sock", folder.path().display());
    let mut options = Options::new(endpoint.parse().expect("an endpoint"), config);
    let restarted = provider.clone();
    options.restart = Some(Hook::new(move || {
        let provider = restarted.clone();
        async move { tokio::task::spawn_blocking(move || provider.restart()).await? }
    }));
    options.faults_required = true;
    options.parallel = 8;
    options.ledger = Some(folder.path().join("ledger"));
    let report = loop {
        match run(options.clone()).await {
            Ok(report) => break report,
            // The process may not listen yet; nothing but the socket tells.
            Err(error) => {
                let starting = format!("{error:#}").contains("no connection");
                assert!(starting, "{error:#}");
                tokio::time::sleep(std::time::Duration::from_millis(50)).await;
            }
        }
    };
    println!("{report}");
    assert!(report.conforms(), "{report}");
}
