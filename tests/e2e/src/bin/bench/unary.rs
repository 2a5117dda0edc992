//! One unary call over the Unix socket: how long it takes, and how many a second.

use std::path::Path;
use std::time::{Duration, Instant};

use actuator_proto::v1::identity_service_client::IdentityServiceClient;
use actuator_proto::v1::machine_service_client::MachineServiceClient;
use actuator_proto::v1::{AmbientCredentials, Credentials, MachineExistsRequest, Ownership, ProbeRequest, ResourceRef};
use anyhow::Context as _;
use comfy_table::Table;
use e2e::process::Process;
use futures::StreamExt as _;
use tonic::transport::{Channel, Endpoint};

use crate::new_table;

/// How many calls are under way at a time when calls per second are counted.
const CONCURRENCY: usize = 32;

/// Starts provider-fake and times calls on one connection.
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
    let channel = connect(&endpoint).await?;
    let mut table = new_table([
        "call",
        "p50, µs",
        "p99, µs",
        "calls per second, one at a time",
        "calls per second, 32 at a time",
    ]);
    let probe = |channel: Channel| async move {
        IdentityServiceClient::new(channel)
            .probe(ProbeRequest {})
            .await
            .map(drop)
    };
    let exists = |channel: Channel| async move {
        MachineServiceClient::new(channel)
            .machine_exists(absent())
            .await
            .map(drop)
    };
    table.add_row(timed("IdentityService.Probe", &channel, calls, probe).await?);
    table.add_row(
        timed(
            "MachineService.MachineExists of an absent machine",
            &channel,
            calls,
            exists,
        )
        .await?,
    );
    Ok(table)
}

pub fn absent() -> MachineExistsRequest {
    let ownership = Ownership {
        management_cluster_id: "bench".into(),
        cluster_uid: "bench".into(),
        object_uid: "absent".into(),
        ..Default::default()
    };
    MachineExistsRequest {
        r#ref: Some(ResourceRef {
            ownership: Some(ownership),
            idempotency_key: "absent".into(),
            provider_id: String::new(),
        }),
        credentials: Some(Credentials {
            source: Some(actuator_proto::v1::credentials::Source::Ambient(AmbientCredentials {})),
        }),
        ..Default::default()
    }
}

pub async fn connect(endpoint: &str) -> anyhow::Result<Channel> {
    let started = Instant::now();
    loop {
        match Endpoint::from_shared(endpoint.to_owned())?.connect().await {
            Ok(channel) => return Ok(channel),
            Err(error) if started.elapsed() > Duration::from_secs(30) => {
                return Err(error).context("provider-fake does not serve");
            }
            // It is still starting; there is nothing to await.
            Err(_) => tokio::time::sleep(Duration::from_millis(20)).await,
        }
    }
}

async fn timed<F, R>(name: &str, channel: &Channel, calls: usize, call: F) -> anyhow::Result<[String; 5]>
where
    F: Fn(Channel) -> R,
    R: Future<Output = Result<(), tonic::Status>>,
{
    for _ in 0..calls / 10 {
        call(channel.clone()).await?;
    }
    let mut times = Vec::with_capacity(calls);
    let started = Instant::now();
    for _ in 0..calls {
        let begun = Instant::now();
        call(channel.clone()).await?;
        times.push(begun.elapsed());
    }
    let alone = calls as f64 / started.elapsed().as_secs_f64();
    let started = Instant::now();
    let mut running = futures::stream::iter((0..calls).map(|_| call(channel.clone()))).buffer_unordered(CONCURRENCY);
    while let Some(result) = running.next().await {
        result?;
    }
    let together = calls as f64 / started.elapsed().as_secs_f64();
    times.sort_unstable();
    let at = |percent: usize| times.get(times.len() * percent / 100).map_or(0, Duration::as_micros);
    Ok([
        name.to_owned(),
        at(50).to_string(),
        at(99).to_string(),
        format!("{alone:.0}"),
        format!("{together:.0}"),
    ])
}
