//! A provider that hangs and its neighbour: how long the machines of provider-fake take
//! to come and go while another provider of the same core never answers, and without it.

use std::path::Path;
use std::time::{Duration, Instant};

use anyhow::ensure;
use comfy_table::Table;
use e2e::separate::Separate;
use e2e::wait;
use kube::ResourceExt;
use kube::api::{Api, ListParams};
use mirror::ledger::Call;
use mirror::provider::{Act, Provider};
use outrigger_api::{Machine, MachineDeployment};

use crate::fleet::{WORKERS, scale};
use crate::new_table;

/// The name of the provider that hangs, of its cluster and of its MachineDeployment.
const HANGS: &str = "hangs";
/// How often both are measured, in turns; the median counts.
const ROUNDS: usize = 3;
/// How long the provider that hangs may take until all its machines wait.
const PATIENCE: Duration = Duration::from_mins(5);

/// Seconds from none to all Running, and back.
#[derive(Debug, Clone, Copy)]
struct Times {
    up: f64,
    down: f64,
}

/// Runs API server, core and provider-fake as processes, with and without a neighbour
/// that hangs.
pub async fn measure(binaries: &Path, size: usize) -> anyhow::Result<Table> {
    let (mut alone, mut beside) = (Vec::new(), Vec::new());
    for _ in 0..ROUNDS {
        alone.push(run(binaries, size, None).await?);
        let folder = tempfile::Builder::new().prefix("or").tempdir()?;
        let provider = Provider::new(HANGS, &folder.path().join("hangs.sock"));
        provider.script(Call::CreateMachine, Act::Stall);
        provider.script(Call::MachineExists, Act::Stall);
        provider.start()?;
        beside.push(run(binaries, size, Some(&provider)).await?);
    }
    let mut table = new_table([
        "machines of each",
        "part",
        "alone, s",
        "while the other provider hangs, s",
        "ratio",
    ]);
    for (part, of) in [
        ("0 to all Running", (|times: &Times| times.up) as fn(&Times) -> f64),
        ("all Running to 0", |times| times.down),
    ] {
        let (alone, beside) = (median(&alone, of), median(&beside, of));
        table.add_row([
            size.to_string(),
            part.to_owned(),
            format!("{alone:.2}"),
            format!("{beside:.2}"),
            format!("{:.2}", beside / alone),
        ]);
    }
    Ok(table)
}

fn median(times: &[Times], of: fn(&Times) -> f64) -> f64 {
    let mut seconds: Vec<f64> = times.iter().map(of).collect();
    seconds.sort_by(f64::total_cmp);
    seconds.get(seconds.len() / 2).copied().unwrap_or(f64::NAN)
}

async fn run(binaries: &Path, size: usize, neighbour: Option<&Provider>) -> anyhow::Result<Times> {
    let mut plane = Separate::start_from(binaries, &[]).await?;
    if let Some(provider) = neighbour {
        plane.set_core_flags(&["--provider", &format!("{HANGS}={}", provider.endpoint())]);
    }
    plane.start_provider()?;
    plane.start_core()?;
    let kubectl = plane.kubectl();
    kubectl.apply(&e2e::manifests::deployment(0)).await?;
    kubectl
        .run(&["wait", "cluster/demo", "--for=condition=Ready", "--timeout=60s"])
        .await?;
    let client = plane.client().await?;
    let machines: Api<Machine> = Api::default_namespaced(client.clone());
    let deployments: Api<MachineDeployment> = Api::default_namespaced(client);
    if let Some(provider) = neighbour {
        kubectl.apply(&manifest(size)).await?;
        let all = |machines: &[std::sync::Arc<Machine>]| machines.len() == size;
        wait::until(
            machines.clone(),
            PATIENCE,
            "all machines of the provider that hangs",
            all,
        )
        .await?;
        provider
            .until(PATIENCE, "a call that hangs", |ledger| {
                ledger.count(Call::CreateMachine) > 0
            })
            .await?;
        quiet(&machines).await?;
    }
    let started = Instant::now();
    scale(&deployments, WORKERS, size).await?.await?;
    let up = started.elapsed().as_secs_f64();
    let started = Instant::now();
    scale(&deployments, WORKERS, 0).await?.await?;
    let down = started.elapsed().as_secs_f64();
    if let Some(provider) = neighbour {
        let left = machines.list(&ListParams::default()).await?.items.len();
        let made = provider.ledger(|ledger| ledger.machines().count());
        ensure!(
            left == size && made == 0,
            "the provider that hangs has {left} machines of {size} waiting and has made {made}: it did not hang"
        );
    }
    Ok(Times { up, down })
}

/// Waits until no Machine has been written for a second: what is measured is a neighbour that
/// hangs, not one whose machines are still being declared.
async fn quiet(machines: &Api<Machine>) -> anyhow::Result<()> {
    let started = Instant::now();
    let mut last = None;
    loop {
        let list = machines.list(&ListParams::default()).await?;
        let revisions = list.iter().filter_map(ResourceExt::resource_version);
        let newest = revisions.filter_map(|text| text.parse::<u64>().ok()).max();
        if newest == last {
            return Ok(());
        }
        ensure!(
            started.elapsed() < PATIENCE,
            "machines of a provider that hangs are written without end"
        );
        last = newest;
        tokio::time::sleep(Duration::from_secs(1)).await;
    }
}

/// A cluster and so many machines of the provider that hangs.
fn manifest(replicas: usize) -> String {
    format!(
        "apiVersion: cluster.outrigger.dev/v1alpha1
kind: Cluster
metadata: {{name: {HANGS}, namespace: default}}
spec:
  provider: {HANGS}
  providerSpec: {{kind: MirrorCluster, version: v1}}
---
apiVersion: cluster.outrigger.dev/v1alpha1
kind: MachineDeployment
metadata: {{name: {HANGS}, namespace: default}}
spec:
  clusterName: {HANGS}
  replicas: {replicas}
  selector: {{matchLabels: {{app: {HANGS}}}}}
  template:
    metadata: {{labels: {{app: {HANGS}}}}}
    spec:
      providerSpec: {{kind: MirrorMachine, version: v1}}
"
    )
}
