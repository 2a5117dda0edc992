//! Streams of hints about machines, one per provider, credentials and config, where the
//! provider offers them. A hint is folded into what is known of a machine, and the
//! machine is planned again; nothing is ever decided on a hint alone.
//!
//! Not for: finding orphans.

use std::sync::Arc;

use actuator_proto::v1;
use fnv::{FnvHashMap, FnvHashSet};
use jiff::Timestamp;
use outrigger_planner::request::{self, CredentialsSource};
use parking_lot::Mutex;
use provider_host::{CredentialId, Host, MachineHint};
use tokio_util::task::AbortOnDropHandle;

use crate::index::{Index, IndexKey};
use crate::memory::Memory;
use crate::names::{Kind, Name};
use crate::operations::Secrets;
use crate::reconcile::route::Router;

/// The most streams that are open; clusters beyond that are polled.
const MAX_STREAMS: usize = 256;

/// Which stream.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
struct StreamKey {
    provider: String,
    /// Namespace and name of the Secret; nothing where the provider has its own.
    secret: Option<(String, String)>,
    config: Vec<u8>,
}

#[derive(Debug)]
struct Stream {
    synced: bool,
    _task: AbortOnDropHandle<()>,
}

/// What the streams need.
pub struct HintSources {
    /// The providers.
    pub host: Host,
    /// The objects.
    pub index: Arc<Index>,
    /// Where hints go.
    pub memory: Arc<Memory>,
    /// Where the machines go that are to be planned again.
    pub router: Router,
    /// Credentials.
    pub secrets: Arc<Secrets>,
    /// The UID of the management cluster's `kube-system` namespace.
    pub management_cluster_id: String,
}

/// Keeps the streams.
pub struct Hints {
    sources: Arc<HintSources>,
    streams: Arc<Mutex<FnvHashMap<StreamKey, Stream>>>,
}

impl std::fmt::Debug for Hints {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Hints")
            .field("streams", &self.streams.lock().len())
            .finish_non_exhaustive()
    }
}

impl Hints {
    /// No stream is open yet.
    pub fn new(sources: HintSources) -> Self {
        Self {
            sources: Arc::new(sources),
            streams: Arc::default(),
        }
    }

    /// Whether hints arrive for all machines of the provider: there are streams for all
    /// its clusters, and their snapshots are complete.
    pub fn is_watching(&self, provider: &str) -> bool {
        let wanted = self.wanted(provider);
        let streams = self.streams.lock();
        !wanted.is_empty()
            && wanted
                .keys()
                .all(|key| streams.get(key).is_some_and(|stream| stream.synced))
    }

    /// Opens the streams that a provider's clusters need and closes the others.
    pub fn update(&self, provider: &str) {
        let offered = self
            .sources
            .host
            .snapshot(provider)
            .and_then(|snapshot| snapshot.info)
            .is_some_and(|info| info.capabilities.watch_machines);
        let wanted = if offered {
            self.wanted(provider)
        } else {
            FnvHashMap::default()
        };
        let mut streams = self.streams.lock();
        streams.retain(|key, _| key.provider != provider || wanted.contains_key(key));
        for (key, config) in wanted {
            if streams.len() >= MAX_STREAMS || streams.contains_key(&key) {
                continue;
            }
            let task = tokio::spawn(follow(
                Arc::clone(&self.sources),
                Arc::clone(&self.streams),
                key.clone(),
                config,
            ));
            streams.insert(
                key,
                Stream {
                    synced: false,
                    _task: AbortOnDropHandle::new(task),
                },
            );
        }
    }

    fn wanted(&self, provider: &str) -> FnvHashMap<StreamKey, v1::OpaqueConfig> {
        let clusters = self
            .sources
            .index
            .clusters
            .read()
            .find(&IndexKey::Provider(provider.into()));
        let mut wanted = FnvHashMap::default();
        for cluster in clusters {
            let Ok(config) = request::opaque_config(&cluster.spec.provider_spec) else {
                continue;
            };
            let namespace = cluster.metadata.namespace.clone().unwrap_or_default();
            let secret = match request::cluster_credentials(&cluster) {
                CredentialsSource::Secret(name) => Some((namespace, name)),
                CredentialsSource::Ambient => None,
                CredentialsSource::Unknown => continue,
            };
            let key = StreamKey {
                provider: provider.to_owned(),
                secret,
                config: request::config_digest(&config),
            };
            wanted.insert(key, config);
        }
        wanted
    }
}

