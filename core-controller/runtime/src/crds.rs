//! The CustomResourceDefinitions: applied when that was asked for, waited for always.
//!
//! Not for: what is in them (`outrigger-api`).

use std::time::Duration;

use anyhow::Context as _;
use k8s_openapi::apiextensions_apiserver::pkg::apis::apiextensions::v1::CustomResourceDefinition;
use kube::Api;
use kube::api::{Patch, PatchParams};
use outrigger_api::names;

use crate::telemetry::{Metrics, Verb};

/// The field manager of everything that is applied.
pub const FIELD_MANAGER: &str = "core-controller";
/// How often the API server is asked whether it serves the kinds.
const POLL: Duration = Duration::from_millis(500);
/// After so many questions without success the reason is logged again.
const LOG_EVERY: u32 = 60;
/// What is needed.
const RESOURCES: [&str; 5] = ["clusters", "machinedeployments", "machines", "machinesets", "providers"];

/// Applies the definitions by server-side apply.
pub async fn install(client: &kube::Client, metrics: &Metrics) -> anyhow::Result<()> {
    let api: Api<CustomResourceDefinition> = Api::all(client.clone());
    let params = PatchParams::apply(FIELD_MANAGER).force();
    for crd in outrigger_api::crds() {
        let name = crd.metadata.name.clone().unwrap_or_default();
        let result = api.patch(&name, &params, &Patch::Apply(&crd)).await;
        metrics.count_write(Verb::Patch, "customresourcedefinitions", result.is_ok());
        result.with_context(|| format!("failed to apply the CustomResourceDefinition {name}"))?;
    }
    tracing::info!("the CustomResourceDefinitions are applied");
    Ok(())
}

/// Waits until the API server serves all kinds.
pub async fn wait_until_served(client: &kube::Client) {
    let mut asked: u32 = 0;
    let mut said = String::new();
    loop {
        let problem = match client.list_api_group_resources(names::API_VERSION).await {
            Ok(served) => {
                let missing: Vec<&str> = RESOURCES
                    .into_iter()
                    .filter(|wanted| !served.resources.iter().any(|resource| resource.name == *wanted))
                    .collect();
                if missing.is_empty() {
                    if !said.is_empty() {
                        tracing::info!("the CustomResourceDefinitions are there");
                    }
                    return;
                }
                missing_sentence(&missing)
            }
            Err(kube::Error::Api(status)) if status.code == 404 => missing_sentence(&RESOURCES),
            Err(error) => format!("unable to ask the API server which kinds it serves: {error}"),
        };
        if problem != said || asked.is_multiple_of(LOG_EVERY) {
            tracing::warn!("{problem}");
            said = problem;
        }
        asked = asked.wrapping_add(1);
        tokio::time::sleep(POLL).await;
    }
}

fn missing_sentence(missing: &[&str]) -> String {
    format!(
        "waiting for the CustomResourceDefinitions of {}: the API server does not serve {}; start with --install-crds, \
         or run kubectl apply -f deploy/crds",
        names::API_VERSION,
        missing.join(", ")
    )
}
