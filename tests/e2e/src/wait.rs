//! Waiting for what the API server tells, by watches: no sleeping and no polling.

use std::fmt::Debug;
use std::pin::pin;
use std::time::Duration;

use anyhow::{Context as _, bail};
use futures::StreamExt as _;
use kube::api::Api;
use kube::runtime::reflector::{self, store::Writer};
use kube::runtime::watcher;
use kube::{Client, Resource};
use outrigger_api::{Machine, MachineDeployment};
use serde::de::DeserializeOwned;

/// How long a test waits for anything; generous, because machines of CI are slow.
pub const PATIENCE: Duration = Duration::from_mins(3);

/// Waits until the objects of `api` fulfil `condition`; returns them. What `describe`
/// makes of the last state is part of the error.
pub async fn until<K>(
    api: Api<K>,
    patience: Duration,
    what: &str,
    mut condition: impl FnMut(&[std::sync::Arc<K>]) -> bool,
) -> anyhow::Result<Vec<std::sync::Arc<K>>>
where
    K: Resource<DynamicType = ()> + Clone + Debug + DeserializeOwned + Send + Sync + 'static,
{
    let writer = Writer::<K>::new(());
    let store = writer.as_reader();
    let mut events = pin!(reflector::reflector(writer, watcher(api, watcher::Config::default())));
    let waiting = async {
        let mut listed = false;
        while let Some(event) = events.next().await {
            // The watcher itself tries again: the API server may be restarting.
            let Ok(event) = event else { continue };
            listed = match event {
                watcher::Event::Init | watcher::Event::InitApply(_) => false,
                watcher::Event::InitDone => true,
                watcher::Event::Apply(_) | watcher::Event::Delete(_) => listed,
            };
            let objects = store.state();
            if listed && condition(&objects) {
                return Some(objects);
            }
        }
        None
    };
    match tokio::time::timeout(patience, waiting).await {
        Ok(Some(objects)) => Ok(objects),
        Ok(None) => bail!("the watch for {what:?} ended"),
        Err(_) => bail!(
            "{what:?} did not happen within {patience:?}; last seen: {:#?}",
            store.state()
        ),
    }
}

/// Waits until exactly `count` Machines are there, all of them in phase Running.
pub async fn machines_running(client: &Client, count: usize) -> anyhow::Result<Vec<std::sync::Arc<Machine>>> {
    until(
        Api::default_namespaced(client.clone()),
        PATIENCE,
        &format!("{count} machines run"),
        |machines| machines.len() == count && machines.iter().all(|machine| is_running(machine)),
    )
    .await
}

/// Waits until no Machine is left.
pub async fn machines_gone(client: &Client) -> anyhow::Result<()> {
    until::<Machine>(
        Api::default_namespaced(client.clone()),
        PATIENCE,
        "no machine is left",
        <[_]>::is_empty,
    )
    .await
    .map(drop)
}

/// Waits until a MachineDeployment is rolled out: every machine of the newest template, all available.
pub async fn rolled_out(client: &Client, name: &str) -> anyhow::Result<()> {
    until::<MachineDeployment>(
        Api::default_namespaced(client.clone()),
        PATIENCE,
        &format!("{name} is rolled out"),
        |deployments| {
            deployments.iter().any(|deployment| {
                let Some(status) = &deployment.status else { return false };
                let Ok(status) = serde_json::to_value(status) else {
                    return false;
                };
                let wanted = serde_json::to_value(&deployment.spec)
                    .ok()
                    .and_then(|spec| spec["replicas"].as_i64());
                let number = |field: &str| status[field].as_i64();
                deployment.metadata.name.as_deref() == Some(name)
                    && number("observedGeneration") == deployment.metadata.generation
                    && ["replicas", "updatedReplicas", "availableReplicas"]
                        .iter()
                        .all(|field| number(field).unwrap_or(0) == wanted.unwrap_or(1))
            })
        },
    )
    .await
    .map(drop)
}

/// Whether a Machine runs and is not on its way out.
pub fn is_running(machine: &Machine) -> bool {
    machine.metadata.deletion_timestamp.is_none() && phase(machine) == "Running"
}

/// The phase of a Machine as a word; empty before its first status.
pub fn phase(machine: &Machine) -> String {
    serde_json::to_value(&machine.status)
        .ok()
        .and_then(|status| status["phase"].as_str().map(ToOwned::to_owned))
        .unwrap_or_default()
}

/// The idempotency keys that belong to these Machines, in order.
pub fn keys(machines: &[std::sync::Arc<Machine>]) -> anyhow::Result<Vec<String>> {
    let mut keys = machines
        .iter()
        .map(|machine| {
            let uid = machine.metadata.uid.as_deref().context("a Machine without a UID")?;
            Ok(actuator_proto::key::derive(uid))
        })
        .collect::<anyhow::Result<Vec<_>>>()?;
    keys.sort();
    Ok(keys)
}
