//! A scene for tests: an API server in process, a core in process, a scripted provider.

#![allow(dead_code, missing_docs)]

pub mod cloud;

use std::fmt::Debug;
use std::sync::Arc;
use std::time::Duration;

use cloud::Cloud;
use core_controller::telemetry::{Metrics, Verb};
use core_controller::{Core, Options, ProviderEndpoint};
use embedded_apiserver::ApiServer;
use futures::{StreamExt as _, TryStreamExt as _};
use kube::api::{Patch, PatchParams, PostParams};
use kube::runtime::{WatchStreamExt as _, reflector, watcher};
use kube::{Api, Client, Resource};
use outrigger_api::{Cluster, Machine, MachineDeployment, MachinePhase, MachineSet, Provider};
use serde::de::DeserializeOwned;
use serde_json::{Value, json};
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;

/// How long anything may take.
pub const PATIENCE: Duration = Duration::from_mins(2);

pub struct Scene {
    pub server: ApiServer,
    pub client: Client,
    pub cloud: Cloud,
    pub metrics: Arc<Metrics>,
    shutdown: CancellationToken,
    core: Option<JoinHandle<anyhow::Result<()>>>,
}

pub fn options(cloud: &Cloud) -> Options {
    let mut options = Options {
        install_crds: true,
        ..Options::default()
    };
    options
        .providers
        .insert("scripted".to_owned(), ProviderEndpoint::new(cloud.endpoint()));
    options
}

impl Scene {
    /// A scene with a running core.
    pub async fn start() -> Self {
        let mut scene = Self::without_core().await;
        scene.start_core(options(&scene.cloud));
        scene
    }

    pub async fn without_core() -> Self {
        if std::env::var_os("TEST_LOG").is_some() {
            let _ = tracing_subscriber::fmt()
                .with_env_filter(tracing_subscriber::EnvFilter::from_env("TEST_LOG"))
                .try_init();
        }
        let server = ApiServer::builder().in_memory().build().await.unwrap();
        let client = Client::new(server.service(), "default");
        Self {
            server,
            client,
            cloud: Cloud::start(),
            metrics: Arc::default(),
            shutdown: CancellationToken::new(),
            core: None,
        }
    }

    pub fn start_core(&mut self, options: Options) {
        self.shutdown = CancellationToken::new();
        self.metrics = Arc::default();
        self.core = Some(tokio::spawn(Core::run_with(
            self.client.clone(),
            options,
            Arc::clone(&self.metrics),
            self.shutdown.clone(),
        )));
    }

    /// Stops the core in order.
    pub async fn stop_core(&mut self) -> anyhow::Result<()> {
        self.shutdown.cancel();
        let core = self.core.take().unwrap();
        tokio::time::timeout(PATIENCE, core).await.unwrap().unwrap()
    }

    /// Waits until the core ends by itself.
    pub async fn core_ended(&mut self) -> anyhow::Result<()> {
        let core = self.core.take().unwrap();
        tokio::time::timeout(PATIENCE, core).await.unwrap().unwrap()
    }

    /// Waits until the kinds are served.
    pub async fn kinds(&self) {
        let served = async {
            loop {
                if let Ok(list) = self
                    .client
                    .list_api_group_resources("cluster.outrigger.dev/v1alpha1")
                    .await
                    && list.resources.iter().any(|resource| resource.name == "providers")
                    && list
                        .resources
                        .iter()
                        .any(|resource| resource.name == "machinedeployments")
                {
                    return;
                }
                tokio::time::sleep(Duration::from_millis(20)).await;
            }
        };
        tokio::time::timeout(PATIENCE, served).await.unwrap();
    }

    pub fn api<K>(&self) -> Api<K>
    where
        K: Resource<Scope = k8s_openapi::NamespaceResourceScope, DynamicType = ()>,
    {
        Api::namespaced(self.client.clone(), "default")
    }

    pub fn providers(&self) -> Api<Provider> {
        Api::all(self.client.clone())
    }

    pub async fn create<K>(&self, object: Value) -> K
    where
        K: Resource<Scope = k8s_openapi::NamespaceResourceScope, DynamicType = ()>
            + DeserializeOwned
            + serde::Serialize
            + Clone
            + Debug,
    {
        let object: K = serde_json::from_value(object).unwrap();
        self.api::<K>().create(&PostParams::default(), &object).await.unwrap()
    }

