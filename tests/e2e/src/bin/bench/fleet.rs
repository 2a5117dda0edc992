//! Many machines from one MachineDeployment: up, steady, a restart of the core, down.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::path::Path;
use std::time::{Duration, Instant};

use anyhow::{Context as _, ensure};
use comfy_table::Table;
use e2e::separate::Separate;
use e2e::wait;
use kube::api::{Api, Patch, PatchParams};
use outrigger_api::MachineDeployment;
use serde_json::json;

use crate::measure::{Counters, Usage, counters, grown, reset_peak, usage};
use crate::new_table;

/// The MachineDeployment of the sample.
pub const WORKERS: &str = "demo-workers";

/// No part of a run takes longer.
const PATIENCE: Duration = Duration::from_mins(20);

/// How long the last coalesced writes of a run may take.
const SETTLING: Duration = Duration::from_secs(5);

/// What one part of a run has cost.
#[derive(Debug, Clone, Default)]
pub struct Part {
    /// Wall time.
    pub seconds: f64,
    /// Writes to the API server by verb and resource.
    pub writes: BTreeMap<[String; 2], f64>,
    /// Calls to the provider by call and outcome.
    pub calls: BTreeMap<[String; 2], f64>,
    /// Processor seconds of the core.
    pub cpu_seconds: f64,
    /// The most memory of the core.
    pub peak_bytes: u64,
}

impl Part {
    /// All writes but those of the Lease.
    pub fn all_writes(&self) -> f64 {
        self.writes
            .iter()
            .filter(|([_, resource], _)| !resource.starts_with("lease"))
            .map(|(_, count)| count)
            // An empty sum is -0.
            .sum::<f64>()
            + 0.0
    }

    fn all_calls(&self) -> f64 {
        self.calls.values().sum()
    }
}

/// One run.
#[derive(Debug, Clone)]
pub struct Report {
    /// How many machines.
    pub size: usize,
    /// From nothing to all Running.
    pub up: Part,
    /// All Running, nothing to do.
    pub steady: Part,
    /// From the start of a new core process until it has looked at everything.
    pub restart: Part,
    /// From all Running to none.
    pub down: Part,
    /// Resident memory of the core at rest.
    pub resident_bytes: u64,
}

struct Run {
    plane: Separate,
    metrics: SocketAddr,
    before: (Counters, Usage, Instant),
}

impl Run {
    fn core(&mut self) -> anyhow::Result<u32> {
        self.plane
            .core()
            .and_then(|core| core.id())
            .context("the core does not run")
    }

    async fn begin(&mut self) -> anyhow::Result<()> {
        let pid = self.core()?;
        reset_peak(pid);
        self.before = (counters(self.metrics).await?, usage(pid)?, Instant::now());
        Ok(())
    }

    async fn end(&mut self) -> anyhow::Result<Part> {
        let seconds = self.before.2.elapsed().as_secs_f64();
        let (after, used) = (counters(self.metrics).await?, usage(self.core()?)?);
        Ok(Part {
            seconds,
            writes: grown(
                &self.before.0,
                &after,
                "outrigger_api_writes_total",
                ["verb", "resource"],
            ),
            calls: grown(
                &self.before.0,
                &after,
                "outrigger_provider_calls_total",
                ["rpc", "result"],
            ),
            cpu_seconds: used.cpu_seconds - self.before.1.cpu_seconds,
            peak_bytes: used.peak_bytes,
        })
    }

