//! `actuator-conformance`: judges the provider behind an endpoint.

use std::path::PathBuf;
use std::process::ExitCode;
use std::sync::Arc;

use actuator_conformance::dial::TlsFiles;
use actuator_conformance::report::{self, Outcome};
use actuator_conformance::rule::{Phase, Tier};
use actuator_conformance::{Config, Endpoint, Options, rules, run, runner};
use anyhow::{Context as _, bail};
use clap::Parser;
use indicatif::{ProgressBar, ProgressStyle};

/// It conforms, or nothing was asked of it.
const CONFORMS: u8 = 0;
/// It does not conform, or not all was looked at.
const DOES_NOT: u8 = 1;
/// Nothing can be said: bad flags, a bad config, no provider there.
const UNUSABLE: u8 = 2;

const EXAMPLES: &str = "\
Examples:
  What would be done, without doing it:
    actuator-conformance --endpoint unix:///run/actuator/aws/actuator.sock --config aws.yaml --dry-run
  Everything, with a report for CI:
    actuator-conformance --endpoint unix:///tmp/mine/actuator.sock --config mine.yaml --junit report.xml
  One part, with every call that a failing test made:
    actuator-conformance --endpoint unix:///tmp/mine/actuator.sock --config mine.yaml --focus create. --json report.json
  What a killed run has left in the cloud:
    actuator-conformance --endpoint unix:///tmp/mine/actuator.sock --config mine.yaml --ledger run.ledger --sweep

Exit codes: 0 the provider conforms; 1 it does not, or not all was looked at; 2 nothing can be said.";

/// Judges a provider: one test for each rule of the actuator protocol.
#[derive(Debug, Parser)]
#[command(name = "actuator-conformance", version, after_help = EXAMPLES)]
struct Flags {
    /// Where the provider is: unix:///path, tcp://127.0.0.1:PORT or https://NAME:PORT.
    #[arg(long, required_unless_present = "dry_run")]
    endpoint: Option<Endpoint>,
    /// What the suite has to know: configs, credentials, timeouts, budget, a restart command.
    #[arg(long, required_unless_present = "dry_run")]
    config: Option<PathBuf>,
    /// Only tests whose id contains this; may be given more than once.
    #[arg(long)]
    focus: Vec<String>,
    /// No tests whose id contains this; may be given more than once.
    #[arg(long)]
    skip: Vec<String>,
    /// As many tests at a time.
    #[arg(long, default_value_t = 4, value_parser = clap::value_parser!(u16).range(1..=64))]
    parallel: u16,
    /// Lists the tests with their sentences, and runs none.
    #[arg(long)]
    dry_run: bool,
    /// Tests about crashes that cannot be run (no restart command) spoil the verdict.
    #[arg(long)]
    require_faults: bool,
    /// Writes the report as JSON to this file; - for standard output.
    #[arg(long)]
    json: Option<PathBuf>,
    /// Writes the report as JUnit's XML to this file; - for standard output.
    #[arg(long)]
    junit: Option<PathBuf>,
    /// Where to write down the keys that may have something behind them; kept.
    #[arg(long)]
    ledger: Option<PathBuf>,
    /// Runs no test: removes what the ledger says a former run may have left.
    #[arg(long, requires = "ledger")]
    sweep: bool,
    /// Who signed the provider's certificate, in PEM; for https.
    #[arg(long, requires = "certificate")]
    ca: Option<PathBuf>,
    /// Our certificate, in PEM; for https.
    #[arg(long, requires = "key")]
    certificate: Option<PathBuf>,
    /// The key of our certificate, in PEM; for https.
    #[arg(long, requires = "ca")]
    key: Option<PathBuf>,
}

fn main() -> ExitCode {
    let flags = match Flags::try_parse() {
        Ok(flags) => flags,
        Err(error) => {
            let _ = error.print();
            return if error.use_stderr() {
                UNUSABLE.into()
            } else {
                CONFORMS.into()
            };
        }
    };
    let runtime = match tokio::runtime::Runtime::new() {
        Ok(runtime) => runtime,
        Err(error) => {
            eprintln_line(&format!("no runtime: {error}"));
            return UNUSABLE.into();
        }
    };
    match runtime.block_on(main_with(flags)) {
        Ok(code) => code.into(),
        Err(error) => {
            eprintln_line(&format!("error: {error:#}"));
            UNUSABLE.into()
        }
    }
}

