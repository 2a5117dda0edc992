//! The conformance suite against the real binary on a simulated AWS, with crashes and a
//! look into its log.

#![allow(clippy::expect_used, clippy::panic)] // a test may panic

mod common;

use std::fs::File;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use actuator_conformance::restart::Hook;
use actuator_conformance::{Config, Options, run};
use common::REGION;
use common::proxy::Cloud;

/// An image that moto brings along.
const IMAGE: &str = "ami-12c6146b";

/// The provider's process, which the suite may kill.
struct Provider {
    folder: PathBuf,
    endpoint: String,
    child: Mutex<Option<Child>>,
}

impl Provider {
    fn new(folder: &Path, endpoint: String) -> Arc<Self> {
        Arc::new(Self {
            folder: folder.to_owned(),
            endpoint,
            child: Mutex::new(None),
        })
    }

    fn socket(&self) -> PathBuf {
        self.folder.join("aws.sock")
    }

    fn log(&self) -> PathBuf {
        self.folder.join("log")
    }

    /// Kills it without warning, if it runs, and starts it again.
    fn restart(&self) -> anyhow::Result<()> {
        let mut child = self.child.lock().expect("no panic");
        if let Some(mut old) = child.take() {
            old.kill()?;
            old.wait()?;
        }
        let log = File::options().create(true).append(true).open(self.log())?;
        let mut started = Command::new(env!("CARGO_BIN_EXE_provider-aws"));
        started
            .arg(format!("--listen=unix://{}", self.socket().display()))
            .arg(format!("--endpoint={}", self.endpoint))
            .arg(format!("--region={REGION}"))
            .args(["--read-after-write=300", "--describe-interval=20", "--poll-interval=50"])
            .arg("--log-level=debug,provider_aws=trace")
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
async fn provider_aws_conforms() {
    let folder = tempfile::tempdir().expect("a folder");
    let cloud = Cloud::start().await;
    let provider = Provider::new(folder.path(), cloud.address());
    provider.restart().expect("started");
    let text = include_str!("conformance.yaml").replace("AMI}", &format!("{IMAGE}}}"));
    let mut config = Config::parse(&text).expect("a config");
    config.logs = vec![provider.log()];
    let end = Instant::now() + Duration::from_secs(30);
    while tokio::net::UnixStream::connect(provider.socket()).await.is_err() {
        assert!(Instant::now() < end, "the provider does not listen");
        // There is nothing to wait on before the socket is there.
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    let endpoint = format!("unix://{}", provider.socket().display());
    let mut options = Options::new(endpoint.parse().expect("an endpoint"), config);
    let restarted = provider.clone();
    options.restart = Some(Hook::new(move || {
        let provider = restarted.clone();
        async move { tokio::task::spawn_blocking(move || provider.restart()).await? }
    }));
    options.faults_required = true;
    options.parallel = 4;
    options.ledger = Some(folder.path().join("ledger"));
    options.progress = Some(Arc::new(|outcome, number, total| {
        println!("{number}/{total} {} {:?} {:?}", outcome.id, outcome.ended, outcome.took);
    }));
    let report = run(options).await.expect("a report");
    println!("{report}");
    assert!(report.conforms(), "{report}");
}
