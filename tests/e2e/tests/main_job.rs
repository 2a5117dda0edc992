//! The main job with the real binaries and the real kubectl: apply, look, scale up and
//! down, roll out a change, delete; and that nothing is left in the cloud.

use e2e::plane::Plane;
use e2e::{manifests, wait};

type Result<T = ()> = anyhow::Result<T>;

/// A change of the template that only a new machine can have.
const NEW_IMAGE: &str = r#"[{"op": "replace", "path": "/spec/template/spec/providerSpec/image", "value": "fakeos-2"}]"#;

#[tokio::test(flavor = "multi_thread")]
async fn machines_come_and_go_as_kubectl_says() -> Result {
    let mut plane = Plane::start(&[("PROVIDER_FAKE_BOOT_DELAY", "200ms")]).await?;
    let (kubectl, client) = (plane.kubectl(), plane.client().await?);

    kubectl.apply(manifests::SAMPLE).await?;
    let machines = wait::machines_running(&client, 3).await?;
    wait::rolled_out(&client, "demo-workers").await?;
    let audit = plane.audit().await?;
    audit.exactly(&wait::keys(&machines)?)?;

    // What a person sees.
    let table = kubectl.run(&["get", "cluster-api"]).await?;
    for words in [
        "cluster.cluster.outrigger.dev/demo",
        "machinedeployment.cluster.outrigger.dev/demo-workers",
        "Provisioned",
        "Running",
    ] {
        assert!(table.contains(words), "{words} is missing in:\n{table}");
    }
    let provider = kubectl.get_json(&["provider", "fake"]).await?;
    assert_eq!(provider["status"]["protocols"][0], "actuator.v1", "{provider:#}");
    let described = plane.ctl(&["describe", "cluster", "demo", "--show-machines"]).await?;
    for machine in &machines {
        let name = machine.metadata.name.as_deref().unwrap_or_default();
        assert!(described.contains(&format!("Machine/{name}")), "{described}");
    }

    // Up and down again.
    kubectl
        .run(&["scale", "machinedeployment", "demo-workers", "--replicas", "5"])
        .await?;
    wait::machines_running(&client, 5).await?;
    kubectl
        .run(&["scale", "machinedeployment", "demo-workers", "--replicas", "2"])
        .await?;
    let before = wait::machines_running(&client, 2).await?;
    wait::rolled_out(&client, "demo-workers").await?;

    // A new template: every machine is another one.
    kubectl
        .run(&[
            "patch",
            "machinedeployment",
            "demo-workers",
            "--type",
            "json",
            "-p",
            NEW_IMAGE,
        ])
        .await?;
    wait::rolled_out(&client, "demo-workers").await?;
    let after = wait::machines_running(&client, 2).await?;
    let (before, after) = (wait::keys(&before)?, wait::keys(&after)?);
    assert!(
        after.iter().all(|key| !before.contains(key)),
        "a machine of the old template is left"
    );
    let audit = plane.audit().await?;
    audit.exactly(&after)?;
    audit.clean()?;

    // Gone, with everything.
    kubectl.run(&["delete", "cluster", "demo", "--timeout", "120s"]).await?;
    wait::machines_gone(&client).await?;
    let left = kubectl.run(&["get", "cluster-api", "-o", "name"]).await?;
    assert_eq!(left.trim(), "provider.cluster.outrigger.dev/fake");
    let audit = plane.audit().await?;
    audit.exactly(&[])?;
    audit.clean()?;
    plane.stop().await
}

#[tokio::test(flavor = "multi_thread")]
async fn a_plane_goes_on_where_it_was() -> Result {
    let mut plane = Plane::start(&[]).await?;
    plane.kubectl().apply(manifests::SAMPLE).await?;
    let before = wait::machines_running(&plane.client().await?, 3).await?;
    wait::rolled_out(&plane.client().await?, "demo-workers").await?;
    let kubeconfig = std::fs::read(plane.kubeconfig())?;

    plane.stop().await?;
    plane.up().await?;
    assert_eq!(
        std::fs::read(plane.kubeconfig())?,
        kubeconfig,
        "the kubeconfig must stay good"
    );
    let client = plane.client().await?;
    let after = wait::machines_running(&client, 3).await?;
    assert_eq!(wait::keys(&before)?, wait::keys(&after)?);

    // After a crash of everything the same holds, and the plane still works.
    plane.kill().await?;
    plane.up().await?;
    let client = plane.client().await?;
    plane
        .kubectl()
        .run(&["scale", "machinedeployment", "demo-workers", "--replicas", "4"])
        .await?;
    let machines = wait::machines_running(&client, 4).await?;
    let audit = plane.audit().await?;
    audit.exactly(&wait::keys(&machines)?)?;
    audit.clean()?;
    plane.stop().await
}

#[tokio::test(flavor = "multi_thread")]
async fn a_machine_that_dies_is_replaced() -> Result {
    let mut plane = Plane::start(&[("PROVIDER_FAKE_MEAN_LIFETIME", "5s")]).await?;
    let client = plane.client().await?;
    plane.kubectl().apply(manifests::SAMPLE).await?;
    let first = wait::keys(&wait::machines_running(&client, 3).await?)?;
    wait::until(
        kube::Api::<outrigger_api::Machine>::default_namespaced(client.clone()),
        wait::PATIENCE,
        "every machine was replaced",
        |machines| {
            let running: Vec<_> = machines
                .iter()
                .filter(|machine| wait::is_running(machine))
                .cloned()
                .collect();
            !running.is_empty() && wait::keys(&running).is_ok_and(|keys| keys.iter().all(|key| !first.contains(key)))
        },
    )
    .await?;
    plane
        .kubectl()
        .run(&["delete", "cluster", "demo", "--timeout", "120s"])
        .await?;
    let audit = plane.audit().await?;
    audit.exactly(&[])?;
    audit.clean()?;
    plane.stop().await
}
