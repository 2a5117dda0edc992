//! The place of one row: a namespace, a provider with its Provider object, and what a
//! user does with Clusters and Machines. All is made and watched through the API.

use std::fmt::Debug;
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context as _, bail, ensure};
use futures::{StreamExt as _, TryStreamExt as _};
use k8s_openapi::api::core::v1::Namespace;
use k8s_openapi::api::events::v1::Event;
use kube::api::{DeleteParams, ListParams, Patch, PatchParams, PostParams};
use kube::runtime::{WatchStreamExt as _, watcher};
use kube::{Api, Resource, ResourceExt as _};
use outrigger_api::{Cluster, Condition, Machine, Provider as ProviderObject};
use serde::de::DeserializeOwned;
use serde_json::{Value, json};

use crate::world::{PATIENCE, World};
use mirror::ledger::Ledger;
use mirror::provider::Provider;

/// The name of the Cluster of each scene.
pub const CLUSTER: &str = "demo";
/// The name of the Machine of most scenes.
pub const MACHINE: &str = "one";

/// See the module.
pub struct Scene {
    /// Where it is.
    pub world: Arc<World>,
    /// The provider.
    pub provider: Provider,
    /// The provider's name, and the namespace's.
    pub name: String,
    credentials: Option<Value>,
}

/// A condition: status, reason, message.
pub fn condition(conditions: &[Condition], kind: &str) -> Option<(String, String, String)> {
    let found = conditions.iter().find(|condition| condition.type_ == kind)?;
    Some((found.status.clone(), found.reason.clone(), found.message.clone()))
}

/// A condition of a machine.
pub fn machine_condition(machine: &Machine, kind: &str) -> Option<(String, String, String)> {
    condition(&machine.status.as_ref()?.conditions, kind)
}

/// A condition of a cluster.
pub fn cluster_condition(cluster: &Cluster, kind: &str) -> Option<(String, String, String)> {
    condition(&cluster.status.as_ref()?.conditions, kind)
}

/// Whether it runs.
pub fn is_running(machine: &Machine) -> bool {
    phase(machine) == "Running" && machine_condition(machine, "Ready").is_some_and(|(status, ..)| status == "True")
}

/// Whether its infrastructure is there.
pub fn is_ready(cluster: &Cluster) -> bool {
    cluster_condition(cluster, "Ready").is_some_and(|(status, ..)| status == "True")
}

/// The phase of a machine, as it is written.
pub fn phase(machine: &Machine) -> String {
    let phase = machine.status.as_ref().and_then(|status| status.phase);
    phase
        .and_then(|phase| serde_json::to_value(phase).ok())
        .and_then(|phase| phase.as_str().map(str::to_owned))
        .unwrap_or_default()
}

impl Scene {
    /// A scene whose provider serves and is connected.
    pub async fn new(world: &Arc<World>) -> anyhow::Result<Self> {
        Self::with(world, |_| {}).await
    }

    /// The same with a provider that is told something before it serves.
    pub async fn with(world: &Arc<World>, tell: impl FnOnce(&Provider)) -> anyhow::Result<Self> {
        let scene = Self::without_provider(world).await?;
        tell(&scene.provider);
        scene.provider.start()?;
        scene.connect().await?;
        scene.until_provider("Ready", |(status, ..)| status == "True").await?;
        Ok(scene)
    }

    /// A scene whose provider does not serve yet and has no object.
    pub async fn without_provider(world: &Arc<World>) -> anyhow::Result<Self> {
        let (number, path) = world.number();
        let name = format!("mirror-{number}");
        let namespace: Namespace = serde_json::from_value(json!({"metadata": {"name": name}}))?;
        Api::<Namespace>::all(world.client.clone())
            .create(&PostParams::default(), &namespace)
            .await?;
        Ok(Self {
            world: Arc::clone(world),
            provider: Provider::new(&name, &path),
            name,
            credentials: None,
        })
    }

