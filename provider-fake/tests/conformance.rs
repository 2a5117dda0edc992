//! The conformance suite against the real binary, with crashes and a look into its log.

#![allow(clippy::expect_used, clippy::panic)] // a test may panic

#[path = "common/process.rs"]
mod process;

use actuator_conformance::restart::Hook;
use actuator_conformance::{Config, Options, run};
use process::Provider;

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
    process::until_it_listens(&provider).await;
    let report = run(options).await.expect("a report");
    println!("{report}");
    assert!(report.conforms(), "{report}");
}