    pub async fn merge<K>(&self, name: &str, patch: Value)
    where
        K: Resource<Scope = k8s_openapi::NamespaceResourceScope, DynamicType = ()> + DeserializeOwned + Clone + Debug,
    {
        let params = PatchParams::default();
        self.api::<K>()
            .patch(name, &params, &Patch::Merge(&patch))
            .await
            .unwrap();
    }

    pub async fn cluster(&self) -> Cluster {
        self.create(json!({
            "metadata": {"name": "demo"},
            "spec": {"provider": "scripted", "providerSpec": {"kind": "ScriptedCluster", "version": "v1"}},
        }))
        .await
    }

    pub async fn deployment(&self, replicas: i32) -> MachineDeployment {
        self.create(deployment(replicas, "small")).await
    }

    /// Waits until exactly so many machines are there and all of them run.
    pub async fn running(&self, count: usize) -> Vec<Machine> {
        until(
            self.api::<Machine>(),
            &format!("{count} running machines"),
            |machines| machines.len() == count && machines.iter().all(is_running),
        )
        .await
    }

    /// The writes of the core by resource, events and leases left out.
    pub fn writes(&self) -> Vec<(&'static str, Verb, u64)> {
        let mut found = Vec::new();
        for resource in [
            "machines",
            "machines/status",
            "machinesets",
            "machinesets/status",
            "machinedeployments",
            "machinedeployments/status",
            "clusters",
            "clusters/status",
            "providers",
            "providers/status",
        ] {
            for verb in [Verb::Create, Verb::Update, Verb::Patch, Verb::Delete] {
                let count = self.metrics.writes(verb, resource);
                if count > 0 {
                    found.push((resource, verb, count));
                }
            }
        }
        found
    }
}

pub fn is_running(machine: &Machine) -> bool {
    machine
        .status
        .as_ref()
        .is_some_and(|status| status.phase == Some(MachinePhase::Running))
        && machine.metadata.deletion_timestamp.is_none()
}

pub fn deployment(replicas: i32, size: &str) -> Value {
    json!({
        "metadata": {"name": "workers"},
        "spec": {
            "clusterName": "demo",
            "replicas": replicas,
            "selector": {"matchLabels": {"pool": "workers"}},
            "template": {
                "metadata": {"labels": {"pool": "workers"}},
                "spec": {"providerSpec": {"kind": "ScriptedMachine", "version": "v1", "size": size}},
            },
        },
    })
}

pub fn machine(name: &str, size: &str) -> Value {
    json!({
        "metadata": {"name": name},
        "spec": {
            "clusterName": "demo",
            "providerSpec": {"kind": "ScriptedMachine", "version": "v1", "size": size},
        },
    })
}

/// The condition of this type: status, reason, message.
pub fn condition(conditions: &[outrigger_api::Condition], kind: &str) -> Option<(String, String, String)> {
    let found = conditions.iter().find(|condition| condition.type_ == kind)?;
    Some((found.status.clone(), found.reason.clone(), found.message.clone()))
}

/// Watches until all objects together satisfy the condition.
pub async fn until<K>(api: Api<K>, what: &str, satisfied: impl Fn(&[K]) -> bool) -> Vec<K>
where
    K: Resource<DynamicType = ()> + DeserializeOwned + Clone + Debug + Send + Sync + 'static,
{
    let (reader, writer) = reflector::store::<K>();
    let all = || -> Vec<K> { reader.state().iter().map(|object| K::clone(object)).collect() };
    let waiting = async {
        let mut events = watcher(api, watcher::Config::default())
            .default_backoff()
            .reflect(writer)
            .boxed();
        while let Some(event) = events.try_next().await.unwrap() {
            if matches!(event, watcher::Event::Init | watcher::Event::InitApply(_)) {
                continue;
            }
            if satisfied(&all()) {
                return all();
            }
        }
        panic!("the watch ended");
    };
    let found = tokio::time::timeout(PATIENCE, waiting).await;
    found.unwrap_or_else(|_| panic!("waited in vain for {what}; there is {:#?}", all()))
}

/// Asks until the condition holds; for what cannot be watched.
pub async fn eventually(what: &str, satisfied: impl Fn() -> bool) {
    let asking = async {
        while !satisfied() {
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    };
    assert!(
        tokio::time::timeout(PATIENCE, asking).await.is_ok(),
        "waited in vain for {what}"
    );
}

/// All sets of the scene.
pub async fn sets(scene: &Scene) -> Vec<MachineSet> {
    scene.api::<MachineSet>().list(&Default::default()).await.unwrap().items
}
