//! `clusterctl wait cluster`: waits on watches, and shows how far it is.

use std::collections::BTreeMap;
use std::io::IsTerminal as _;
use std::pin::pin;
use std::time::Duration;

use anyhow::{Context as _, bail};
use futures::StreamExt as _;
use indicatif::{ProgressBar, ProgressStyle};
use kube::Client;
use kube::api::Api;
use kube::runtime::{WatchStreamExt as _, watcher};
use outrigger_api::{Cluster, Machine, MachineDeployment};
use serde::Serialize;
use serde_json::Value;

use crate::cli::WaitClusterArgs;
use crate::{client, describe};

/// What is known of the cluster; pure, from the objects as they come.
#[derive(Debug, Default)]
struct Progress {
    cluster: Option<Value>,
    /// Whether every deployment there is has been told of: none yet is not none at all.
    deployments_listed: bool,
    deployments: BTreeMap<String, Value>,
    machines: BTreeMap<String, String>,
}

impl Progress {
    fn wanted(&self) -> i64 {
        self.deployments
            .values()
            .map(|deployment| deployment["spec"]["replicas"].as_i64().unwrap_or(1))
            .sum()
    }

    fn running(&self) -> i64 {
        i64::try_from(self.machines.values().filter(|phase| *phase == "Running").count()).unwrap_or(i64::MAX)
    }

    fn is_done(&self) -> bool {
        let ready = self.cluster.as_ref().is_some_and(|cluster| {
            cluster["status"]["conditions"]
                .as_array()
                .is_some_and(|all| all.iter().any(|c| c["type"] == "Ready" && c["status"] == "True"))
        });
        ready
            && self.deployments_listed
            && self.deployments.values().all(|deployment| {
                let (spec, status) = (&deployment["spec"], &deployment["status"]);
                let wanted = spec["replicas"].as_i64().unwrap_or(1);
                status["observedGeneration"] == deployment["metadata"]["generation"]
                    && ["replicas", "updatedReplicas", "availableReplicas"]
                        .iter()
                        .all(|count| status[*count].as_i64().unwrap_or(0) == wanted)
            })
    }

    fn sentence(&self) -> String {
        let phase = self
            .cluster
            .as_ref()
            .and_then(|cluster| cluster["status"]["phase"].as_str())
            .unwrap_or("Pending");
        let mut phases: BTreeMap<&str, usize> = BTreeMap::new();
        for phase in self.machines.values() {
            *phases
                .entry(if phase.is_empty() { "Pending" } else { phase })
                .or_default() += 1;
        }
        let machines: Vec<String> = phases.iter().map(|(phase, count)| format!("{count} {phase}")).collect();
        let machines = if machines.is_empty() {
            "none yet".to_owned()
        } else {
            machines.join(", ")
        };
        format!("cluster {phase}; machines: {machines}")
    }
}

/// What a watch said: the object, or that it is gone.
enum Change {
    Cluster(Value),
    ClusterGone,
    Deployment(String, Option<Value>),
    DeploymentsListed,
    Machine(String, Option<String>),
}

/// Waits until the cluster is ready and every deployment has what it asks for.
pub async fn run(args: WaitClusterArgs) -> anyhow::Result<()> {
    let client = client::connect(&args.connection).await?;
    let mut progress = Progress::default();
    let result = tokio::time::timeout(args.timeout, follow(&client, &args.name, &mut progress)).await;
    let Ok(result) = result else {
        let tree = match describe::read(&client, &args.name).await {
            Ok(root) => describe::draw::draw(
                &root,
                &describe::draw::Options {
                    all_conditions: false,
                    all_machines: false,
                    now: jiff::Timestamp::now(),
                },
            ),
            Err(error) => format!("{error:#}"),
        };
        bail!(
            "the cluster {} was not ready within {} s ({})\n{tree}",
            args.name,
            args.timeout.as_secs(),
            progress.sentence()
        );
    };
    result
}

async fn follow(client: &Client, name: &str, progress: &mut Progress) -> anyhow::Result<()> {
    let display = Display::new();
    let mut changes = pin!(changes(client, name));
    while let Some(change) = changes.next().await {
        match change {
            Change::Cluster(cluster) => progress.cluster = Some(cluster),
            Change::ClusterGone => bail!("the cluster {name} was deleted"),
            Change::Deployment(name, Some(deployment)) => drop(progress.deployments.insert(name, deployment)),
            Change::Deployment(name, None) => drop(progress.deployments.remove(&name)),
            Change::DeploymentsListed => progress.deployments_listed = true,
            Change::Machine(name, Some(phase)) => drop(progress.machines.insert(name, phase)),
            Change::Machine(name, None) => drop(progress.machines.remove(&name)),
        }
        display.show(progress);
        if progress.is_done() {
            display.finish(progress);
            return Ok(());
        }
    }
    Err(anyhow::anyhow!("the watch ended")).context("failed to follow the cluster")
}

