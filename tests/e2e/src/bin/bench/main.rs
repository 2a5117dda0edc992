//! `make bench`: the figures of docs/benchmarks.md, as tables in Markdown. It runs the
//! real binaries as processes of their own on loopback and counts; nothing is asserted.

mod fleet;
mod measure;
mod neighbour;
mod overhead;
mod suite;
mod unary;

use std::alloc::System;
use std::io::Write as _;
use std::path::PathBuf;
use std::process::{Command, ExitCode};

use clap::Parser;
use comfy_table::Table;
use comfy_table::presets::ASCII_MARKDOWN;
use stats_alloc::{INSTRUMENTED_SYSTEM, StatsAlloc};

/// Counts what this process allocates; the processes that are measured have their own.
#[global_allocator]
static ALLOCATOR: &StatsAlloc<System> = &INSTRUMENTED_SYSTEM;

/// Measures Outrigger on this machine and prints tables.
#[derive(Debug, Parser)]
#[command(after_help = "Examples:
  make bench
  cargo run --release -p e2e --bin bench -- --binaries target/release --sizes 100,1000 --steady 10")]
struct Arguments {
    /// The folder of clusterctl, core-controller and provider-fake.
    #[arg(long, value_name = "DIR", env = "BENCH_BINARIES", default_value = "target/release")]
    binaries: PathBuf,
    /// How many machines, one run each.
    #[arg(
        long,
        value_name = "N,…",
        env = "BENCH_SIZES",
        value_delimiter = ',',
        default_value = "100,1000,10000"
    )]
    sizes: Vec<usize>,
    /// How many seconds the steady state is watched.
    #[arg(long, value_name = "SECONDS", env = "BENCH_STEADY", default_value_t = 60)]
    steady: u64,
    /// How many unary calls are timed.
    #[arg(long, value_name = "N", env = "BENCH_CALLS", default_value_t = 20_000)]
    calls: usize,
    /// How many machines each of two providers has while one of them hangs.
    #[arg(long, value_name = "N", env = "BENCH_NEIGHBOURS", default_value_t = 1000)]
    neighbours: usize,
}

fn main() -> ExitCode {
    let arguments = Arguments::parse();
    let runtime = match tokio::runtime::Builder::new_multi_thread().enable_all().build() {
        Ok(runtime) => runtime,
        Err(error) => return failed(&anyhow::Error::from(error)),
    };
    match runtime.block_on(run(&arguments)) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => failed(&error),
    }
}

fn failed(error: &anyhow::Error) -> ExitCode {
    let _ = writeln!(std::io::stderr(), "bench: {error:#}");
    ExitCode::FAILURE
}

async fn run(arguments: &Arguments) -> anyhow::Result<()> {
    let binaries = arguments.binaries.canonicalize()?;
    say(&header());
    let mut reports = Vec::new();
    for size in &arguments.sizes {
        let report = fleet::measure(&binaries, *size, arguments.steady).await?;
        say(&format!(
            "{size} machines: up in {:.1} s, down in {:.1} s",
            report.up.seconds, report.down.seconds
        ));
        reports.push(report);
    }
    say("\n### Machines from one MachineDeployment, no delays in the cloud\n");
    say(&fleet::table(&reports).to_string());
    for report in &reports {
        say(&format!(
            "\n#### Writes by verb and resource, and provider calls, at {} machines\n",
            report.size
        ));
        say(&fleet::writes_table(report).to_string());
    }
    say("\n### Beside Cluster API 1.13.4 with its in-memory backend, at 1,000 machines\n");
    if let Some(report) = reports.iter().find(|report| report.size == 1000) {
        say(&fleet::comparison(report).to_string());
    }
    say("\n### One provider's machines while another provider hangs\n");
    say(&neighbour::measure(&binaries, arguments.neighbours).await?.to_string());
    say("\n### One unary call over the Unix socket, one connection\n");
    say(&unary::measure(&binaries, arguments.calls).await?.to_string());
    say("\n### What the provider host adds to a call over the Unix socket\n");
    say(&overhead::measure(&binaries, arguments.calls).await?.to_string());
    say("\n### The conformance suite against provider-fake, four tests at a time\n");
    say(&suite::measure(&binaries).await?.to_string());
    Ok(())
}

fn header() -> String {
    let output = |program: &str, arguments: &[&str]| {
        Command::new(program)
            .args(arguments)
            .output()
            .ok()
            .map(|output| String::from_utf8_lossy(&output.stdout).trim().to_owned())
            .unwrap_or_default()
    };
    let model = std::fs::read_to_string("/proc/cpuinfo")
        .ok()
        .and_then(|text| {
            text.lines()
                .find_map(|line| Some(line.strip_prefix("model name")?.split_once(':')?.1.trim().to_owned()))
        })
        .unwrap_or_else(|| "unknown processor".to_owned());
    let cores = std::thread::available_parallelism().map_or(1, usize::from);
    let memory = std::fs::read_to_string("/proc/meminfo")
        .ok()
        .and_then(|text| text.lines().next()?.split_whitespace().nth(1)?.parse::<u64>().ok())
        .unwrap_or(0);
    format!(
        "Machine: {cores} cores of {model}, {} GiB, {}. Commit: {}. {}. Command: `make bench`.\n",
        memory / 1024 / 1024,
        output("uname", &["-sr"]),
        output("git", &["rev-parse", "--short", "HEAD"]),
        jiff::Timestamp::now().strftime("%Y-%m-%d"),
    )
}

/// A table in Markdown with these headers.
fn new_table<const N: usize>(headers: [&str; N]) -> Table {
    let mut table = Table::new();
    table.load_style(ASCII_MARKDOWN).set_header(headers);
    table
}

fn say(text: &str) {
    let _ = writeln!(std::io::stdout(), "{text}");
}
