//! One core, from start to end: definitions, lead, watches, workers, and an orderly
//! stop.
//!
//! Not for: the command line (`cli`, `main`).

use std::sync::Arc;
use std::time::Duration;

use anyhow::Context as _;
use jiff::Timestamp;
use k8s_openapi::api::core::v1::Namespace;
use kube::Api;
use outrigger_api::{Cluster, Machine, MachineDeployment, MachineSet, Provider};
use provider_host::{Change as HostChange, Changes, Host, HostConfig, HostMetrics};
use tokio::sync::watch;
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;

use crate::crds;
use crate::events;
use crate::execute::Writer;
use crate::index::{Index, Reconciled, StaleList};
use crate::lease::{self, Leadership};
use crate::memory::Memory;
use crate::names::{Key, Kind, Name};
use crate::observe::{Observed, Sink, observe};
use crate::operations::{Awaited, Operations, Secrets, Shared};
use crate::options::Options;
use crate::providers::endpoints;
use crate::providers::hints::{HintSources, Hints};
use crate::providers::snapshots::Snapshots;
use crate::queue::WorkQueue;
use crate::reconcile::Reconciler;
use crate::reconcile::route::{Routed, Router};
use crate::telemetry::{self, Metrics, Readiness};

/// How often the gauges are set.
const GAUGES: Duration = Duration::from_secs(1);
/// How long an orderly stop may take.
const STOP_DEADLINE: Duration = Duration::from_secs(10);
/// How often the API server is asked again at the start.
const START_RETRY: Duration = Duration::from_secs(2);

/// The core controller.
#[derive(Debug)]
pub struct Core;

impl Core {
    /// Runs until `shutdown`, or until the lead is lost, which is an error: the process
    /// is to end then, as another one acts.
    pub async fn run(client: kube::Client, options: Options, shutdown: CancellationToken) -> anyhow::Result<()> {
        Self::run_with(client, options, Arc::default(), shutdown).await
    }

    /// The same, counting in these metrics.
    pub async fn run_with(
        client: kube::Client,
        options: Options,
        metrics: Arc<Metrics>,
        shutdown: CancellationToken,
    ) -> anyhow::Result<()> {
        // Everything that is started here ends with this token.
        let stop = shutdown.child_token();
        let _guard = stop.clone().drop_guard();
        let readiness = Readiness::default();
        let mut tasks = JoinSet::new();
        if let Some(address) = options.metrics_listen {
            let listener = telemetry::bind(address)
                .await
                .with_context(|| format!("failed to listen on {address} for metrics; give another --metrics-listen"))?;
            let served = telemetry::serve(listener, Arc::clone(&metrics), readiness.clone(), stop.clone());
            tasks.spawn(async move {
                if let Err(error) = served.await {
                    tracing::warn!(%error, "metrics are not served any more");
                }
            });
        }
        let started = tokio::select! {
            () = shutdown.cancelled() => return Ok(()),
            started = prepare(&client, &options, &metrics) => started,
        };
        let management_cluster_id = started?;

        // The lease outlives the workers, so that nobody else begins before they have ended.
        let election_stop = CancellationToken::new();
        let _election_guard = election_stop.clone().drop_guard();
        let (leadership, mut election) = match options.lease.clone() {
            Some(settings) => {
                let (leadership, election) =
                    lease::elect(client.clone(), settings, Arc::clone(&metrics), election_stop.clone());
                (leadership, Some(tokio::spawn(election)))
            }
            None => (Leadership::without_election(), None),
        };
        let setup = Setup {
            client,
            options,
            metrics,
            shutdown: shutdown.clone(),
            stop: stop.clone(),
            leadership: leadership.clone(),
            readiness,
            management_cluster_id,
        };
        let result = setup.lead(&mut tasks).await;
        stop.cancel();
        election_stop.cancel();
        let stopped = async {
            while tasks.join_next().await.is_some() {}
            if let Some(election) = &mut election {
                let _ = election.await;
            }
        };
        if tokio::time::timeout(STOP_DEADLINE, stopped).await.is_err() {
            tracing::warn!("some tasks did not end in time");
        }
        result
    }
}

/// Applies or waits for the definitions, and finds out which cluster this is.
async fn prepare(client: &kube::Client, options: &Options, metrics: &Metrics) -> anyhow::Result<String> {
    if options.install_crds {
        let mut said = false;
        while let Err(error) = crds::install(client, metrics).await {
            let answered = error
                .chain()
                .any(|cause| matches!(cause.downcast_ref(), Some(kube::Error::Api(status)) if status.code < 500));
            if answered {
                return Err(error);
            }
            if !said {
                tracing::warn!(
                    error = format!("{error:#}"),
                    "the API server is asked again until it answers"
                );
                said = true;
            }
            tokio::time::sleep(START_RETRY).await;
        }
    }
    crds::wait_until_served(client).await;
    let namespaces: Api<Namespace> = Api::all(client.clone());
    let mut said = false;
    loop {
        match namespaces.get("kube-system").await {
            Ok(namespace) => {
                return namespace
                    .metadata
                    .uid
                    .context("the namespace kube-system has no UID; is this a Kubernetes API server?");
            }
            Err(kube::Error::Api(status)) if status.code == 403 => {
                anyhow::bail!(
                    "the namespace kube-system may not be read, whose UID names this management cluster; allow the core \
                     controller to get it: {}",
                    status.message
                );
            }
            Err(error) => {
                if !said {
                    tracing::warn!(%error, "waiting for the namespace kube-system, whose UID names this management cluster");
                    said = true;
                }
                tokio::time::sleep(START_RETRY).await;
            }
        }
    }
}

