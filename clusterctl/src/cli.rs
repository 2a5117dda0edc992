//! The command line: flags, their environment variables, and which command runs.

use std::io::Write as _;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Duration;

use clap::{Args, CommandFactory as _, Parser, Subcommand};

use crate::up::provider_flag::ProviderFlag;
use crate::{apply, describe, up, wait};

/// Makes clusters out of machines: a management plane from nothing, on one machine.
#[derive(Debug, Parser)]
#[command(
    name = "clusterctl",
    version,
    propagate_version = true,
    max_term_width = 100,
    after_help = "Examples:
  # A management plane with the simulated cloud, on this machine
  clusterctl up --provider fake

  # In another terminal, with the line that `up` printed
  export KUBECONFIG=…/kubeconfig
  clusterctl apply -f deploy/samples/fake.yaml
  clusterctl describe cluster demo
  kubectl get cluster-api"
)]
pub struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Run a management plane in the foreground: API server, core controller and providers.
    Up(UpArgs),
    /// Apply manifests from files, as `kubectl apply --server-side` does.
    Apply(ApplyArgs),
    /// Show an object with everything below it.
    #[command(subcommand)]
    Describe(DescribeCommand),
    /// Wait until something is as it shall be, and show how far it is.
    #[command(subcommand)]
    Wait(WaitCommand),
    /// Print the completions of a shell.
    Completion {
        /// Which shell.
        shell: clap_complete::Shell,
    },
}

/// Flags of `clusterctl up`.
#[derive(Debug, Args)]
#[command(after_help = "Examples:
  # The simulated cloud, started from the binary `provider-fake` beside clusterctl or on the PATH
  clusterctl up --provider fake

  # State in a folder of its own, a fixed address, and a provider that somebody else runs
  clusterctl up --data-dir ./plane --listen 127.0.0.1:6443 --provider fake --provider aws=unix:///run/actuator/aws/actuator.sock

A child provider is started as `provider-NAME --listen unix:///…` in a folder of its own, with
ACTUATOR_STATE_DIR naming it; it inherits the environment, so its own variables reach it.")]
pub struct UpArgs {
    /// Where everything is kept: the API server's file, certificates, kubeconfig, providers' state.
    #[arg(long, value_name = "DIR", env = "CLUSTERCTL_DATA_DIR")]
    pub data_dir: Option<PathBuf>,
    /// Where the API server listens; without it a free loopback port, kept over restarts.
    #[arg(long, value_name = "ADDR", env = "CLUSTERCTL_LISTEN")]
    pub listen: Option<SocketAddr>,
    /// A provider to run (NAME) or to call (NAME=ENDPOINT); may be given several times.
    #[arg(
        long = "provider",
        value_name = "NAME[=ENDPOINT]",
        env = "CLUSTERCTL_PROVIDERS",
        value_delimiter = ','
    )]
    pub providers: Vec<ProviderFlag>,
    /// Serve the API and run the providers only; for a core that runs as a process of its own.
    #[arg(long, env = "CLUSTERCTL_WITHOUT_CORE")]
    pub without_core: bool,
    /// Serve metrics and health of the core here.
    #[arg(long, value_name = "ADDR", env = "CLUSTERCTL_METRICS_LISTEN")]
    pub metrics_listen: Option<SocketAddr>,
    /// What is logged, as a tracing filter such as `info` or `core_controller=debug`.
    #[arg(
        long,
        value_name = "FILTER",
        env = "CLUSTERCTL_LOG",
        default_value = "warn,core_controller=info,clusterctl=info"
    )]
    pub log: String,
}

/// How to reach a management plane.
#[derive(Debug, Clone, Args)]
pub struct ConnectionArgs {
    /// The kubeconfig; without it $KUBECONFIG, then ~/.kube/config.
    #[arg(long, value_name = "FILE")]
    pub kubeconfig: Option<PathBuf>,
    /// The context of the kubeconfig.
    #[arg(long, value_name = "NAME", env = "CLUSTERCTL_CONTEXT")]
    pub context: Option<String>,
    /// The namespace; without it that of the context, then `default`.
    #[arg(long, short, value_name = "NAME", env = "CLUSTERCTL_NAMESPACE")]
    pub namespace: Option<String>,
}

/// Flags of `clusterctl apply`.
#[derive(Debug, Args)]
pub struct ApplyArgs {
    #[command(flatten)]
    pub connection: ConnectionArgs,
    /// A manifest with one or more objects; `-` reads standard input; may be given several times.
    #[arg(long = "filename", short = 'f', value_name = "FILE", required = true)]
    pub files: Vec<PathBuf>,
    /// Take over fields that somebody else has set.
    #[arg(long, env = "CLUSTERCTL_FORCE_CONFLICTS")]
    pub force_conflicts: bool,
}

