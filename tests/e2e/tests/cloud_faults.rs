//! The simulated cloud misbehaves: lost responses, rate limits, outages, errors, late
//! reads, too little capacity. The machines come all the same, once each.

use e2e::plane::Plane;
use e2e::separate::Separate;
use e2e::{manifests, wait};
use rstest::rstest;

type Result<T = ()> = anyhow::Result<T>;

#[rstest]
#[case::lost_responses(&[("PROVIDER_FAKE_LOSE_RESPONSES", "0.2"), ("PROVIDER_FAKE_LOST_RESPONSE_TIMEOUT", "3s")])]
#[case::rate_limit(&[("PROVIDER_FAKE_RATE_LIMIT", "5/s")])]
#[case::errors(&[("PROVIDER_FAKE_ERROR_RATE", "CLOUD_UNCLASSIFIED=0.2,CLOUD_UNAVAILABLE=0.1")])]
#[case::late_reads(&[("PROVIDER_FAKE_READ_AFTER_WRITE", "1s")])]
#[case::slow(&[("PROVIDER_FAKE_API_LATENCY", "300ms"), ("PROVIDER_FAKE_BOOT_JITTER", "500ms")])]
#[tokio::test(flavor = "multi_thread")]
async fn machines_come_and_go_once_each(#[case] settings: &[(&str, &str)]) -> Result {
    let mut plane = Plane::start(settings).await?;
    let client = plane.client().await?;
    plane.kubectl().apply(&manifests::deployment(6)).await?;
    let machines = wait::machines_running(&client, 6).await?;
    let audit = plane.audit().await?;
    audit.exactly(&wait::keys(&machines)?)?;
    audit.clean()?;
    plane
        .kubectl()
        .run(&["delete", "cluster", "demo", "--timeout", "170s"])
        .await?;
    let audit = plane.audit().await?;
    audit.exactly(&[])?;
    audit.clean()?;
    plane.stop().await
}

#[tokio::test(flavor = "multi_thread")]
async fn a_full_zone_sends_machines_to_another_one() -> Result {
    let mut plane = Plane::start(&[("PROVIDER_FAKE_CAPACITY", "zone-a=2")]).await?;
    let client = plane.client().await?;
    plane.kubectl().apply(&manifests::deployment(6)).await?;
    let machines = wait::machines_running(&client, 6).await?;
    plane.audit().await?.exactly(&wait::keys(&machines)?)?;
    plane.stop().await
}

#[tokio::test(flavor = "multi_thread")]
async fn a_provider_that_comes_late_or_goes_away_is_picked_up() -> Result {
    let mut plane = Separate::start(&[]).await?;
    plane.start_core()?;
    let (kubectl, client) = (plane.kubectl(), plane.client().await?);
    kubectl.apply(manifests::SAMPLE).await?;
    kubectl
        .run(&[
            "wait",
            "provider/fake",
            "--for=condition=Reachable=False",
            "--timeout=60s",
        ])
        .await
        .or(
            // The Provider object may not be there yet.
            kubectl
                .run(&["wait", "provider/fake", "--for=create", "--timeout=60s"])
                .await,
        )?;
    kubectl
        .run(&[
            "wait",
            "provider/fake",
            "--for=condition=Reachable=False",
            "--timeout=60s",
        ])
        .await?;

    plane.start_provider()?;
    kubectl
        .run(&["wait", "provider/fake", "--for=condition=Ready=True", "--timeout=60s"])
        .await?;
    wait::machines_running(&client, 3).await?;
    let first = kubectl
        .run(&["get", "provider", "fake", "-o", "jsonpath={.status.instanceID}"])
        .await?;

    // An outage: the machines are kept as they are.
    plane.kill_provider().await?;
    kubectl
        .run(&[
            "wait",
            "provider/fake",
            "--for=condition=Reachable=False",
            "--timeout=60s",
        ])
        .await?;
    kubectl
        .run(&["scale", "machinedeployment", "demo-workers", "--replicas", "4"])
        .await?;
    plane.start_provider()?;
    kubectl
        .run(&["wait", "provider/fake", "--for=condition=Ready=True", "--timeout=60s"])
        .await?;
    let machines = wait::machines_running(&client, 4).await?;
    let second = kubectl
        .run(&["get", "provider", "fake", "-o", "jsonpath={.status.instanceID}"])
        .await?;
    assert_ne!(first, second, "the Provider object shows the old process");
    let audit = plane.audit().await?;
    audit.exactly(&wait::keys(&machines)?)?;
    audit.clean()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_client_that_goes_away_in_the_middle_of_a_create_changes_nothing() -> Result {
    // The core is killed while creates of 1 s each are under way.
    let mut plane = Separate::start(&[("PROVIDER_FAKE_API_LATENCY", "1s")]).await?;
    plane.start_provider()?;
    plane.start_core()?;
    let client = plane.client().await?;
    plane.kubectl().apply(&manifests::deployment(6)).await?;
    wait::until::<outrigger_api::Machine>(
        kube::Api::default_namespaced(client.clone()),
        wait::PATIENCE,
        "the machines are declared",
        |machines| machines.len() == 6,
    )
    .await?;
    plane.kill_core().await?;
    plane.start_core()?;
    let machines = wait::machines_running(&client, 6).await?;
    let audit = plane.audit().await?;
    audit.exactly(&wait::keys(&machines)?)?;
    audit.clean()
}
