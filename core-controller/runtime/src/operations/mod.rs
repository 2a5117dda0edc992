//! Calls to providers, off the reconcile workers: queued per provider and kind of call,
//! made with what the API server has at that moment, their outcome recorded as an
//! observation, and the object planned again.
//!
//! Not for: deciding which call to make, or interpreting errors.

mod awaited;
mod failure;
mod lanes;
mod secrets;

use std::sync::Arc;
use std::time::Duration;

use actuator_proto::v1;
use jiff::Timestamp;
use outrigger_api::{Cluster, Machine};
use outrigger_planner::operation::{Call, Failure, Operation, OperationResult, Outcome};
use outrigger_planner::request::{self, CredentialsSource};
use outrigger_planner::validation::{self, Verdict};
use outrigger_planner::{cluster, machine};
use provider_host::{CallError, CredentialId, Host, Lane, ProviderHandle};
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

pub use awaited::Awaited;
pub use secrets::{SecretData, Secrets};

use crate::index::Index;
use crate::lease::Leadership;
use crate::memory::{Memory, Place};
use crate::names::{Key, Kind, Name};
use crate::reconcile::route::Router;
use crate::telemetry::Metrics;
use failure::failure;
use lanes::{LaneKey, Lanes};

/// How long bootstrap data is kept: the machines of a set may share it.
const BOOTSTRAP_LIFETIME: Duration = Duration::from_secs(5);
/// How many mutations run for a provider that names no limit.
const MUTATIONS: u32 = 32;
/// How many reads run for a provider.
const READS: usize = 48;
/// How many validations run for a provider.
const VALIDATIONS: usize = 4;

/// What operations need.
pub struct Shared {
    /// The providers.
    pub host: Host,
    /// The objects.
    pub index: Arc<Index>,
    /// Where what was learned goes.
    pub memory: Arc<Memory>,
    /// Where the objects go that are to be planned again.
    pub router: Router,
    /// Whether calls may be made.
    pub leadership: Leadership,
    /// What is counted.
    pub metrics: Arc<Metrics>,
    /// Credentials and bootstrap data.
    pub secrets: Arc<Secrets>,
    /// Secrets that somebody waits for.
    pub awaited: Arc<Awaited>,
    /// The UID of the management cluster's `kube-system` namespace.
    pub management_cluster_id: String,
    /// How long credentials are used before they are read again.
    pub credentials_lifetime: Duration,
    /// Ends the process's work.
    pub shutdown: CancellationToken,
}

impl std::fmt::Debug for Shared {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Shared").finish_non_exhaustive()
    }
}

/// Which object an operation is for.
#[derive(Debug, Clone)]
struct Target {
    kind: Kind,
    name: Name,
    uid: String,
}

#[derive(Debug)]
struct Job {
    target: Target,
    operation: Operation,
    verdict: Option<validation::Key>,
}

/// Makes calls. Clones share everything.
#[derive(Debug, Clone)]
pub struct Operations {
    shared: Arc<Shared>,
    lanes: Arc<Lanes<Job>>,
    tasks: TaskTracker,
}

/// What came back for either kind of object.
enum Returned {
    Machine(Result<machine::Answer, Failure>),
    Cluster(Result<cluster::Answer, Failure>),
}

impl Operations {
    /// Nothing runs yet.
    pub fn new(shared: Shared) -> Self {
        Self {
            shared: Arc::new(shared),
            lanes: Arc::default(),
            tasks: TaskTracker::new(),
        }
    }

    /// Starts an operation for a machine. `verdict` names the config for Validate.
    pub fn start_machine(
        &self,
        provider: &str,
        machine: &Machine,
        operation: Operation,
        verdict: Option<validation::Key>,
    ) {
        let target = Target {
            kind: Kind::Machine,
            name: Name::of(machine),
            uid: machine.metadata.uid.clone().unwrap_or_default(),
        };
        if !self.begin(&operation, verdict.as_ref()) {
            return;
        }
        self.shared.memory.machine(&target.uid, |observation| {
            observation.started(operation.clone(), Timestamp::now());
        });
        self.enter(provider, target, operation, verdict);
    }

    /// Starts an operation for a cluster. `verdict` names the config for Validate.
    pub fn start_cluster(
        &self,
        provider: &str,
        cluster: &Cluster,
        operation: Operation,
        verdict: Option<validation::Key>,
    ) {
        let target = Target {
            kind: Kind::Cluster,
            name: Name::of(cluster),
            uid: cluster.metadata.uid.clone().unwrap_or_default(),
        };
        if !self.begin(&operation, verdict.as_ref()) {
            return;
        }
        self.shared.memory.cluster(&target.uid, |observation| {
            observation.started(operation.clone(), Timestamp::now());
        });
        self.enter(provider, target, operation, verdict);
    }