    /// Makes the Provider object.
    pub async fn connect(&self) -> anyhow::Result<()> {
        let object = json!({
            "metadata": {"name": self.name},
            "spec": {"endpoint": self.provider.endpoint()},
        });
        let object: ProviderObject = serde_json::from_value(object)?;
        Api::<ProviderObject>::all(self.world.client.clone())
            .create(&PostParams::default(), &object)
            .await?;
        Ok(())
    }

    /// The objects of a kind in the scene's namespace.
    pub fn api<K>(&self) -> Api<K>
    where
        K: Resource<Scope = k8s_openapi::NamespaceResourceScope, DynamicType = ()>,
    {
        Api::namespaced(self.world.client.clone(), &self.name)
    }

    /// Makes an object.
    pub async fn create<K>(&self, object: Value) -> anyhow::Result<K>
    where
        K: Resource<Scope = k8s_openapi::NamespaceResourceScope, DynamicType = ()>
            + DeserializeOwned
            + serde::Serialize
            + Clone
            + Debug,
    {
        let object: K = serde_json::from_value(object)?;
        Ok(self.api::<K>().create(&PostParams::default(), &object).await?)
    }

    /// Changes an object.
    pub async fn merge<K>(&self, name: &str, patch: Value) -> anyhow::Result<K>
    where
        K: Resource<Scope = k8s_openapi::NamespaceResourceScope, DynamicType = ()> + DeserializeOwned + Clone + Debug,
    {
        let patch = Patch::Merge(&patch);
        Ok(self.api::<K>().patch(name, &PatchParams::default(), &patch).await?)
    }

    /// From now on, Clusters name a Secret with this token.
    pub async fn use_credentials(&mut self, token: &str) -> anyhow::Result<()> {
        self.create::<k8s_openapi::api::core::v1::Secret>(json!({
            "metadata": {"name": "cloud"}, "stringData": {"token": token},
        }))
        .await?;
        self.credentials = Some(json!({"name": "cloud"}));
        Ok(())
    }

    /// Makes the Cluster.
    pub async fn make_cluster(&self) -> anyhow::Result<Cluster> {
        let mut object = json!({
            "metadata": {"name": CLUSTER},
            "spec": {
                "provider": self.name,
                "providerSpec": {"kind": "MirrorCluster", "version": "v1", "size": "small"},
            },
        });
        if let Some(credentials) = &self.credentials {
            object["spec"]["credentialsRef"] = credentials.clone();
        }
        self.create(object).await
    }

    /// Makes the Cluster and waits until it is ready.
    pub async fn cluster(&self) -> anyhow::Result<Cluster> {
        self.make_cluster().await?;
        self.until_cluster("a cluster that is ready", is_ready).await
    }

    /// Makes a Machine.
    pub async fn make_machine(&self, name: &str) -> anyhow::Result<Machine> {
        self.create(json!({
            "metadata": {"name": name},
            "spec": {
                "clusterName": CLUSTER,
                "providerSpec": {"kind": "MirrorMachine", "version": "v1", "size": "small"},
            },
        }))
        .await
    }

    /// Makes the Machine and waits until it runs.
    pub async fn machine(&self) -> anyhow::Result<Machine> {
        self.make_machine(MACHINE).await?;
        self.until_machine("a machine that runs", is_running).await
    }

    /// Asks for another size.
    pub async fn resize<K>(&self, name: &str, size: &str) -> anyhow::Result<K>
    where
        K: Resource<Scope = k8s_openapi::NamespaceResourceScope, DynamicType = ()> + DeserializeOwned + Clone + Debug,
    {
        self.merge(name, json!({"spec": {"providerSpec": {"size": size}}}))
            .await
    }

    /// Waits until the Machine is as wanted.
    pub async fn until_machine(&self, what: &str, wanted: impl Fn(&Machine) -> bool) -> anyhow::Result<Machine> {
        self.until_one(MACHINE, what, wanted).await
    }

    /// Waits until the Cluster is as wanted.
    pub async fn until_cluster(&self, what: &str, wanted: impl Fn(&Cluster) -> bool) -> anyhow::Result<Cluster> {
        self.until_one(CLUSTER, what, wanted).await
    }