#[derive(Debug, Subcommand)]
enum DescribeCommand {
    /// Draw a Cluster with its deployments, sets and machines, and their conditions.
    Cluster(DescribeClusterArgs),
}

/// Flags of `clusterctl describe cluster`.
#[derive(Debug, Args)]
pub struct DescribeClusterArgs {
    #[command(flatten)]
    pub connection: ConnectionArgs,
    /// The name of the Cluster.
    pub name: String,
    /// Show every condition, not only those that are not well.
    #[arg(long, env = "CLUSTERCTL_SHOW_CONDITIONS")]
    pub show_conditions: bool,
    /// Show every machine; without it equal ones are put together.
    #[arg(long, env = "CLUSTERCTL_SHOW_MACHINES")]
    pub show_machines: bool,
}

#[derive(Debug, Subcommand)]
enum WaitCommand {
    /// Wait until a Cluster is ready and has all the machines that its deployments ask for.
    Cluster(WaitClusterArgs),
}

/// Flags of `clusterctl wait cluster`.
#[derive(Debug, Args)]
pub struct WaitClusterArgs {
    #[command(flatten)]
    pub connection: ConnectionArgs,
    /// The name of the Cluster.
    pub name: String,
    /// How long to wait, in seconds, or with a unit: 90s, 10m.
    #[arg(long, value_name = "DURATION", env = "CLUSTERCTL_TIMEOUT", default_value = "10m", value_parser = parse_duration)]
    pub timeout: Duration,
}

fn parse_duration(text: &str) -> Result<Duration, String> {
    let (number, factor) = match text.trim() {
        text if text.ends_with('h') => (&text[..text.len() - 1], 3600),
        text if text.ends_with('m') => (&text[..text.len() - 1], 60),
        text if text.ends_with('s') => (&text[..text.len() - 1], 1),
        text => (text, 1),
    };
    number
        .parse::<u64>()
        .ok()
        .and_then(|number| number.checked_mul(factor))
        .map(Duration::from_secs)
        .ok_or_else(|| "a whole number of seconds, or one with a unit such as 90s, 10m or 1h is expected".to_owned())
}

impl Cli {
    /// Runs the command; what fails is one sentence on standard error and exit code 1.
    pub fn run(self) -> ExitCode {
        let runtime = match tokio::runtime::Builder::new_multi_thread().enable_all().build() {
            Ok(runtime) => runtime,
            Err(error) => return failed(&anyhow::Error::new(error).context("failed to start the async runtime")),
        };
        let result = match self.command {
            Command::Up(args) => runtime.block_on(up::run(args)),
            Command::Apply(args) => runtime.block_on(apply::run(args)),
            Command::Describe(DescribeCommand::Cluster(args)) => runtime.block_on(describe::run(args)),
            Command::Wait(WaitCommand::Cluster(args)) => runtime.block_on(wait::run(args)),
            Command::Completion { shell } => {
                clap_complete::generate(shell, &mut Self::command(), "clusterctl", &mut std::io::stdout());
                Ok(())
            }
        };
        // Threads that block must not keep a finished command alive.
        runtime.shutdown_timeout(Duration::from_secs(2));
        match result {
            Ok(()) => ExitCode::SUCCESS,
            Err(error) => failed(&error),
        }
    }
}

fn failed(error: &anyhow::Error) -> ExitCode {
    // Nothing is left to do when standard error is gone.
    let _ = writeln!(std::io::stderr(), "clusterctl: {error:#}");
    ExitCode::FAILURE
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_command_line_is_sound() {
        Cli::command().debug_assert();
    }

    #[test]
    fn durations_have_units() {
        assert_eq!(parse_duration("90"), Ok(Duration::from_secs(90)));
        assert_eq!(parse_duration("10m"), Ok(Duration::from_mins(10)));
        assert!(parse_duration("soon").is_err());
        assert!(parse_duration("").is_err());
        assert!(parse_duration("99999999999999999999h").is_err());
    }

    #[test]
    fn providers_may_be_repeated() {
        let cli = Cli::try_parse_from([
            "clusterctl",
            "up",
            "--provider",
            "fake",
            "--provider",
            "aws=unix:///a.sock",
        ])
        .expect("good flags");
        let Command::Up(args) = cli.command else {
            panic!("not up")
        };
        assert_eq!(args.providers.len(), 2);
    }
}