    /// The object is gone: it waits for nothing any more.
    pub fn forget(&self, key: &Key) {
        self.shared.awaited.done(key);
    }

    /// Waits until no call is under way any more; to be called after `shutdown`.
    pub async fn finish(&self) {
        self.tasks.close();
        self.tasks.wait().await;
    }

    /// What stands for the Secrets of a cluster in its plans: changes when they do, while
    /// somebody waits for them.
    pub fn cluster_secrets_version(&self, cluster: &Cluster) -> String {
        let namespace = cluster.metadata.namespace.as_deref().unwrap_or_default();
        match request::cluster_credentials(cluster) {
            CredentialsSource::Secret(name) => self.shared.awaited.version(namespace, &name),
            CredentialsSource::Ambient | CredentialsSource::Unknown => String::new(),
        }
    }

    /// The same for a machine, with its bootstrap data.
    pub fn machine_secrets_version(&self, machine: &Machine, cluster: Option<&Cluster>) -> String {
        let namespace = machine.metadata.namespace.as_deref().unwrap_or_default();
        let mut version = match request::machine_credentials(machine, cluster) {
            CredentialsSource::Secret(name) => self.shared.awaited.version(namespace, &name),
            CredentialsSource::Ambient | CredentialsSource::Unknown => String::new(),
        };
        if let Some(name) = bootstrap_secret(machine) {
            let bootstrap = self.shared.awaited.version(namespace, name);
            if !bootstrap.is_empty() {
                version = format!("{version}/{bootstrap}");
            }
        }
        version
    }

    /// How many operations wait and how many run.
    pub fn count(&self) -> (usize, usize) {
        self.lanes.count()
    }

    /// Of all who need a verdict on the same config, the first asks.
    fn begin(&self, operation: &Operation, verdict: Option<&validation::Key>) -> bool {
        match (&operation.call, verdict) {
            (Call::Validate, Some(key)) => self.shared.memory.verdicts(|verdicts| verdicts.begin(key)),
            _ => true,
        }
    }

    fn enter(&self, provider: &str, target: Target, operation: Operation, verdict: Option<validation::Key>) {
        let key = LaneKey {
            provider: provider.into(),
            lane: match &operation.call {
                Call::Validate => Lane::Identity,
                Call::Exists => Lane::Read,
                Call::Create { .. } => Lane::Create,
                Call::Update | Call::SetEndpointMembers(_) => Lane::Update,
                Call::Delete => Lane::Delete,
            },
        };
        let job = Job {
            target,
            operation,
            verdict,
        };
        self.shared.metrics.add_operations(1);
        if let Some(job) = self.lanes.enter(&key, job, self.places(&key)) {
            self.spawn(key, job);
        }
    }

    /// How many calls are handed to the host at a time: as many as it would run, so that
    /// none waits there for long.
    fn places(&self, key: &LaneKey) -> usize {
        match key.lane {
            Lane::Identity => VALIDATIONS,
            Lane::Read | Lane::List => READS,
            Lane::Create | Lane::Update | Lane::Delete => {
                let told = self
                    .shared
                    .host
                    .snapshot(&key.provider)
                    .and_then(|snapshot| snapshot.info.as_ref()?.limits.max_concurrent_mutations);
                let all = told.unwrap_or(MUTATIONS).clamp(1, 4096) as usize;
                // A lane never takes all places.
                if all > 1 { all - (all / 4).max(1) } else { 1 }
            }
        }
    }

    fn spawn(&self, key: LaneKey, job: Job) {
        let operations = self.clone();
        self.tasks.spawn(async move {
            let target = job.target.clone();
            let validated = job.verdict.is_some();
            let shutdown = operations.shared.shutdown.clone();
            tokio::select! {
                // A call that was sent goes on in the provider; what became of it is asked
                // for after the restart.
                () = shutdown.cancelled() => return,
                () = operations.run(&key.provider, job) => {}
            }
            operations.shared.metrics.add_operations(-1);
            if validated {
                // Everybody with the same config has waited for the answer.
                operations.shared.router.add_members_of_provider(&key.provider);
            }
            operations.shared.router.add(target.kind, target.name);
            for next in operations.lanes.leave(&key, operations.places(&key)) {
                operations.spawn(key.clone(), next);
            }
        });
    }