    /// Waits until an object is as wanted.
    pub async fn until_one<K>(&self, name: &str, what: &str, wanted: impl Fn(&K) -> bool) -> anyhow::Result<K>
    where
        K: Resource<Scope = k8s_openapi::NamespaceResourceScope, DynamicType = ()>
            + DeserializeOwned
            + Clone
            + Debug
            + Send
            + serde::Serialize
            + 'static,
    {
        let found = watched(self.api::<K>(), name, |object| object.is_some_and(&wanted)).await;
        found
            .with_context(|| {
                format!(
                    "waited in vain for {what}; the provider's last calls: {:?}",
                    self.provider.recent()
                )
            })?
            .context("it is gone")
    }

    /// Waits until an object is gone.
    pub async fn gone<K>(&self, name: &str) -> anyhow::Result<()>
    where
        K: Resource<Scope = k8s_openapi::NamespaceResourceScope, DynamicType = ()>
            + DeserializeOwned
            + Clone
            + Debug
            + Send
            + serde::Serialize
            + 'static,
    {
        let gone = watched(self.api::<K>(), name, |object| object.is_none()).await;
        gone.with_context(|| {
            format!(
                "{name} did not go; the provider's last calls: {:?}",
                self.provider.recent()
            )
        })?;
        Ok(())
    }

    /// Waits until a condition of the Provider object is as wanted.
    pub async fn until_provider(
        &self,
        kind: &str,
        wanted: impl Fn(&(String, String, String)) -> bool,
    ) -> anyhow::Result<(String, String, String)> {
        let of = |object: &ProviderObject| condition(&object.status.as_ref()?.conditions, kind);
        let found = watched(
            Api::<ProviderObject>::all(self.world.client.clone()),
            &self.name,
            |object| object.and_then(of).as_ref().is_some_and(&wanted),
        )
        .await?;
        found.as_ref().and_then(of).context("it is gone")
    }

    /// Deletes an object as a user does.
    pub async fn delete<K>(&self, name: &str) -> anyhow::Result<()>
    where
        K: Resource<Scope = k8s_openapi::NamespaceResourceScope, DynamicType = ()> + DeserializeOwned + Clone + Debug,
    {
        self.provider.ledger(|ledger| ledger.deletions_wanted = true);
        self.api::<K>().delete(name, &DeleteParams::default()).await?;
        Ok(())
    }

    /// The events of an object: reason and note.
    pub async fn events(&self, name: &str) -> anyhow::Result<Vec<(String, String)>> {
        let events = self.api::<Event>().list(&ListParams::default()).await?;
        Ok(events
            .into_iter()
            .filter(|event| event.regarding.as_ref().and_then(|about| about.name.as_deref()) == Some(name))
            .map(|event| (event.reason.unwrap_or_default(), event.note.unwrap_or_default()))
            .collect())
    }

    /// Waits for an event of an object whose note holds this text.
    pub async fn until_event(&self, name: &str, reason: &str, text: &str) -> anyhow::Result<()> {
        let is_it = |event: &Event| {
            event.regarding.as_ref().and_then(|about| about.name.as_deref()) == Some(name)
                && event.reason.as_deref() == Some(reason)
                && event.note.as_deref().unwrap_or_default().contains(text)
        };
        let mut events = watcher(self.api::<Event>(), watcher::Config::default())
            .default_backoff()
            .applied_objects()
            .boxed();
        let found = async {
            while let Some(event) = events.try_next().await? {
                if is_it(&event) {
                    return Ok(());
                }
            }
            bail!("the watch ended")
        };
        match tokio::time::timeout(PATIENCE, found).await {
            Ok(found) => found,
            Err(_) => bail!(
                "waited in vain for an event {reason} of {name} with {text:?}; there are {:?}",
                self.events(name).await?
            ),
        }
    }

