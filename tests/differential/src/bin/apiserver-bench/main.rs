//! The figures of the embedded API server beside those of the real kube-apiserver on etcd: the same client, the same
//! requests, on the same machine, one server after the other. `make bench` prints them; nothing is asserted.

mod client;
mod figures;
mod subject;

use std::io::Write as _;
use std::path::PathBuf;
use std::process::ExitCode;

use clap::{Parser, Subcommand};

use figures::{Figures, Sizes};
use subject::Subject;

/// Compares the embedded API server with the real one and prints tables in Markdown.
#[derive(Debug, Parser)]
#[command(after_help = "Examples:
  make bench
  cargo run --release -p differential --bin apiserver-bench -- --objects 20000
  cargo run --release -p differential --bin apiserver-bench -- --embedded-only")]
struct Arguments {
    #[command(subcommand)]
    command: Option<Command>,
    /// With how many objects memory is measured at last; at least 10000.
    #[arg(long, value_name = "N", env = "BENCH_OBJECTS", default_value_t = 100_000, value_parser = clap::value_parser!(u64).range(10_000..=1_000_000))]
    objects: u64,
    /// Leaves the real server out, for work on the embedded one.
    #[arg(long)]
    embedded_only: bool,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Serves the embedded API server until the end of input: the process that is measured.
    #[command(hide = true)]
    Serve {
        /// Where certificates, and the data unless in memory, are kept.
        folder: PathBuf,
        /// Keeps the objects in memory.
        #[arg(long)]
        memory: bool,
    },
}

fn main() -> ExitCode {
    let arguments = Arguments::parse();
    let _ = rustls::crypto::ring::default_provider().install_default();
    let runtime = match tokio::runtime::Builder::new_multi_thread().enable_all().build() {
        Ok(runtime) => runtime,
        Err(error) => return failed(&anyhow::Error::from(error)),
    };
    let done = runtime.block_on(async {
        match &arguments.command {
            Some(Command::Serve { folder, memory }) => subject::serve(folder, *memory).await,
            None => compare(&arguments).await,
        }
    });
    match done {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => failed(&error),
    }
}

fn failed(error: &anyhow::Error) -> ExitCode {
    let _ = writeln!(std::io::stderr(), "apiserver-bench: {error:#}");
    ExitCode::FAILURE
}

async fn compare(arguments: &Arguments) -> anyhow::Result<()> {
    let sizes = Sizes::new(arguments.objects as usize);
    for durable in [false, true] {
        let (embedded, real) = if durable {
            ("on its file, every write synced", "etcd with fsync")
        } else {
            ("in memory", "etcd without fsync")
        };
        say(&format!("\n### Embedded {embedded}; kube-apiserver 1.34 and {real}\n"));
        let ours = measured(Subject::embedded(durable).await?, sizes).await?;
        let theirs = if arguments.embedded_only {
            None
        } else {
            Some(measured(Subject::real(durable).await?, sizes).await?)
        };
        say(&figures::table(&ours, theirs.as_ref()).to_string());
    }
    Ok(())
}

async fn measured(subject: Subject, sizes: Sizes) -> anyhow::Result<Figures> {
    let figures = figures::measure(&subject, sizes).await;
    subject.stop().await?;
    figures
}

fn say(text: &str) {
    let _ = writeln!(std::io::stdout(), "{text}");
}
