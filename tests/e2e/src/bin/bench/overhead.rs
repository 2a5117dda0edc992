//! What the provider host adds to one call: the same call over the same kind of Unix socket
//! by a bare tonic client and by the host, in turns in one run. Allocations are those of
//! this process, the client's side alone, tasks of the connections included.

use std::path::Path;
use std::time::{Duration, Instant};

use actuator_proto::v1::machine_service_client::MachineServiceClient;
use anyhow::Context as _;
use comfy_table::Table;
use e2e::process::Process;
use provider_host::{
    Change, CredentialId, EndpointConfig, EndpointSource, Host, HostConfig, ProviderHandle, ProviderState,
};
use stats_alloc::{INSTRUMENTED_SYSTEM, Region};

use crate::new_table;
use crate::unary::{absent, connect};

/// How many turns each of the two has.
const TURNS: usize = 10;
/// How long the host may take to find the provider.
const PATIENCE: Duration = Duration::from_secs(30);

/// What one of the two has cost.
#[derive(Default)]
struct Cost {
    times: Vec<Duration>,
    allocations: usize,
    bytes: usize,
}

impl Cost {
    /// Makes one turn's calls.
    async fn turn<R: Future<Output = anyhow::Result<()>>>(
        &mut self,
        calls: usize,
        mut call: impl FnMut() -> R,
    ) -> anyhow::Result<()> {
        // What is kept for the figures is no cost of a call.
        self.times.reserve(calls);
        let region = Region::new(&INSTRUMENTED_SYSTEM);
        for _ in 0..calls {
            let begun = Instant::now();
            call().await?;
            self.times.push(begun.elapsed());
        }
        let change = region.change();
        self.allocations += change.allocations + change.reallocations;
        self.bytes += change.bytes_allocated;
        Ok(())
    }

    /// p50 and p99 in microseconds, allocations and bytes of one call.
    fn figures(&mut self) -> [f64; 4] {
        self.times.sort_unstable();
        let calls = self.times.len().max(1);
        let at = |percent: usize| {
            let time = self.times.get(calls * percent / 100);
            time.map_or(0.0, |time| time.as_secs_f64() * 1e6)
        };
        let per_call = |count: usize| count as f64 / calls as f64;
        [at(50), at(99), per_call(self.allocations), per_call(self.bytes)]
    }
}

/// Starts provider-fake and asks it by both.
pub async fn measure(binaries: &Path, calls: usize) -> anyhow::Result<Table> {
    let folder = tempfile::Builder::new().prefix("or").tempdir()?;
    let endpoint = format!("unix://{}", folder.path().join("p/actuator.sock").display());
    let _provider = Process::start(
        &binaries.join("provider-fake"),
        [
            "--listen",
            &endpoint,
            "--state-dir",
            &*folder.path().join("s").to_string_lossy(),
        ],
        &[],
        &folder.path().join("log"),
    )?;
    let bare = MachineServiceClient::new(connect(&endpoint).await?);
    let host = Host::new(HostConfig::default());
    let hosted = ready(&host, &endpoint).await?;
    let credential = CredentialId::ambient();

    let ask_bare = || {
        let mut bare = bare.clone();
        async move {
            bare.machine_exists(absent()).await?;
            Ok(())
        }
    };
    let ask_hosted = || async {
        hosted.machine_exists(&credential, absent()).await?;
        Ok(())
    };
    let (mut bare_cost, mut hosted_cost) = (Cost::default(), Cost::default());
    let of_a_turn = (calls / TURNS).max(1);
    // The first turn of each warms up and does not count.
    Cost::default().turn(of_a_turn, ask_bare).await?;
    Cost::default().turn(of_a_turn, ask_hosted).await?;
    for _ in 0..TURNS {
        bare_cost.turn(of_a_turn, ask_bare).await?;
        hosted_cost.turn(of_a_turn, ask_hosted).await?;
    }

    let (bare, hosted) = (bare_cost.figures(), hosted_cost.figures());
    let mut table = new_table([
        "MachineExists of an absent machine",
        "p50, µs",
        "p99, µs",
        "allocations per call",
        "bytes allocated per call",
    ]);
    let row = |name: &str, [p50, p99, allocations, bytes]: [f64; 4]| {
        [
            name.to_owned(),
            format!("{p50:.0}"),
            format!("{p99:.0}"),
            format!("{allocations:.1}"),
            format!("{bytes:.0}"),
        ]
    };
    table.add_row(row("bare tonic client", bare));
    table.add_row(row("through the provider host", hosted));
    let ratio = |index: usize| format!("{:.2}", hosted[index] / bare[index]);
    table.add_row(["ratio".to_owned(), ratio(0), ratio(1), ratio(2), ratio(3)]);
    Ok(table)
}

/// The provider, once the host has found it ready.
async fn ready(host: &Host, endpoint: &str) -> anyhow::Result<ProviderHandle> {
    let mut changes = host.subscribe();
    host.set_endpoint("fake", EndpointConfig::new(endpoint.parse()?, EndpointSource::Flag))?;
    let found = async {
        loop {
            match host.snapshot("fake") {
                Some(snapshot) if snapshot.state == ProviderState::Ready => return host.provider("fake"),
                _ => match changes.next().await {
                    Some(Change::Provider(_) | Change::All) => {}
                    None => return None,
                },
            }
        }
    };
    tokio::time::timeout(PATIENCE, found)
        .await
        .ok()
        .flatten()
        .context("the provider host does not find provider-fake ready")
}
