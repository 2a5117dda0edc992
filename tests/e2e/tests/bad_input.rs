//! What bad input gets: refused with a sentence, or a condition that says what to do.

use e2e::manifests;
use e2e::plane::Plane;
use e2e::process::Process;
use rstest::rstest;

type Result<T = ()> = anyhow::Result<T>;

#[tokio::test(flavor = "multi_thread")]
async fn wrong_manifests_are_refused_with_the_field_and_what_is_allowed() -> Result {
    let mut plane = Plane::start_with(&[], &[]).await?;
    let kubectl = plane.kubectl();
    let replaced = |from: &str, to: &str| {
        let manifest = manifests::SAMPLE.replacen(from, to, 1);
        assert_ne!(manifest, manifests::SAMPLE, "{from:?} is not in the sample");
        manifest
    };
    for (manifest, words) in [
        (
            replaced("replicas: 3", "replicas: -1"),
            vec!["spec.replicas", "greater than or equal to 0"],
        ),
        (
            replaced("replicas: 3", "replicas: three"),
            vec!["spec.replicas", "integer"],
        ),
        (
            replaced("replicas: 3", "replica: 3"),
            vec!["unknown field \"spec.replica\""],
        ),
        (
            replaced("type: RollingUpdate", "type: Rolling"),
            vec!["spec.strategy.type", "\"RollingUpdate\", \"OnDelete\""],
        ),
        (
            replaced("maxSurge: 1", "maxSurge: 0"),
            vec!["maxSurge", "maxUnavailable"],
        ),
        (replaced("10.96.0.0/12", "10.244.0.0/24"), vec!["overlap"]),
        (replaced("10.96.0.0/12", "10.96.0.0/99"), vec!["services", "CIDR"]),
        (
            replaced("      app: demo-workers", "      app: other"),
            vec!["selector", "template"],
        ),
        (replaced("version: v1.34.1", "version: latest"), vec!["version"]),
        (replaced("  provider: fake\n", ""), vec!["spec.provider", "Required"]),
    ] {
        let error = kubectl.refused(&["apply", "-f", "-"], Some(&manifest)).await?;
        for word in words {
            assert!(error.contains(word), "{word:?} is missing in: {error}");
        }
    }
    plane.stop().await
}

#[tokio::test(flavor = "multi_thread")]
async fn what_the_provider_refuses_becomes_a_condition_and_nothing_is_made() -> Result {
    let mut plane = Plane::start(&[]).await?;
    let kubectl = plane.kubectl();
    kubectl
        .apply(&manifests::SAMPLE.replacen("machineType: fake.small", "machineTipe: fake.small", 1))
        .await?;
    kubectl
        .run(&[
            "wait",
            "machines",
            "--all",
            "--for=condition=ProviderConfigValid=False",
            "--timeout=120s",
        ])
        .await
        // `kubectl wait --all` fails when there is no machine yet; then wait for the first.
        .or(kubectl
            .run(&[
                "wait",
                "machinedeployment/demo-workers",
                "--for=jsonpath={.status.replicas}=3",
                "--timeout=120s",
            ])
            .await)?;
    kubectl
        .run(&[
            "wait",
            "machines",
            "--all",
            "--for=condition=ProviderConfigValid=False",
            "--timeout=120s",
        ])
        .await?;
    let machines = kubectl.get_json(&["machines"]).await?;
    for machine in machines["items"].as_array().into_iter().flatten() {
        let conditions = machine["status"]["conditions"].as_array().cloned().unwrap_or_default();
        let message = conditions
            .iter()
            .find(|condition| condition["type"] == "ProviderConfigValid")
            .and_then(|condition| condition["message"].as_str().map(ToOwned::to_owned))
            .unwrap_or_default();
        assert!(message.contains("/machineTipe"), "no JSON pointer in {message:?}");
    }
    plane.audit().await?.exactly(&[])?;

    // Mended, it goes on.
    kubectl.apply(manifests::SAMPLE).await?;
    e2e::wait::rolled_out(&plane.client().await?, "demo-workers").await?;
    plane.stop().await
}