fn changes(client: &Client, name: &str) -> impl futures::Stream<Item = Change> + use<> {
    let config = watcher::Config::default();
    let name = name.to_owned();
    let named = config.clone().fields(&format!("metadata.name={name}"));
    let clusters = watcher(Api::<Cluster>::default_namespaced(client.clone()), named).default_backoff();
    let deployments = watcher(
        Api::<MachineDeployment>::default_namespaced(client.clone()),
        config.clone(),
    )
    .default_backoff();
    let machines = watcher(Api::<Machine>::default_namespaced(client.clone()), config).default_backoff();
    let clusters = clusters.filter_map(|event| async move {
        match applied(event)? {
            (_, Some(cluster)) => Some(Change::Cluster(cluster)),
            (_, None) => Some(Change::ClusterGone),
        }
    });
    let of = |name: String, object: &Option<Value>| {
        object
            .as_ref()
            .is_none_or(|object| object["spec"]["clusterName"].as_str() == Some(name.as_str()))
    };
    let owner = name.clone();
    let deployments = deployments.filter_map(move |event| {
        let change = if matches!(event, Ok(watcher::Event::InitDone)) {
            Some(Change::DeploymentsListed)
        } else {
            applied(event)
                .filter(|(_, object)| of(owner.clone(), object))
                .map(|(name, object)| Change::Deployment(name, object))
        };
        async move { change }
    });
    let machines = machines.filter_map(move |event| {
        let change = applied(event).filter(|(_, object)| of(name.clone(), object));
        async move {
            change.map(|(name, object)| {
                Change::Machine(
                    name,
                    object.map(|machine| machine["status"]["phase"].as_str().unwrap_or_default().to_owned()),
                )
            })
        }
    });
    futures::stream::select(
        clusters.boxed(),
        futures::stream::select(deployments.boxed(), machines.boxed()),
    )
}

/// The object of an event by name; errors are passed over, because the watcher itself tries again.
fn applied<K: kube::Resource<DynamicType = ()> + Serialize>(
    event: Result<watcher::Event<K>, watcher::Error>,
) -> Option<(String, Option<Value>)> {
    match event.ok()? {
        watcher::Event::Apply(object) | watcher::Event::InitApply(object) => {
            Some((object.meta().name.clone()?, serde_json::to_value(&object).ok()))
        }
        watcher::Event::Delete(object) => Some((object.meta().name.clone()?, None)),
        watcher::Event::Init | watcher::Event::InitDone => None,
    }
}

/// A bar on a terminal, one line per news elsewhere.
struct Display {
    bar: Option<ProgressBar>,
    last: std::cell::RefCell<String>,
}

impl Display {
    fn new() -> Self {
        let bar = std::io::stderr().is_terminal().then(|| {
            let bar = ProgressBar::new(0);
            if let Ok(style) = ProgressStyle::with_template("{spinner} [{bar:30}] {pos}/{len} {msg}") {
                bar.set_style(style.progress_chars("=> "));
            }
            bar.enable_steady_tick(Duration::from_millis(100));
            bar
        });
        Self {
            bar,
            last: std::cell::RefCell::default(),
        }
    }

    fn show(&self, progress: &Progress) {
        let sentence = progress.sentence();
        let position = |number: i64| u64::try_from(number).unwrap_or(0);
        if let Some(bar) = &self.bar {
            bar.set_length(position(progress.wanted()));
            bar.set_position(position(progress.running()));
            bar.set_message(sentence);
        } else if *self.last.borrow() != sentence {
            line(&sentence);
            *self.last.borrow_mut() = sentence;
        }
    }

    fn finish(&self, progress: &Progress) {
        if let Some(bar) = &self.bar {
            bar.finish_and_clear();
            line(&progress.sentence());
        }
    }
}

fn line(text: &str) {
    use std::io::Write as _;
    // Progress is not worth failing for.
    let _ = writeln!(std::io::stderr(), "{text}");
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn a_ready_cluster_is_not_done_before_its_deployments_are_known() {
        let ready = json!({"status": {"conditions": [{"type": "Ready", "status": "True"}]}});
        let mut progress = Progress {
            cluster: Some(ready),
            ..Default::default()
        };
        assert!(!progress.is_done(), "nobody has told of the deployments yet");
        progress.deployments_listed = true;
        assert!(progress.is_done(), "there are none");
        let mut deployment = json!({
            "metadata": {"generation": 1},
            "spec": {"replicas": 2},
            "status": {"observedGeneration": 1, "replicas": 2, "updatedReplicas": 2, "availableReplicas": 1},
        });
        progress.deployments.insert("workers".to_owned(), deployment.clone());
        assert!(!progress.is_done());
        deployment["status"]["availableReplicas"] = json!(2);
        progress.deployments.insert("workers".to_owned(), deployment);
        assert!(progress.is_done());
    }
}