    /// The calls that came for an object, as letters.
    pub fn trace(&self, object: &str) -> String {
        self.provider.ledger(|ledger| ledger.trace(object))
    }

    /// Waits until the calls for an object are these.
    pub async fn until_trace(&self, object: &str, expected: &str) -> anyhow::Result<()> {
        let pattern = regex::Regex::new(&format!("^(?:{expected})$"))?;
        let came = |ledger: &Ledger| pattern.is_match(&ledger.trace(object));
        let what = format!("the calls {expected:?} for {object}");
        self.provider.until(PATIENCE, &what, came).await
    }

    /// Checks that the calls for an object were these.
    pub fn expect_trace(&self, object: &str, expected: &str) -> anyhow::Result<()> {
        let trace = self.trace(object);
        let pattern = regex::Regex::new(&format!("^(?:{expected})$"))?;
        ensure!(
            pattern.is_match(&trace),
            "the calls for {object} were {trace:?} and should have been {expected:?}"
        );
        Ok(())
    }

    /// How many machines exist in the cloud.
    pub fn instances(&self) -> usize {
        self.provider.ledger(|ledger| ledger.machines().count())
    }

    /// Deletes what there is, waits until it is gone, and audits the ledger: nothing left,
    /// nothing made twice, nothing done that may never be done.
    pub async fn finish(self) -> anyhow::Result<()> {
        for machine in self.api::<Machine>().list(&ListParams::default()).await? {
            if machine.metadata.deletion_timestamp.is_none() {
                self.delete::<Machine>(&machine.name_any()).await?;
            }
            self.gone::<Machine>(&machine.name_any()).await?;
        }
        if self.api::<Cluster>().get_opt(CLUSTER).await?.is_some() {
            self.delete::<Cluster>(CLUSTER).await?;
            self.gone::<Cluster>(CLUSTER).await?;
        }
        self.audit()?;
        self.leave().await
    }

    /// Whether the ledger is as it must be once all is deleted.
    pub fn audit(&self) -> anyhow::Result<()> {
        let (left, faults) = self
            .provider
            .ledger(|ledger| (format!("{:?}", ledger.resources.values()), ledger.faults()));
        ensure!(left == "[]", "this was left in the cloud: {left}");
        ensure!(faults.is_empty(), "the core did wrong: {faults:?}");
        Ok(())
    }

    /// Deletes the Provider object.
    pub async fn leave(self) -> anyhow::Result<()> {
        Api::<ProviderObject>::all(self.world.client.clone())
            .delete(&self.name, &DeleteParams::default())
            .await?;
        Ok(())
    }
}

/// Watches one object until it is as wanted.
async fn watched<K>(api: Api<K>, name: &str, wanted: impl Fn(Option<&K>) -> bool) -> anyhow::Result<Option<K>>
where
    K: Resource<DynamicType = ()> + DeserializeOwned + Clone + Debug + Send + serde::Serialize + 'static,
{
    let mut last = None;
    let mut listed = false;
    let mut events = watcher(api, watcher::Config::default().fields(&format!("metadata.name={name}")))
        .default_backoff()
        .boxed();
    let waiting = async {
        while let Some(event) = events.try_next().await? {
            match event {
                watcher::Event::Init => last = None,
                watcher::Event::InitApply(object) => last = Some(object),
                watcher::Event::InitDone => listed = true,
                watcher::Event::Apply(object) => last = Some(object),
                watcher::Event::Delete(_) => last = None,
            }
            if listed && wanted(last.as_ref()) {
                return Ok(());
            }
        }
        bail!("the watch ended")
    };
    let waited: Result<anyhow::Result<()>, _> = tokio::time::timeout(PATIENCE, waiting).await;
    match waited {
        Ok(ended) => ended.map(|()| last),
        Err(_) => bail!(
            "it is {}",
            last.map_or_else(
                || "not there".to_owned(),
                |object| serde_json::to_string(&object).unwrap_or_default()
            )
        ),
    }
}

/// How long a row may take.
pub const ROW: Duration = Duration::from_mins(4);
