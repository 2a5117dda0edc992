//! The binary `provider-aws`: flags, then the provider.

use std::process::ExitCode;
use std::time::Duration;

use clap::Args;
use provider_aws::client::Wire;
use provider_aws::client::http::Http;
use provider_aws::provider::{AwsProvider, Settings};
use provider_sdk::{Program, Setup};

const PROGRAM: Program = Program::new(
    "provider-aws",
    env!("CARGO_PKG_VERSION"),
    "Machines and clusters on Amazon EC2, behind the actuator protocol",
);

#[derive(Debug, Args)]
#[command(next_help_heading = "AWS")]
struct Flags {
    /// A region that clusters may be in; every one that the account has when left out
    #[arg(
        long = "region",
        env = "PROVIDER_AWS_REGIONS",
        value_name = "REGION",
        value_delimiter = ','
    )]
    regions: Vec<String>,
    /// Where every service of AWS is, instead of AWS itself: a private endpoint or a simulation
    #[arg(long, env = "PROVIDER_AWS_ENDPOINT", value_name = "URL")]
    endpoint: Option<String>,
    /// How long EC2 may hide what was made, in milliseconds
    #[arg(long, value_name = "MILLISECONDS", default_value_t = 30_000, value_parser = clap::value_parser!(u64).range(0..=600_000))]
    read_after_write: u64,
    /// The shortest time from one DescribeInstances to the next, in milliseconds
    #[arg(long, value_name = "MILLISECONDS", default_value_t = 1_000, value_parser = clap::value_parser!(u64).range(0..=60_000))]
    describe_interval: u64,
    /// How soon to look again at what is changing, in milliseconds
    #[arg(long, value_name = "MILLISECONDS", default_value_t = 5_000, value_parser = clap::value_parser!(u64).range(10..=60_000))]
    poll_interval: u64,
}

fn main() -> ExitCode {
    provider_sdk::run(PROGRAM, setup)
}

async fn setup(flags: Flags) -> anyhow::Result<Setup<AwsProvider>> {
    for region in &flags.regions {
        anyhow::ensure!(
            provider_aws::config::is_region(region),
            "--region {region:?} is no region; it looks like eu-central-1"
        );
    }
    let wire = Wire {
        http: Http::new()?,
        endpoint: flags.endpoint,
        counts: std::sync::Arc::default(),
    };
    Ok(Setup::new(AwsProvider::new(
        wire,
        Settings {
            regions: flags.regions,
            read_after_write: Duration::from_millis(flags.read_after_write),
            describe_interval: Duration::from_millis(flags.describe_interval),
            poll_interval: Duration::from_millis(flags.poll_interval),
        },
    )))
}