    /// Waits until the core answers and has nothing more to do.
    async fn idle(&mut self) -> anyhow::Result<()> {
        let started = Instant::now();
        let mut quiet = 0;
        while quiet < 3 {
            ensure!(
                started.elapsed() < PATIENCE,
                "the core did not come to rest:\n{}",
                self.plane.logs()
            );
            // The metrics are the only window into the queue; they are read, not awaited.
            tokio::time::sleep(Duration::from_millis(50)).await;
            let Ok(now) = counters(self.metrics).await else {
                continue;
            };
            let value = |name: &str| now.get(name).copied();
            let busy = [
                "outrigger_queue_ready",
                "outrigger_queue_working",
                "outrigger_operations_queued",
            ]
            .iter()
            .map(|name| value(name).unwrap_or(0.0))
            .sum::<f64>();
            let known = value("outrigger_objects{kind=\"Machine\"}").unwrap_or(0.0);
            quiet = if busy == 0.0 && known > 0.0 { quiet + 1 } else { 0 };
        }
        Ok(())
    }
}

/// Runs API server, core and provider as three processes and counts.
pub async fn measure(binaries: &Path, size: usize, steady: u64) -> anyhow::Result<Report> {
    let mut plane = Separate::start_from(binaries, &[]).await?;
    let metrics = free_address()?;
    plane.set_core_flags(&["--metrics-listen", &metrics.to_string()]);
    plane.start_provider()?;
    plane.start_core()?;
    let kubectl = plane.kubectl();
    kubectl.apply(&e2e::manifests::deployment(0)).await?;
    kubectl
        .run(&["wait", "cluster/demo", "--for=condition=Ready", "--timeout=60s"])
        .await?;
    let client = plane.client().await?;
    let deployments: Api<MachineDeployment> = Api::default_namespaced(client.clone());
    let mut run = Run {
        plane,
        metrics,
        before: (Counters::new(), Usage::default(), Instant::now()),
    };

    run.begin().await?;
    let available = scale(&deployments, WORKERS, size).await?;
    available.await?;
    let up = run.end().await?;
    let resident_bytes = {
        run.idle().await?;
        usage(run.core()?)?.resident_bytes
    };

    // Statuses of sets are written at most once a second; the last one belongs to the way up.
    tokio::time::sleep(SETTLING).await;
    run.begin().await?;
    tokio::time::sleep(Duration::from_secs(steady)).await;
    let steady = run.end().await?;

    run.plane.kill_core().await?;
    run.before = (Counters::new(), Usage::default(), Instant::now());
    run.plane.start_core()?;
    run.idle().await?;
    let restart = run.end().await?;

    run.begin().await?;
    scale(&deployments, WORKERS, 0).await?.await?;
    wait::machines_gone(&client).await?;
    let down = run.end().await?;
    let audit = run.plane.audit().await?;
    audit.exactly(&[])?;
    audit.clean()?;
    Ok(Report {
        size,
        up,
        steady,
        restart,
        down,
        resident_bytes,
    })
}

/// Scales, and returns what waits until so many machines are available.
pub async fn scale(
    deployments: &Api<MachineDeployment>,
    name: &'static str,
    size: usize,
) -> anyhow::Result<impl Future<Output = anyhow::Result<()>> + use<>> {
    let scale = json!({"spec": {"replicas": size}});
    deployments
        .patch_scale(name, &PatchParams::default(), &Patch::Merge(scale))
        .await?;
    let deployments = deployments.clone();
    Ok(async move {
        wait::until(
            deployments,
            PATIENCE,
            &format!("{size} machines are available"),
            |deployments| {
                deployments.iter().any(|deployment| {
                    if deployment.metadata.name.as_deref() != Some(name) {
                        return false;
                    }
                    let status = serde_json::to_value(&deployment.status).unwrap_or_default();
                    let count = |field: &str| status[field].as_u64().unwrap_or(0);
                    status["observedGeneration"].as_i64() == deployment.metadata.generation
                        && count("availableReplicas") == size as u64
                        && count("replicas") == size as u64
                })
            },
        )
        .await
        .map(drop)
    })
}

fn free_address() -> anyhow::Result<SocketAddr> {
    Ok(std::net::TcpListener::bind("127.0.0.1:0")?.local_addr()?)
}

