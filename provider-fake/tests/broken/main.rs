//! The conformance suite can fail: broken providers, each caught by the test that is meant
//! for it, and none caught when nothing is broken. Without this, a passing suite says
//! nothing.

#![allow(clippy::expect_used, clippy::panic, clippy::unwrap_used)] // a test may panic

mod faults;
mod proxy;

#[path = "../common/process.rs"]
mod process;

use std::sync::Arc;
use std::sync::atomic::Ordering;

use actuator_conformance::report::Ended;
use actuator_conformance::restart::Hook;
use actuator_conformance::{Config, Options, Report, run};
use faults::Broken;
use libtest_mimic::{Arguments, Failed, Trial};
use process::Provider;
use proxy::{Fault, Proxy};

/// Each has a provider's process of its own.
const AT_ONCE: usize = 4;

/// Runs the tests of these ids against a real provider behind a fault.
async fn judged(fault: Arc<dyn Fault>, focus: Vec<String>) -> Report {
    let folder = tempfile::tempdir().expect("a folder");
    let provider = Provider::start(
        folder.path(),
        &[
            "--require-token=conformance-token-good,conformance-token-rotated",
            "--boot-delay=20ms",
            "--delete-delay=200ms",
        ],
    );
    let upstream = format!("unix://{}", provider.socket().display());
    let proxy = Proxy::start(folder.path(), upstream.parse().expect("an endpoint"), fault);
    let path = concat!(env!("CARGO_MANIFEST_DIR"), "/../tests/conformance/providers/fake.yaml");
    let mut config = Config::read(path.as_ref()).expect("a config");
    config.timeouts.ready = std::time::Duration::from_secs(10);
    config.timeouts.gone = std::time::Duration::from_secs(10);
    let endpoint = format!("unix://{}", proxy.socket.display());
    let mut options = Options::new(endpoint.parse().expect("an endpoint"), config);
    let (restarted, memory) = (provider.clone(), proxy.memory.clone());
    options.restart = Some(Hook::new(move || {
        let (provider, memory) = (restarted.clone(), memory.clone());
        async move {
            tokio::task::spawn_blocking(move || provider.restart()).await??;
            memory.restarted.store(true, Ordering::SeqCst);
            Ok(())
        }
    }));
    options.focus = focus;
    options.ledger = Some(folder.path().join("ledger"));
    process::until_it_listens(&provider).await;
    run(options).await.expect("a report")
}

fn ended(report: &Report, id: &str) -> Ended {
    report
        .outcomes
        .iter()
        .find(|outcome| outcome.id == id)
        .map(|outcome| outcome.ended)
        .expect("a rule of this id")
}

/// What has to run with it: the rules about all errors are judged by what other tests saw.
fn focus(id: &str) -> Vec<String> {
    let mut focus = vec![id.to_owned()];
    if id.starts_with("errors.") {
        focus.push("create.missing-fields".to_owned());
    }
    focus
}

fn main() {
    let mut arguments = Arguments::from_args();
    arguments.test_threads.get_or_insert(AT_ONCE);
    let runtime = Arc::new(tokio::runtime::Runtime::new().expect("a runtime"));
    let mut trials = Vec::new();
    let mut caught = Vec::new();
    for Broken { name, caught_by, fault } in faults::all() {
        caught.push(caught_by);
        let runtime = runtime.clone();
        trials.push(Trial::test(
            format!("{caught_by} catches a provider that {name}"),
            move || {
                let report = runtime.block_on(judged(fault, focus(caught_by)));
                match ended(&report, caught_by) {
                    Ended::Failed => Ok(()),
                    other => Err(Failed::from(format!("{caught_by} ended as {other:?}: {report}"))),
                }
            },
        ));
    }
    trials.push(Trial::test("a provider that is not broken is not caught", move || {
        let focused = caught.iter().flat_map(|id| focus(id)).collect();
        let report = runtime.block_on(judged(faults::none(), focused));
        for id in caught {
            // A provider that has every capability has nothing to hide.
            let due = if id == "transport.not-advertised" {
                Ended::Inapplicable
            } else {
                Ended::Passed
            };
            if ended(&report, id) != due {
                return Err(Failed::from(format!(
                    "{id} ended as {:?}: {report}",
                    ended(&report, id)
                )));
            }
        }
        Ok(())
    }));
    libtest_mimic::run(&arguments, trials).exit();
}