async fn main_with(flags: Flags) -> anyhow::Result<u8> {
    if flags.dry_run {
        dry_run(&flags);
        return Ok(CONFORMS);
    }
    let (Some(endpoint), Some(path)) = (flags.endpoint.clone(), &flags.config) else {
        bail!("--endpoint and --config are needed");
    };
    let mut options = Options::new(endpoint, Config::read(path)?);
    if let (Some(ca), Some(certificate), Some(key)) = (&flags.ca, &flags.certificate, &flags.key) {
        options.tls = Some(TlsFiles {
            ca: ca.clone(),
            certificate: certificate.clone(),
            key: key.clone(),
        });
    }
    options.focus = flags.focus.clone();
    options.skip = flags.skip.clone();
    options.parallel = flags.parallel.into();
    options.ledger = flags.ledger.clone();
    options.faults_required = flags.require_faults;
    if flags.sweep {
        let left = runner::sweep(options).await?;
        for entry in &left {
            eprintln_line(&format!("left behind: {entry}"));
        }
        return Ok(if left.is_empty() { CONFORMS } else { DOES_NOT });
    }
    // Standard output is the report's where it was asked for there.
    let quiet = [&flags.json, &flags.junit]
        .into_iter()
        .flatten()
        .any(|path| path.as_os_str() == "-");
    let bar = ProgressBar::new(rules::all().len() as u64);
    if let Ok(style) = ProgressStyle::with_template("{wide_bar} {pos}/{len} {msg}") {
        bar.set_style(style);
    }
    let shown = bar.clone();
    options.progress = Some(Arc::new(move |outcome: &Outcome, ended, _| {
        shown.set_position(ended as u64);
        if outcome.ended != report::Ended::LeftOut && !quiet {
            shown.suspend(|| println_line(&report::line(outcome)));
        }
    }));
    let interrupt = options.interrupt.clone();
    tokio::spawn(async move {
        if tokio::signal::ctrl_c().await.is_ok() {
            eprintln_line("interrupted: removing what was made; press Ctrl-C again to leave it, the ledger has it");
            interrupt.cancel();
            if tokio::signal::ctrl_c().await.is_ok() {
                std::process::exit(i32::from(DOES_NOT));
            }
        }
    });
    let report = run(options).await?;
    bar.finish_and_clear();
    write(flags.json.as_ref(), || Ok(report.json()?))?;
    write(flags.junit.as_ref(), || Ok(report.junit()))?;
    if quiet {
        eprintln_line(&report.to_string());
    } else {
        println_line(&format!("\n{report}"));
    }
    Ok(if report.conforms() { CONFORMS } else { DOES_NOT })
}

fn dry_run(flags: &Flags) {
    let chosen = rules::all()
        .into_iter()
        .filter(|rule| runner::chooses(rule, &flags.focus, &flags.skip));
    let (mut tests, mut most) = (0, 0);
    for rule in chosen {
        tests += 1;
        most = most.max(rule.machines);
        let when = match (rule.tier, rule.phase) {
            (Tier::Faults, _) => ", restarts the provider or reads its logs",
            (_, Phase::Alone) => ", alone",
            (_, Phase::Last) => ", at the end",
            (_, Phase::Shared) => "",
        };
        let machines = if rule.machines > 0 {
            format!(", {} machines", rule.machines)
        } else {
            String::new()
        };
        println_line(&format!(
            "{} ({}, {}{machines}{when})\n    {}",
            rule.id, rule.tier, rule.severity, rule.sentence
        ));
    }
    println_line(&format!(
        "{tests} tests, at most {most} machines in one; nothing was called"
    ));
}

fn write(path: Option<&PathBuf>, render: impl FnOnce() -> anyhow::Result<String>) -> anyhow::Result<()> {
    let Some(path) = path else {
        return Ok(());
    };
    let text = render()?;
    if path.as_os_str() == "-" {
        println_line(&text);
        return Ok(());
    }
    std::fs::write(path, text).with_context(|| format!("failed to write the report {}", path.display()))
}

#[allow(clippy::print_stdout)] // the output of a command
fn println_line(line: &str) {
    println!("{line}");
}

#[allow(clippy::print_stderr)] // the output of a command
fn eprintln_line(line: &str) {
    eprintln!("{line}");
}