#[tokio::test(flavor = "multi_thread")]
async fn unknown_providers_and_missing_secrets_say_what_to_do() -> Result {
    let mut plane = Plane::start(&[]).await?;
    let (kubectl, client) = (plane.kubectl(), plane.client().await?);
    let other = manifests::SAMPLE
        .replace("provider: fake", "provider: nowhere")
        .replace("name: demo\n", "name: other\n");
    kubectl.apply(&other).await?;
    kubectl.run(&["delete", "secret", "demo-bootstrap"]).await?;
    let sentence = condition(&client, "other", "Ready", "nowhere").await?;
    assert!(
        sentence.contains("--provider") || sentence.contains("Provider"),
        "no advice in {sentence:?}"
    );

    // The Secret of the bootstrap data is missing: the machines wait, and go on when it is there.
    let secret = manifests::SAMPLE.split("---").nth(1).unwrap_or_default();
    let rest = manifests::SAMPLE.replacen(secret, "\n", 1);
    kubectl.apply(&rest).await?;
    e2e::wait::until::<outrigger_api::Machine>(
        kube::Api::default_namespaced(client.clone()),
        e2e::wait::PATIENCE,
        "a machine names the missing Secret",
        |machines| {
            machines
                .iter()
                .any(|machine| format!("{:?}", machine.status).contains("demo-bootstrap"))
        },
    )
    .await?;
    kubectl.apply(manifests::SAMPLE).await?;
    e2e::wait::rolled_out(&client, "demo-workers").await?;
    plane.stop().await
}

/// Waits until a condition of a Cluster contains `words`; returns its message.
async fn condition(client: &kube::Client, cluster: &str, name: &str, words: &str) -> Result<String> {
    let message = |object: &outrigger_api::Cluster| {
        let status = serde_json::to_value(&object.status).unwrap_or_default();
        let conditions = status["conditions"].as_array().cloned().unwrap_or_default();
        conditions
            .iter()
            .find(|condition| condition["type"] == name && condition["status"] != "True")
            .and_then(|condition| condition["message"].as_str().map(ToOwned::to_owned))
    };
    let clusters = e2e::wait::until::<outrigger_api::Cluster>(
        kube::Api::default_namespaced(client.clone()),
        e2e::wait::PATIENCE,
        &format!("{name} of {cluster} speaks of {words}"),
        |clusters| {
            clusters.iter().any(|object| {
                object.metadata.name.as_deref() == Some(cluster) && message(object).is_some_and(|m| m.contains(words))
            })
        },
    )
    .await?;
    Ok(clusters
        .iter()
        .filter(|object| object.metadata.name.as_deref() == Some(cluster))
        .find_map(|object| message(object))
        .unwrap_or_default())
}

#[rstest]
#[case("clusterctl", &["up", "--provider", "../x"])]
#[case("clusterctl", &["up", "--listen", "nowhere"])]
#[case("clusterctl", &["describe"])]
#[case("core-controller", &["--provider", "fake"])]
#[case("core-controller", &["--no-such-flag"])]
#[case("provider-fake", &["--listen", "nonsense"])]
#[case("provider-fake", &["--boot-delay", "soon"])]
#[tokio::test]
async fn bad_flags_get_one_clear_line_and_exit_code_2(#[case] binary: &str, #[case] flags: &[&str]) -> Result {
    let folder = tempfile::tempdir()?;
    let log = folder.path().join("log");
    let mut process = Process::start(&e2e::binaries()?.join(binary), flags, &[], &log)?;
    let status = process.ended(std::time::Duration::from_secs(30)).await?;
    assert_eq!(status.code(), Some(2), "{}", process.output());
    let output = process.output();
    let first = output.lines().next().unwrap_or_default();
    assert!(!first.is_empty() && !output.contains("panicked"), "{output}");
    Ok(())
}

#[rstest]
#[case("clusterctl")]
#[case("core-controller")]
#[case("provider-fake")]
#[tokio::test]
async fn every_binary_tells_its_version_and_has_examples(#[case] binary: &str) -> Result {
    let run = async |flag: &str| -> Result<String> {
        let output = tokio::process::Command::new(e2e::binaries()?.join(binary))
            .arg(flag)
            .output()
            .await?;
        assert!(output.status.success());
        Ok(String::from_utf8(output.stdout)?)
    };
    assert!(run("--version").await?.starts_with(&format!("{binary} ")));
    let help = run("--help").await?;
    assert!(help.contains("Examples:"), "{help}");
    Ok(())
}