    async fn run(&self, provider: &Arc<str>, job: Job) {
        let started = Timestamp::now();
        let returned = match job.target.kind {
            Kind::Cluster => Returned::Cluster(self.call_cluster(provider, &job).await),
            _ => Returned::Machine(self.call_machine(provider, &job).await),
        };
        let now = Timestamp::now();
        let Job {
            target, mut operation, ..
        } = job;
        let memory = &self.shared.memory;
        let failed = match &returned {
            Returned::Machine(Err(failure)) | Returned::Cluster(Err(failure)) => Some(failure),
            Returned::Machine(Ok(_)) | Returned::Cluster(Ok(_)) => None,
        };
        match failed {
            Some(failure) => {
                self.await_secrets(&target, failure);
                // The version that the call was made with is known only now. Were it left
                // out, a hold would end at once, as if the Secret had changed.
                if operation.basis.credentials.is_empty() {
                    operation.basis.credentials = self.secrets_version(&target);
                }
            }
            None => self.shared.awaited.done(&Key::new(target.kind, target.name.clone())),
        }
        if let Some(failure) = failed {
            tracing::debug!(
                kind = target.kind.as_str(), name = %target.name, call = operation.call.name(),
                reason = failure.reason, message = failure.message, "a call to the provider failed"
            );
        } else {
            tracing::debug!(
                kind = target.kind.as_str(), name = %target.name, call = operation.call.name(),
                "a call to the provider was answered"
            );
        }
        match returned {
            Returned::Machine(result) => memory.known_machine(&target.uid, |observation| {
                observation.observe(
                    OperationResult {
                        operation,
                        started,
                        result,
                    },
                    now,
                );
            }),
            Returned::Cluster(result) => memory.known_cluster(&target.uid, |observation| {
                observation.observe(
                    OperationResult {
                        operation,
                        started,
                        result,
                    },
                    now,
                );
            }),
        };
    }

    /// What stands for the Secrets of an object in its plans.
    fn secrets_version(&self, target: &Target) -> String {
        let index = &self.shared.index;
        match target.kind {
            Kind::Cluster => {
                let cluster = index.clusters.read().get(&target.name);
                cluster.map(|cluster| self.cluster_secrets_version(&cluster))
            }
            _ => {
                let machine = index.machines.read().get(&target.name);
                machine.map(|machine| {
                    let cluster = Name::new(&target.name.namespace, &machine.spec.cluster_name);
                    let cluster = index.clusters.read().get(&cluster);
                    self.machine_secrets_version(&machine, cluster.as_deref())
                })
            }
        }
        .unwrap_or_default()
    }

    /// Where a Secret may be what is wrong, a change of it ends the wait.
    fn await_secrets(&self, target: &Target, failure: &Failure) {
        let wrong = matches!(
            failure.outcome,
            Outcome::NotSent { .. } | Outcome::Hold { .. } | Outcome::RefreshCredentials
        );
        if !wrong {
            return;
        }
        let namespace = &*target.name.namespace;
        let mut names = Vec::new();
        match target.kind {
            Kind::Cluster => {
                let cluster = self.shared.index.clusters.read().get(&target.name);
                if let Some(CredentialsSource::Secret(name)) = cluster.as_deref().map(request::cluster_credentials) {
                    names.push(name);
                }
            }
            _ => {
                if let Some(machine) = self.shared.index.machines.read().get(&target.name) {
                    let cluster = Name::new(namespace, &machine.spec.cluster_name);
                    let cluster = self.shared.index.clusters.read().get(&cluster);
                    if let CredentialsSource::Secret(name) = request::machine_credentials(&machine, cluster.as_deref())
                    {
                        names.push(name);
                    }
                    names.extend(bootstrap_secret(&machine).map(str::to_owned));
                }
            }
        }
        for name in names {
            let version = self.shared.secrets.version(namespace, &name);
            let who = Key::new(target.kind, target.name.clone());
            self.shared.awaited.wait(namespace, &name, &version, who);
        }
    }

