//! The main job: API server, core and the provider as processes of their own, driven by
//! kubectl. A cluster of three machines, ten, two, none; at each step the simulated cloud
//! holds what the API says and nothing else, and nothing was made twice.

use anyhow::{Context as _, ensure};
use e2e::separate::Separate;
use e2e::{binaries, wait};

use crate::ThirdParty;

/// Does the main job; an error holds the logs of core and provider.
pub async fn main_job(party: &ThirdParty) -> anyhow::Result<()> {
    let mut plane = Separate::start_with(&binaries()?, party.provider.clone()).await?;
    plane.start_provider()?;
    plane.start_core()?;
    let done = steps(&plane, party).await;
    done.map_err(|error| error.context(plane.logs()))
}

async fn steps(plane: &Separate, party: &ThirdParty) -> anyhow::Result<()> {
    let manifest = std::fs::read_to_string(&party.manifest)
        .with_context(|| format!("unable to read {}", party.manifest.display()))?;
    let (kubectl, client) = (plane.kubectl(), plane.client().await?);
    kubectl.apply(&manifest).await?;
    holds(plane, 3).await?;
    let provider = kubectl.get_json(&["provider", &party.provider.name]).await?;
    ensure!(
        provider["status"]["protocols"][0] == "actuator.v1",
        "the core does not show the provider's protocol: {provider:#}"
    );
    for replicas in [10, 2] {
        let wanted = replicas.to_string();
        kubectl
            .run(&["scale", "machinedeployment", "demo-workers", "--replicas", &wanted])
            .await?;
        holds(plane, replicas).await?;
    }
    kubectl.run(&["delete", "cluster", "demo", "--timeout", "120s"]).await?;
    wait::machines_gone(&client).await?;
    let left = kubectl.run(&["get", "cluster-api", "-o", "name"]).await?;
    ensure!(
        left.trim() == format!("provider.cluster.outrigger.dev/{}", party.provider.name),
        "after the deletion there is still {left}"
    );
    audited(plane, &[]).await
}

/// Waits until so many machines run, and compares the simulated cloud with them.
async fn holds(plane: &Separate, machines: usize) -> anyhow::Result<()> {
    let client = plane.client().await?;
    let running = wait::machines_running(&client, machines).await?;
    wait::rolled_out(&client, "demo-workers").await?;
    audited(plane, &wait::keys(&running)?).await
}

async fn audited(plane: &Separate, keys: &[String]) -> anyhow::Result<()> {
    let audit = plane.audit().await?;
    audit.exactly(keys)?;
    audit.clean()
}