struct Setup {
    client: kube::Client,
    options: Options,
    metrics: Arc<Metrics>,
    shutdown: CancellationToken,
    stop: CancellationToken,
    leadership: Leadership,
    readiness: Readiness,
    management_cluster_id: String,
}

impl Setup {
    /// Watches, waits for the lead, works until the end.
    async fn lead(self, tasks: &mut JoinSet<()>) -> anyhow::Result<()> {
        let index = Arc::new(Index::default());
        let queue: WorkQueue<Key> = WorkQueue::new();
        let memory = Arc::new(Memory::default());
        let router = Router::new(Arc::clone(&index), queue.clone(), Arc::clone(&memory));
        let host_metrics = HostMetrics::default();
        self.metrics.register_host(&host_metrics);
        let host = Host::new(HostConfig {
            metrics: host_metrics,
            times: self.options.host_times,
            peer_uids: self.options.peer_uids.clone(),
            ..HostConfig::default()
        });
        endpoints::set_flags(&host, &self.options.providers)?;
        if let Some(folder) = &self.options.socket_dir {
            host.watch_socket_folder(folder);
        }
        let changes = host.subscribe();

        let (synced, mut all_synced) = watch::channel(0u8);
        let watcher = Watcher {
            client: &self.client,
            index: &index,
            router: &router,
            metrics: &self.metrics,
            synced: &synced,
            stop: &self.stop,
        };
        watcher.watch::<Provider>(tasks);
        watcher.watch::<Cluster>(tasks);
        watcher.watch::<MachineDeployment>(tasks);
        watcher.watch::<MachineSet>(tasks);
        watcher.watch::<Machine>(tasks);
        tokio::select! {
            () = self.shutdown.cancelled() => return Ok(()),
            result = all_synced.wait_for(|count| usize::from(*count) == Kind::ALL.len()) => {
                result.context("the watches have ended")?;
            }
        }
        self.readiness.set_ready();
        tracing::info!(machines = index.machines.read().len(), "the watches are in sync");

        let claim = tokio::select! {
            () = self.shutdown.cancelled() => return Ok(()),
            claim = self.leadership.acquired() => claim?,
        };
        self.metrics.set_leading(true);
        let (recorder, writing) = events::recorder(
            self.client.clone(),
            self.options.identity.clone(),
            self.options.events_per_second,
            Arc::clone(&self.metrics),
            self.stop.clone(),
        );
        tasks.spawn(writing);
        let secrets = Arc::new(Secrets::new(self.client.clone()));
        let awaited = Arc::new(Awaited::default());
        tasks.spawn(until_stopped(
            self.stop.clone(),
            Arc::clone(&awaited).watch(self.client.clone(), Arc::clone(&secrets), router.clone()),
        ));
        let operations = Operations::new(Shared {
            awaited,
            host: host.clone(),
            index: Arc::clone(&index),
            memory: Arc::clone(&memory),
            router: router.clone(),
            leadership: self.leadership.clone(),
            metrics: Arc::clone(&self.metrics),
            secrets: Arc::clone(&secrets),
            management_cluster_id: self.management_cluster_id.clone(),
            credentials_lifetime: self.options.credentials_lifetime,
            shutdown: self.stop.clone(),
        });
        let hints = Arc::new(Hints::new(HintSources {
            host: host.clone(),
            index: Arc::clone(&index),
            memory: Arc::clone(&memory),
            router: router.clone(),
            secrets: Arc::clone(&secrets),
            management_cluster_id: self.management_cluster_id.clone(),
        }));
        let writer = Writer::new(
            self.client.clone(),
            self.leadership.clone(),
            Arc::clone(&self.metrics),
            Arc::clone(&index),
            router.clone(),
            self.options.api_concurrency,
        );
        let reconciler = Arc::new(Reconciler {
            index,
            queue: queue.clone(),
            router: router.clone(),
            writer,
            operations: operations.clone(),
            memory,
            recorder,
            host,
            snapshots: Arc::new(Snapshots::default()),
            hints,
            secrets,
            leadership: self.leadership.clone(),
            metrics: Arc::clone(&self.metrics),
            claim,
            leading_since: Timestamp::now(),
            options: self.options,
        });
        // Providers first: all else asks for them.
        reconciler.add_providers();
        router.add_everything();
        tasks.spawn(follow_host(Arc::clone(&reconciler), changes, self.stop.clone()));
        tasks.spawn(keep_time(Arc::clone(&reconciler), self.stop.clone()));

        let mut workers = JoinSet::new();
        for _ in 0..reconciler.options.workers.max(1) {
            let reconciler = Arc::clone(&reconciler);
            workers.spawn(async move { reconciler.work().await });
        }
        let result = tokio::select! {
            () = self.shutdown.cancelled() => Ok(()),
            lost = self.leadership.lost() => Err(anyhow::Error::from(lost)),
            _ = workers.join_next() => Err(anyhow::anyhow!("a worker ended before its time; this is a defect")),
        };
        if result.is_ok() {
            tracing::info!("stopping");
        }
        queue.close();
        self.stop.cancel();
        let ended = async {
            while let Some(joined) = workers.join_next().await {
                if let Err(error) = joined {
                    tracing::error!(%error, "a worker ended badly");
                }
            }
            operations.finish().await;
        };
        if tokio::time::timeout(STOP_DEADLINE, ended).await.is_err() {
            tracing::warn!("some work did not end in time");
        }
        self.metrics.set_leading(false);
        result
    }
}