    async fn call_machine(&self, provider: &Arc<str>, job: &Job) -> Result<machine::Answer, Failure> {
        let shared = &self.shared;
        let table = shared.index.machines.read().get_by_uid(&job.target.uid);
        let machine = table.ok_or_else(|| moved_on("the Machine is gone"))?;
        self.check(job, machine.metadata.generation)?;
        let namespace = machine.metadata.namespace.clone().unwrap_or_default();
        let cluster = shared
            .index
            .clusters
            .read()
            .get(&Name::new(&namespace, &machine.spec.cluster_name));
        let cluster = cluster.as_deref();
        let handle = self.handle(provider, job)?;
        let validates = job.operation.call == Call::Validate;
        // A static validation reaches no cloud.
        let source = if validates {
            CredentialsSource::Ambient
        } else {
            request::machine_credentials(&machine, cluster)
        };
        let (credential, credentials) = self.credentials(&namespace, &source).await?;
        let bootstrap = match (&job.operation.call, bootstrap_secret(&machine)) {
            (Call::Create { .. }, Some(name)) => Some(self.bootstrap(&namespace, name).await?),
            _ => None,
        };
        let (attempt, state) = shared
            .memory
            .known_machine(&job.target.uid, |observation| {
                (observation.next_attempt(), observation.provider_state().to_vec())
            })
            .unwrap_or((1, Vec::new()));
        let claim = self.claim()?;
        let context = request::Context {
            management_cluster_id: &shared.management_cluster_id,
            fencing_epoch: claim,
            attempt,
            provider_state: &state,
            credentials,
            bootstrap,
        };
        let message = request::machine_request(&machine, cluster, &job.operation, context)?;
        let result = match message {
            request::MachineRequest::Validate(message) => {
                return self
                    .validate(&handle, &credential, message, job)
                    .await
                    .map(|()| machine::Answer::Validated);
            }
            request::MachineRequest::Create(message) => handle
                .create_machine(&credential, message)
                .await
                .map(|answer| machine::Answer::Status(Box::new(answer.status.unwrap_or_default()))),
            request::MachineRequest::Update(message) => handle
                .update_machine(&credential, message)
                .await
                .map(|answer| machine::Answer::Status(Box::new(answer.status.unwrap_or_default()))),
            request::MachineRequest::Delete(message) => {
                handle.delete_machine(&credential, message).await.map(Into::into)
            }
            request::MachineRequest::Exists(message) => {
                handle.machine_exists(&credential, message).await.map(Into::into)
            }
        };
        let result = result.map_err(|error| self.failed(&error, attempt, &namespace, &source));
        if let (Err(failure), Call::Create { failure_domain }) = (&result, &job.operation.call)
            && let Outcome::TryElsewhere { after } = failure.outcome
        {
            let place = Place {
                provider: provider.to_string(),
                cluster: cluster
                    .and_then(|cluster| cluster.metadata.uid.clone())
                    .unwrap_or_default(),
                domain: failure_domain.clone().unwrap_or_default(),
            };
            shared.memory.exhausted(place, Timestamp::now(), after);
        }
        result
    }

    async fn call_cluster(&self, provider: &Arc<str>, job: &Job) -> Result<cluster::Answer, Failure> {
        let shared = &self.shared;
        let table = shared.index.clusters.read().get_by_uid(&job.target.uid);
        let object = table.ok_or_else(|| moved_on("the Cluster is gone"))?;
        self.check(job, object.metadata.generation)?;
        let namespace = object.metadata.namespace.clone().unwrap_or_default();
        let handle = self.handle(provider, job)?;
        let source = if job.operation.call == Call::Validate {
            CredentialsSource::Ambient
        } else {
            request::cluster_credentials(&object)
        };
        let (credential, credentials) = self.credentials(&namespace, &source).await?;
        let (attempt, state) = shared
            .memory
            .known_cluster(&job.target.uid, |observation| {
                (observation.next_attempt(), observation.provider_state().to_vec())
            })
            .unwrap_or((1, Vec::new()));
        let claim = self.claim()?;
        let context = request::Context {
            management_cluster_id: &shared.management_cluster_id,
            fencing_epoch: claim,
            attempt,
            provider_state: &state,
            credentials,
            bootstrap: None,
        };
        let message = request::cluster_request(&object, &job.operation, context)?;
        let result = match message {
            request::ClusterRequest::Validate(message) => {
                return self
                    .validate(&handle, &credential, message, job)
                    .await
                    .map(|()| cluster::Answer::Validated);
            }
            request::ClusterRequest::Create(message) => handle
                .create_cluster(&credential, message)
                .await
                .map(|answer| cluster::Answer::Status(Box::new(answer.status.unwrap_or_default()))),
            request::ClusterRequest::Update(message) => handle
                .update_cluster(&credential, message)
                .await
                .map(|answer| cluster::Answer::Status(Box::new(answer.status.unwrap_or_default()))),
            request::ClusterRequest::Delete(message) => {
                handle.delete_cluster(&credential, message).await.map(Into::into)
            }
            request::ClusterRequest::Exists(message) => {
                handle.cluster_exists(&credential, message).await.map(Into::into)
            }
            request::ClusterRequest::SetEndpointMembers(message) => {
                handle.set_endpoint_members(&credential, message).await.map(Into::into)
            }
        };
        result.map_err(|error| self.failed(&error, attempt, &namespace, &source))
    }

