//! What kubectl promises, with the custom resources: explain, describe, edit, wait,
//! server-side apply, strict validation, dry run, watch.

use e2e::plane::Plane;
use e2e::{manifests, wait};
use std::os::unix::fs::PermissionsExt as _;

type Result<T = ()> = anyhow::Result<T>;

#[tokio::test(flavor = "multi_thread")]
async fn kubectl_does_what_it_promises() -> Result {
    let mut plane = Plane::start(&[]).await?;
    let (kubectl, client) = (plane.kubectl(), plane.client().await?);

    let explained = kubectl
        .run(&["explain", "machinedeployment.spec.strategy.rollingUpdate.maxSurge"])
        .await?;
    assert!(
        explained.contains("maxSurge") && explained.contains("DESCRIPTION"),
        "{explained}"
    );
    let resources = kubectl
        .run(&["api-resources", "--api-group", "cluster.outrigger.dev"])
        .await?;
    for kind in ["Provider", "Cluster", "Machine", "MachineSet", "MachineDeployment"] {
        assert!(resources.contains(kind), "{resources}");
    }

    // A dry run leaves nothing, server-side apply and client-side apply get along.
    kubectl
        .run_with_input(&["apply", "--dry-run=server", "-f", "-"], Some(manifests::SAMPLE))
        .await?;
    assert_eq!(kubectl.run(&["get", "clusters", "-o", "name"]).await?.trim(), "");
    kubectl
        .run_with_input(&["apply", "--server-side", "-f", "-"], Some(manifests::SAMPLE))
        .await?;
    let again = kubectl
        .run_with_input(&["apply", "--server-side", "-f", "-"], Some(manifests::SAMPLE))
        .await?;
    assert!(
        again.contains("machinedeployment.cluster.outrigger.dev/demo-workers serverside-applied"),
        "{again}"
    );
    kubectl
        .run(&["wait", "cluster/demo", "--for=condition=Ready", "--timeout=120s"])
        .await?;
    kubectl
        .run(&[
            "wait",
            "machinedeployment/demo-workers",
            "--for=jsonpath={.status.availableReplicas}=3",
            "--timeout=120s",
        ])
        .await?;
    wait::machines_running(&client, 3).await?;

    let described = kubectl.run(&["describe", "machinedeployment", "demo-workers"]).await?;
    assert!(
        described.contains("Conditions:") && described.contains("Events:"),
        "{described}"
    );
    let wide = kubectl.run(&["get", "machines", "-o", "wide"]).await?;
    assert!(wide.contains("fake:///") && wide.contains("INTERNALIP"), "{wide}");
    kubectl
        .run(&["label", "machinedeployment", "demo-workers", "team=blue"])
        .await?;
    kubectl.run(&["annotate", "cluster", "demo", "note=hello"]).await?;
    let selected = kubectl.run(&["get", "md", "-l", "team=blue", "-o", "name"]).await?;
    assert_eq!(selected.trim(), "machinedeployment.cluster.outrigger.dev/demo-workers");

    // `kubectl edit` with an editor that changes the replicas.
    let editor = plane.folder().join("editor");
    std::fs::write(&editor, "#!/bin/sh\nsed -i 's/^  replicas: 3$/  replicas: 4/' \"$1\"\n")?;
    std::fs::set_permissions(&editor, std::fs::Permissions::from_mode(0o755))?;
    let output = kubectl
        .command(&["edit", "machinedeployment", "demo-workers"])
        .env("EDITOR", &editor)
        .output()
        .await?;
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let machines = wait::machines_running(&client, 4).await?;
    wait::rolled_out(&client, "demo-workers").await?;

    // One machine is deleted by hand: its set makes another.
    let victim = machines[0].metadata.name.clone().unwrap_or_default();
    kubectl
        .run(&["delete", "machine", &victim, "--timeout", "120s"])
        .await?;
    let machines = wait::machines_running(&client, 4).await?;
    assert!(
        machines
            .iter()
            .all(|machine| machine.metadata.name.as_deref() != Some(victim.as_str()))
    );

    // Paused: nothing happens until it goes on.
    kubectl
        .run(&[
            "patch",
            "cluster",
            "demo",
            "--type",
            "merge",
            "-p",
            r#"{"spec": {"paused": true}}"#,
        ])
        .await?;
    kubectl
        .run(&[
            "wait",
            "machinedeployment/demo-workers",
            "--for=condition=Paused",
            "--timeout=60s",
        ])
        .await?;
    kubectl
        .run(&["scale", "machinedeployment", "demo-workers", "--replicas", "1"])
        .await?;
    kubectl
        .run(&[
            "patch",
            "cluster",
            "demo",
            "--type",
            "merge",
            "-p",
            r#"{"spec": {"paused": false}}"#,
        ])
        .await?;
    wait::machines_running(&client, 1).await?;

    kubectl
        .run(&["delete", "machinedeployment", "demo-workers", "--timeout", "120s"])
        .await?;
    wait::machines_gone(&client).await?;
    kubectl.run(&["delete", "cluster", "demo", "--timeout", "120s"]).await?;
    plane.audit().await?.exactly(&[])?;
    plane.stop().await
}