struct Watcher<'a> {
    client: &'a kube::Client,
    index: &'a Arc<Index>,
    router: &'a Router,
    metrics: &'a Arc<Metrics>,
    synced: &'a watch::Sender<u8>,
    stop: &'a CancellationToken,
}

impl Watcher<'_> {
    fn watch<K: Reconciled + Routed>(&self, tasks: &mut JoinSet<()>) {
        let sink = TableSink {
            index: Arc::clone(self.index),
            router: self.router.clone(),
            metrics: Arc::clone(self.metrics),
            synced: Some(self.synced.clone()),
        };
        let api = Api::<K>::all(self.client.clone());
        tasks.spawn(observe(api, K::KIND.as_str(), sink, self.stop.clone()));
    }
}

/// Folds what a watch tells into the table of its kind, and routes the changes.
struct TableSink {
    index: Arc<Index>,
    router: Router,
    metrics: Arc<Metrics>,
    synced: Option<watch::Sender<u8>>,
}

impl<K: Reconciled + Routed> Sink<K> for TableSink {
    fn take(&mut self, observed: Observed<K>) -> Result<(), StaleList> {
        let table = K::table(&self.index);
        let changes = match observed {
            Observed::Applied(object, added) => table.write().observe(object, added).into_iter().collect(),
            Observed::Deleted(object) => table.write().observe_deleted(&object).into_iter().collect(),
            Observed::Bookmark(version) => {
                table.write().observe_bookmark(version);
                Vec::new()
            }
            Observed::StorageReset => {
                table.write().accept_any_list();
                Vec::new()
            }
            Observed::Listed(objects, version) => {
                let changes = table.write().replace(objects, version)?;
                self.metrics.count_relist(K::KIND.as_str());
                if let Some(synced) = self.synced.take() {
                    synced.send_modify(|count| *count += 1);
                }
                changes
            }
        };
        for change in changes {
            self.router.changed(&change);
        }
        Ok(())
    }
}

async fn until_stopped(stop: CancellationToken, task: impl Future<Output = ()>) {
    tokio::select! {
        () = stop.cancelled() => {}
        () = task => {}
    }
}

/// Has providers looked at when the host tells of a change.
async fn follow_host(reconciler: Arc<Reconciler>, mut changes: Changes, stop: CancellationToken) {
    loop {
        let change = tokio::select! {
            () = stop.cancelled() => return,
            change = changes.next() => change,
        };
        match change {
            Some(HostChange::Provider(name)) => {
                reconciler.router.add(Kind::Provider, Name::new("", &name));
            }
            Some(HostChange::All) => reconciler.add_providers(),
            None => return,
        }
    }
}

/// Sets the gauges, and has everything looked at again once in a while.
async fn keep_time(reconciler: Arc<Reconciler>, stop: CancellationToken) {
    let mut gauges = tokio::time::interval(GAUGES);
    gauges.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
    let mut resync = tokio::time::interval(reconciler.options.resync.max(Duration::from_secs(1)));
    resync.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
    resync.reset();
    loop {
        tokio::select! {
            () = stop.cancelled() => return,
            _ = gauges.tick() => {
                let (queue, metrics, index) = (&reconciler.queue, &reconciler.metrics, &reconciler.index);
                metrics.set_queue(queue.ready(), queue.working(), queue.waiting());
                metrics.set_objects(Kind::Provider.as_str(), index.providers.read().len());
                metrics.set_objects(Kind::Cluster.as_str(), index.clusters.read().len());
                metrics.set_objects(Kind::MachineDeployment.as_str(), index.deployments.read().len());
                metrics.set_objects(Kind::MachineSet.as_str(), index.sets.read().len());
                metrics.set_objects(Kind::Machine.as_str(), index.machines.read().len());
            }
            _ = resync.tick() => {
                tracing::debug!("everything is looked at again");
                let index = &reconciler.index;
                reconciler.memory.keep_only(|uid| {
                    index.machines.read().get_by_uid(uid).is_some() || index.clusters.read().get_by_uid(uid).is_some()
                });
                reconciler.add_providers();
                reconciler.router.add_everything();
            }
        }
    }
}