/// Follows one stream until it is dropped.
async fn follow(
    sources: Arc<HintSources>,
    streams: Arc<Mutex<FnvHashMap<StreamKey, Stream>>>,
    key: StreamKey,
    config: v1::OpaqueConfig,
) {
    const PAUSE: std::time::Duration = std::time::Duration::from_secs(15);
    loop {
        let credentials = match &key.secret {
            None => Some((CredentialId::ambient(), None)),
            Some((namespace, name)) => {
                // A missing Secret is told by the operations that need it.
                let read = sources
                    .secrets
                    .read("credentials", namespace, name, std::time::Duration::from_secs(30))
                    .await;
                read.ok().map(|secret| {
                    (
                        CredentialId::new(format!("{namespace}/{name}")),
                        Some(secret.entries.clone()),
                    )
                })
            }
        };
        let stream = credentials.and_then(|(id, entries)| {
            let message = v1::WatchMachinesRequest {
                management_cluster_id: sources.management_cluster_id.clone(),
                resume_token: String::new(),
                credentials: Some(request::credentials(entries)),
                config: Some(config.clone()),
            };
            sources.host.provider(&key.provider)?.watch_machines(&id, message)
        });
        if let Some(mut stream) = stream {
            // What the snapshot lists; what it does not list is gone.
            let mut listed: Option<FnvHashSet<String>> = Some(FnvHashSet::default());
            while let Some(hint) = stream.next().await {
                match hint {
                    MachineHint::Restarted => {
                        listed = Some(FnvHashSet::default());
                        set_synced(&sources, &streams, &key, false);
                    }
                    MachineHint::Present(machine) => {
                        let uid = machine
                            .ownership
                            .map(|ownership| ownership.object_uid)
                            .unwrap_or_default();
                        if let Some(status) = machine.status {
                            present(&sources, &uid, status);
                        }
                        if let Some(listed) = &mut listed {
                            listed.insert(uid);
                        }
                    }
                    MachineHint::Gone(machine) => {
                        let uid = machine
                            .ownership
                            .map(|ownership| ownership.object_uid)
                            .unwrap_or_default();
                        gone(&sources, &uid);
                    }
                    MachineHint::Synced => {
                        if let Some(listed) = listed.take() {
                            unlisted(&sources, &key, &listed);
                        }
                        set_synced(&sources, &streams, &key, true);
                    }
                    MachineHint::Bookmark => {}
                }
            }
        }
        set_synced(&sources, &streams, &key, false);
        tokio::time::sleep(PAUSE).await;
    }
}

fn set_synced(sources: &HintSources, streams: &Mutex<FnvHashMap<StreamKey, Stream>>, key: &StreamKey, synced: bool) {
    let changed = streams
        .lock()
        .get_mut(key)
        .is_some_and(|stream| std::mem::replace(&mut stream.synced, synced) != synced);
    if changed {
        sources.router.add(Kind::Provider, Name::new("", &key.provider));
    }
}

fn present(sources: &HintSources, uid: &str, status: v1::MachineStatus) {
    let known = sources
        .memory
        .known_machine(uid, |observation| observation.hint_present(status, Timestamp::now()));
    if known.is_some() {
        plan_again(sources, uid);
    }
}

fn gone(sources: &HintSources, uid: &str) {
    if sources
        .memory
        .known_machine(uid, outrigger_planner::machine::Observation::hint_gone)
        .is_some()
    {
        plan_again(sources, uid);
    }
}

/// Machines with a provider ID that a complete snapshot does not list: somebody should
/// look. Only those of clusters that use this very stream.
fn unlisted(sources: &HintSources, key: &StreamKey, listed: &FnvHashSet<String>) {
    let clusters = sources
        .index
        .clusters
        .read()
        .find(&IndexKey::Provider(key.provider.as_str().into()));
    for cluster in clusters {
        let namespace = cluster.metadata.namespace.clone().unwrap_or_default();
        let same_secret = match (&key.secret, request::cluster_credentials(&cluster)) {
            (None, CredentialsSource::Ambient) => true,
            (Some((own, secret)), CredentialsSource::Secret(name)) => *own == namespace && *secret == name,
            _ => false,
        };
        let same_config = request::opaque_config(&cluster.spec.provider_spec)
            .is_ok_and(|config| request::config_digest(&config) == key.config);
        if !same_secret || !same_config {
            continue;
        }
        let machines = sources
            .index
            .machines
            .read()
            .find(&IndexKey::Cluster(Name::of(&*cluster)));
        for machine in machines {
            let other = machine
                .spec
                .provider
                .as_ref()
                .is_some_and(|provider| *provider != key.provider);
            if let Some(uid) = &machine.metadata.uid
                && machine.spec.provider_id.is_some()
                && !other
                && !listed.contains(uid)
            {
                gone(sources, uid);
            }
        }
    }
}

fn plan_again(sources: &HintSources, uid: &str) {
    let name = sources
        .index
        .machines
        .read()
        .get_by_uid(uid)
        .map(|machine| Name::of(&*machine));
    if let Some(name) = name {
        sources.router.add(Kind::Machine, name);
    }
}
