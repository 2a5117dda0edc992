//! `kill -9` of core and provider at random moments of roll-outs: afterwards the cloud has
//! exactly one instance for each Machine, nothing was made twice, nothing is left behind.

// The seed and the logs of a failed storm are part of a test's output.
#![allow(clippy::print_stdout)]

use std::time::Duration;

use e2e::plane::Plane;
use e2e::separate::Separate;
use e2e::{manifests, wait};
use rand::rngs::StdRng;
use rand::{Rng as _, SeedableRng as _};

type Result<T = ()> = anyhow::Result<T>;

const KILLS: usize = 50;
const REPLICAS: usize = 8;

/// A seed of its own each time, printed so that a run can be repeated with `STORM_SEED`.
fn seed() -> u64 {
    let seed = std::env::var("STORM_SEED")
        .ok()
        .and_then(|text| text.parse().ok())
        .unwrap_or_else(rand::random);
    println!("STORM_SEED={seed}");
    seed
}

async fn change_image(kubectl: &e2e::kubectl::Kubectl, round: usize) -> Result {
    let image = if round.is_multiple_of(2) {
        "fakeos-2"
    } else {
        "fakeos-1"
    };
    let patch = format!(r#"{{"spec": {{"template": {{"spec": {{"providerSpec": {{"image": "{image}"}}}}}}}}}}"#);
    kubectl
        .run(&[
            "patch",
            "machinedeployment",
            "demo-workers",
            "--type",
            "merge",
            "-p",
            &patch,
        ])
        .await
        .map(drop)
}

#[tokio::test(flavor = "multi_thread")]
async fn a_storm_of_kills_makes_nothing_twice_and_leaves_nothing_behind() -> Result {
    let mut random = StdRng::seed_from_u64(seed());
    let mut plane = Separate::start(&[
        ("PROVIDER_FAKE_BOOT_DELAY", "100ms"),
        ("PROVIDER_FAKE_BOOT_JITTER", "200ms"),
        ("PROVIDER_FAKE_API_LATENCY", "20ms"),
    ])
    .await?;
    plane.start_provider()?;
    plane.start_core()?;
    let result = storm(&mut plane, &mut random).await;
    if result.is_err() {
        println!("{}", plane.logs());
    }
    result
}

async fn storm(plane: &mut Separate, random: &mut StdRng) -> Result {
    let (kubectl, client) = (plane.kubectl(), plane.client().await?);
    kubectl.apply(&manifests::deployment(REPLICAS)).await?;
    for kill in 0..KILLS {
        if kill % 5 == 0 {
            change_image(&kubectl, kill / 5).await?;
        }
        // The moment of the kill is what this test varies.
        tokio::time::sleep(Duration::from_millis(random.random_range(20..500))).await;
        match random.random_range(0..3) {
            0 => plane.kill_core().await?,
            1 => plane.kill_provider().await?,
            _ => {
                plane.kill_core().await?;
                plane.kill_provider().await?;
            }
        }
        if plane.provider().is_none() {
            plane.start_provider()?;
        }
        if plane.core().is_none() {
            plane.start_core()?;
        }
    }
    wait::rolled_out(&client, "demo-workers").await?;
    let machines = wait::machines_running(&client, REPLICAS).await?;
    let audit = plane.audit().await?;
    audit.exactly(&wait::keys(&machines)?)?;
    audit.clean()?;

    kubectl.run(&["delete", "cluster", "demo", "--timeout", "120s"]).await?;
    wait::machines_gone(&client).await?;
    let audit = plane.audit().await?;
    audit.exactly(&[])?;
    audit.clean()
}

#[tokio::test(flavor = "multi_thread")]
async fn the_whole_plane_is_killed_again_and_again() -> Result {
    let mut random = StdRng::seed_from_u64(seed());
    let mut plane = Plane::start(&[
        ("PROVIDER_FAKE_BOOT_DELAY", "100ms"),
        ("PROVIDER_FAKE_API_LATENCY", "10ms"),
    ])
    .await?;
    plane.kubectl().apply(&manifests::deployment(REPLICAS)).await?;
    for round in 0..8 {
        change_image(&plane.kubectl(), round).await?;
        tokio::time::sleep(Duration::from_millis(random.random_range(20..800))).await;
        if round % 2 == 0
            && let Some(provider) = plane.provider_id()
        {
            nix::sys::signal::kill(nix::unistd::Pid::from_raw(provider), nix::sys::signal::Signal::SIGKILL)?;
        }
        plane.kill().await?;
        plane.up().await?;
    }
    let client = plane.client().await?;
    wait::rolled_out(&client, "demo-workers").await?;
    let machines = wait::machines_running(&client, REPLICAS).await?;
    let audit = plane.audit().await?;
    audit.exactly(&wait::keys(&machines)?)?;
    audit.clean()?;
    plane.stop().await
}