fn megabytes(bytes: u64) -> String {
    format!("{:.1}", bytes as f64 / 1024.0 / 1024.0)
}

/// One row a run.
pub fn table(reports: &[Report]) -> Table {
    let mut table = new_table([
        "machines",
        "up, s",
        "API writes per Machine up",
        "provider calls per Machine up",
        "core CPU up, s",
        "peak MiB",
        "resident MiB",
        "down, s",
        "API writes per Machine down",
        "provider calls per Machine down",
        "steady: writes per min without Lease",
        "steady: Lease writes per min",
        "steady: CPU, % of a core",
        "restart, s",
        "restart: writes",
    ]);
    for report in reports {
        let per = |count: f64| format!("{:.2}", count / report.size as f64);
        let minutes = report.steady.seconds / 60.0;
        let all: f64 = report.steady.writes.values().sum();
        table.add_row([
            report.size.to_string(),
            format!("{:.1}", report.up.seconds),
            per(report.up.all_writes()),
            per(report.up.all_calls()),
            format!("{:.1}", report.up.cpu_seconds),
            megabytes(report.up.peak_bytes),
            megabytes(report.resident_bytes),
            format!("{:.1}", report.down.seconds),
            per(report.down.all_writes()),
            per(report.down.all_calls()),
            format!("{:.1}", report.steady.all_writes() / minutes),
            format!("{:.1}", (all - report.steady.all_writes()) / minutes),
            format!("{:.2}", report.steady.cpu_seconds / report.steady.seconds * 100.0),
            format!("{:.1}", report.restart.seconds),
            format!("{:.0}", report.restart.all_writes()),
        ]);
    }
    table
}

/// Where the writes and the calls of one run went.
pub fn writes_table(report: &Report) -> Table {
    let mut table = new_table([
        "part",
        "kind",
        "verb or call",
        "resource or outcome",
        "count",
        "per Machine",
    ]);
    for (part, name) in [(&report.up, "up"), (&report.down, "down")] {
        for (rows, kind) in [(&part.writes, "API write"), (&part.calls, "provider call")] {
            for ([first, second], count) in rows {
                table.add_row([
                    name.to_owned(),
                    kind.to_owned(),
                    first.clone(),
                    second.clone(),
                    format!("{count:.0}"),
                    format!("{:.2}", count / report.size as f64),
                ]);
            }
        }
    }
    table
}

/// Ours beside what was measured of Cluster API, and beside our targets.
pub fn comparison(report: &Report) -> Table {
    let size = report.size as f64;
    let mut table = new_table(["", "Cluster API 1.13.4", "target", "measured"]);
    for row in [
        [
            "API writes per Machine, 0 to 1,000",
            "39",
            "5",
            &format!("{:.2}", report.up.all_writes() / size),
        ],
        [
            "0 to 1,000 Running, s",
            "342",
            "8.5",
            &format!("{:.1}", report.up.seconds),
        ],
        [
            "API writes per Machine, 1,000 to 0",
            "15",
            "3",
            &format!("{:.2}", report.down.all_writes() / size),
        ],
        ["1,000 to 0, s", "162", "10", &format!("{:.1}", report.down.seconds)],
        [
            "memory of the controllers at 1,000, MB",
            "702",
            "35",
            &megabytes(report.up.peak_bytes),
        ],
        [
            "CPU of the controllers, 0 to 1,000, s",
            "220",
            "6",
            &format!("{:.1}", report.up.cpu_seconds),
        ],
        [
            "restart at 1,000: writes",
            "3,004",
            "0",
            &format!("{:.0}", report.restart.all_writes()),
        ],
        [
            "restart at 1,000, s",
            "37",
            "1",
            &format!("{:.1}", report.restart.seconds),
        ],
        [
            "steady state: writes per min without leases",
            "0",
            "0",
            &format!("{:.1}", report.steady.all_writes()),
        ],
    ] {
        table.add_row(row);
    }
    table
}
