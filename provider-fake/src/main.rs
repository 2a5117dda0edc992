//! The binary `provider-fake`: flags, the simulated cloud, the provider, the audit.

use std::io::Write as _;
use std::path::Path;
use std::process::ExitCode;

use anyhow::Context as _;
use clap::Parser as _;
use provider_fake::audit;
use provider_fake::cloud::{Cloud, CloudOptions};
use provider_fake::control::Control;
use provider_fake::flags::{AuditFlags, CloudFlags};
use provider_fake::provider::FakeProvider;
use provider_sdk::{Program, Setup};

const EXAMPLES: &str = "\
Audit:
  provider-fake audit --state-dir DIR   judges a run by its journal; see provider-fake audit --help

Examples:
  Machines that boot for two seconds:
    provider-fake --listen unix:///tmp/fake/actuator.sock --state-dir ./state --boot-delay 2s --boot-jitter 500ms
  A cloud that is slow, small and unreliable:
    provider-fake --state-dir ./state --api-latency 20ms --read-after-write 1s --rate-limit 50/s \\
      --quota instances=100 --capacity zone-a=20,zone-b/fake.gpu=2 \\
      --error-rate CLOUD_UNAVAILABLE=0.05,RunInstance:INSUFFICIENT_CAPACITY=0.1 \\
      --lose-responses 0.02 --lost-response-timeout 5s --mean-lifetime 10m --seed 42
  One that is steered while it runs (fake.control.v1, on the same listener):
    provider-fake --state-dir ./state --control";

const PROGRAM: Program = Program::new(
    "provider-fake",
    env!("CARGO_PKG_VERSION"),
    "A simulated cloud behind the actuator protocol, with a durable ledger, delays, limits and faults",
)
.with_examples(EXAMPLES);

fn main() -> ExitCode {
    if std::env::args_os().nth(1).is_some_and(|argument| argument == "audit") {
        return run_audit();
    }
    provider_sdk::run(PROGRAM, setup)
}

async fn setup(flags: CloudFlags) -> anyhow::Result<Setup<FakeProvider>> {
    let options = CloudOptions {
        settings: flags.settings()?,
        folder: flags.state_dir,
        seed: flags.seed,
        flush: !flags.no_flush,
    };
    let opened = tokio::task::spawn_blocking(move || Cloud::open(options)).await;
    let cloud = opened.context("the ledger could not be opened")??;
    let driven = cloud.clone();
    tokio::spawn(async move { driven.drive().await });
    let setup = Setup::new(FakeProvider::new(
        cloud.clone(),
        usize::from(flags.max_concurrent_mutations),
    ));
    if !flags.control {
        return Ok(setup);
    }
    Ok(setup.with_server(|server| server.add_service(Control::service(cloud))))
}

fn run_audit() -> ExitCode {
    let flags = AuditFlags::parse_from(std::env::args_os().skip(1));
    match audit_report(&flags.state_dir, flags.expect_keys.as_deref()) {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::FAILURE,
        Err(error) => {
            let _ = writeln!(std::io::stderr(), "provider-fake audit: {error:#}");
            ExitCode::FAILURE
        }
    }
}

/// Prints the report; tells whether it is clean.
fn audit_report(state_dir: &Path, expect_keys: Option<&Path>) -> anyhow::Result<bool> {
    let mut report = audit::audit(state_dir)?;
    if let Some(path) = expect_keys {
        let keys = std::fs::read_to_string(path).with_context(|| format!("unable to read {}", path.display()))?;
        report.expect_keys(keys.lines().map(str::trim).filter(|key| !key.is_empty()));
    }
    let mut out = std::io::stdout().lock();
    serde_json::to_writer_pretty(&mut out, &report).context("unable to print the report")?;
    writeln!(out).context("unable to print the report")?;
    Ok(report.clean)
}