    /// An operation that waited while its object changed is not sent: a Create must not
    /// follow a deletion.
    fn check(&self, job: &Job, generation: Option<i64>) -> Result<(), Failure> {
        if generation.unwrap_or_default() == job.operation.basis.generation {
            return Ok(());
        }
        self.give_up_verdict(job);
        Err(moved_on("the object has changed since"))
    }

    fn handle(&self, provider: &Arc<str>, job: &Job) -> Result<ProviderHandle, Failure> {
        self.shared.host.provider(provider).ok_or_else(|| {
            self.give_up_verdict(job);
            Failure::not_sent(
                "ProviderNotFound",
                format!("there is no provider {provider}; start it, or correct spec.provider"),
            )
        })
    }

    fn claim(&self) -> Result<i64, Failure> {
        match self.shared.leadership.check() {
            Ok(claim) => Ok(claim.epoch),
            Err(error) => Err(Failure::not_sent("NotLeading", error.to_string())),
        }
    }

    fn give_up_verdict(&self, job: &Job) {
        if let Some(key) = &job.verdict {
            self.shared.memory.verdicts(|verdicts| verdicts.gave_up(key));
        }
    }

    async fn validate(
        &self,
        handle: &ProviderHandle,
        credential: &CredentialId,
        message: v1::ValidateConfigRequest,
        job: &Job,
    ) -> Result<(), Failure> {
        match handle.validate_config(credential, message).await {
            Ok(answer) => {
                if let Some(key) = &job.verdict {
                    let verdict = Verdict::from_diagnostics(&answer.diagnostics);
                    self.shared
                        .memory
                        .verdicts(|verdicts| verdicts.answered(key.clone(), verdict));
                }
                Ok(())
            }
            Err(error) => {
                self.give_up_verdict(job);
                Err(failure(&error, 1))
            }
        }
    }

    async fn credentials(
        &self,
        namespace: &str,
        source: &CredentialsSource,
    ) -> Result<(CredentialId, v1::Credentials), Failure> {
        match source {
            CredentialsSource::Ambient => Ok((CredentialId::ambient(), request::credentials(None))),
            CredentialsSource::Secret(name) => {
                let lifetime = self.shared.credentials_lifetime;
                let secret = self
                    .shared
                    .secrets
                    .read("credentials", namespace, name, lifetime)
                    .await?;
                let id = CredentialId::new(format!("{namespace}/{name}"));
                Ok((id, request::credentials(Some(secret.entries.clone()))))
            }
            CredentialsSource::Unknown => Err(Failure::not_sent(
                "CredentialsUnknown",
                "the Cluster is gone, and with it the name of the Secret with the credentials; create the Cluster again, \
                 so that the machine can be found and deleted",
            )),
        }
    }

    async fn bootstrap(&self, namespace: &str, name: &str) -> Result<v1::BootstrapData, Failure> {
        const PURPOSE: &str = "bootstrap data";
        let secret = self
            .shared
            .secrets
            .read(PURPOSE, namespace, name, BOOTSTRAP_LIFETIME)
            .await?;
        let value = secret
            .entries
            .get("value")
            .ok_or_else(|| Failure::missing_secret_entry(PURPOSE, namespace, name, "value"))?;
        let format = secret
            .entries
            .get("format")
            .map(|format| String::from_utf8_lossy(format));
        Ok(request::bootstrap(value.clone(), format.as_deref())?)
    }

    fn failed(&self, error: &CallError, attempt: i32, namespace: &str, source: &CredentialsSource) -> Failure {
        let failure = failure(error, attempt.unsigned_abs());
        if let (Outcome::RefreshCredentials, CredentialsSource::Secret(name)) = (&failure.outcome, source) {
            self.shared.secrets.forget(namespace, name);
        }
        failure
    }
}

/// The name of the Secret with a machine's bootstrap data.
fn bootstrap_secret(machine: &Machine) -> Option<&str> {
    machine.spec.bootstrap.as_ref()?.data_secret_name.as_deref()
}

fn moved_on(message: &str) -> Failure {
    Failure {
        outcome: Outcome::ReadObjectAgain,
        ..Failure::not_sent("ObjectChanged", message)
    }
}
