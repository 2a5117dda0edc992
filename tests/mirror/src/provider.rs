//! A provider that does what its script says, and what is right where the script is
//! silent.

use std::collections::VecDeque;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use actuator_proto::discovery::v1 as discovery;
use actuator_proto::v1;
use bytes::Bytes;
use futures::stream::{BoxStream, StreamExt as _};
use futures::{FutureExt as _, future};
use parking_lot::Mutex;
use prost::Message;
use tokio::net::UnixListener;
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;
use tonic::Status;

use crate::identity::{Identity, new_instance_id, plain_identity};
use crate::ledger::{Call, Came, Ledger, Resource};
use crate::wire::{self, Messages};

/// What happens to a call.
#[derive(Clone)]
pub enum Act {
    /// Nothing is done, and this is the answer.
    Refuse(Status),
    /// It is done, and this is the answer.
    Lose(Status),
    /// Nothing is done where the request, as bytes, is answered with a status; else it is
    /// done as if nothing had been said.
    Judge(Arc<dyn Fn(Bytes) -> Option<Status> + Send + Sync>),
    /// It is done, and the answer, as bytes, is changed.
    Twist(Arc<dyn Fn(Bytes) -> Bytes + Send + Sync>),
    /// Nothing is done, and the answer, as bytes, is made up.
    Invent(Bytes),
    /// Nothing is done, and there is never an answer.
    Stall,
    /// It is done, and there is never an answer.
    StallDone,
}

impl Act {
    /// Nothing is done where the request is answered with a status.
    pub fn judge<Q: Message + Default>(judge: impl Fn(Q) -> Option<Status> + Send + Sync + 'static) -> Self {
        Self::Judge(Arc::new(move |bytes| judge(Q::decode(bytes).unwrap_or_default())))
    }

    /// It is done, and the answer is changed.
    pub fn twist<A: Message + Default>(change: impl Fn(&mut A) + Send + Sync + 'static) -> Self {
        Self::Twist(Arc::new(move |bytes| {
            let mut answer = A::decode(bytes).unwrap_or_default();
            change(&mut answer);
            answer.encode_to_vec().into()
        }))
    }

    /// Nothing is done, and the answer is this one.
    pub fn invent(answer: impl Message) -> Self {
        Self::Invent(answer.encode_to_vec().into())
    }
}

/// What happens to calls of one kind.
struct Rule {
    call: Call,
    object: Option<String>,
    /// How often; `None`: until it is healed.
    times: Option<usize>,
    act: Act,
}

/// A stream of hints, made for each request.
pub type Watch = Arc<
    dyn Fn(&Ledger, v1::WatchMachinesRequest) -> BoxStream<'static, Result<v1::WatchMachinesResponse, Status>>
        + Send
        + Sync,
>;

struct State {
    ledger: Ledger,
    rules: VecDeque<Rule>,
    identity: Identity,
    watch: Option<Watch>,
    /// Whether machines and clusters are only on their way until Exists is asked.
    slow: bool,
    /// The failure domains of clusters.
    domains: Vec<String>,
    ids: usize,
}

struct Shared {
    state: Mutex<State>,
    changed: watch::Sender<usize>,
}

/// The provider; dropping it ends it.
pub struct Provider {
    shared: Arc<Shared>,
    path: PathBuf,
    serving: Mutex<Option<CancellationToken>>,
}

impl Provider {
    /// A provider of this name that will serve on a socket at `path`.
    pub fn new(name: &str, path: &Path) -> Self {
        let state = State {
            ledger: Ledger::default(),
            rules: VecDeque::new(),
            identity: plain_identity(name),
            watch: None,
            slow: false,
            domains: Vec::new(),
            ids: 0,
        };
        Self {
            shared: Arc::new(Shared {
                state: Mutex::new(state),
                changed: watch::Sender::new(0),
            }),
            path: path.to_owned(),
            serving: Mutex::new(None),
        }
    }

    /// Where it serves.
    pub fn endpoint(&self) -> String {
        format!("unix://{}", self.path.display())
    }

    /// Ends as a killed process does, and serves anew, as a new process.
    pub fn restart(&self) -> anyhow::Result<()> {
        self.stop();
        self.shared.state.lock().identity.instance_id = new_instance_id();
        self.start()
    }

    /// Ends as a killed process does. What exists stays.
    pub fn stop(&self) {
        let serving = self.serving.lock().take();
        if let Some(serving) = serving {
            serving.cancel();
        }
    }

    /// Serves.
    pub fn start(&self) -> anyhow::Result<()> {
        let _ = std::fs::remove_file(&self.path);
        let listener = UnixListener::bind(&self.path)?;
        let stop = CancellationToken::new();
        let shared = Arc::clone(&self.shared);
        let ends = stop.clone();
        tokio::spawn(async move {
            let handler: wire::Handler = Arc::new(move |path, body| answer(Arc::clone(&shared), path, body).boxed());
            loop {
                let accepted = tokio::select! {
                    accepted = listener.accept() => accepted,
                    () = ends.cancelled() => return,
                };
                if let Ok((stream, _)) = accepted {
                    tokio::spawn(wire::connection(stream, Arc::clone(&handler), ends.clone()));
                }
            }
        });
        *self.serving.lock() = Some(stop);
        Ok(())
    }

    /// Takes the socket and never accepts a connection.
    pub fn never_accept(&self) -> anyhow::Result<()> {
        let _ = std::fs::remove_file(&self.path);
        let listener = UnixListener::bind(&self.path)?;
        let stop = CancellationToken::new();
        let ends = stop.clone();
        tokio::spawn(async move {
            ends.cancelled().await;
            drop(listener);
        });
        *self.serving.lock() = Some(stop);
        Ok(())
    }

    /// From now on, this happens to each such call.
    pub fn script(&self, call: Call, act: Act) {
        self.add(call, None, None, act);
    }

    /// This happens to the next so many such calls.
    pub fn script_times(&self, call: Call, times: usize, act: Act) {
        self.add(call, None, Some(times), act);
    }

    /// From now on, this happens to each such call for the object of this name.
    pub fn script_for(&self, call: Call, object: &str, act: Act) {
        self.add(call, Some(object.to_owned()), None, act);
    }

    fn add(&self, call: Call, object: Option<String>, times: Option<usize>, act: Act) {
        self.shared.state.lock().rules.push_back(Rule {
            call,
            object,
            times,
            act,
        });
    }

    /// Forgets the script: from now on everything is right.
    pub fn heal(&self) {
        self.shared.state.lock().rules.clear();
    }

    /// Whether machines and clusters are only on their way until Exists is asked.
    pub fn set_slow(&self, slow: bool) {
        self.shared.state.lock().slow = slow;
    }

    /// The failure domains of clusters.
    pub fn set_domains(&self, domains: &[&str]) {
        self.shared.state.lock().domains = domains.iter().map(|domain| (*domain).to_owned()).collect();
    }

    /// Offers a watch.
    pub fn set_watch(&self, watch: Watch) {
        let mut state = self.shared.state.lock();
        state.watch = Some(watch);
        let capabilities = state.identity.info.capabilities.get_or_insert_default();
        capabilities.watch_machines = Some(v1::WatchMachinesCapability::default());
    }

    /// Changes what it says of itself; told on the next connection.
    pub fn identity(&self, change: impl FnOnce(&mut Identity)) {
        change(&mut self.shared.state.lock().identity);
    }

    /// Looks at, or changes, the truth.
    pub fn ledger<T>(&self, look: impl FnOnce(&mut Ledger) -> T) -> T {
        let seen = look(&mut self.shared.state.lock().ledger);
        self.shared.changed.send_modify(|count| *count += 1);
        seen
    }

    /// Waits until the ledger is as wanted; it is looked at after each call.
    pub async fn until(&self, within: Duration, what: &str, wanted: impl Fn(&Ledger) -> bool) -> anyhow::Result<()> {
        let mut changed = self.shared.changed.subscribe();
        let reached = async {
            loop {
                if wanted(&self.shared.state.lock().ledger) {
                    return;
                }
                if changed.changed().await.is_err() {
                    return future::pending().await;
                }
            }
        };
        tokio::time::timeout(within, reached)
            .await
            .map_err(|_| anyhow::anyhow!("the provider waited in vain for {what}; {:?}", self.recent()))
    }

    /// The calls of late, for the words of a failure.
    pub fn recent(&self) -> Vec<String> {
        let state = self.shared.state.lock();
        let telling = |came: &&Came| !matches!(came.call, Call::Probe | Call::Other);
        let recent: Vec<&Came> = state.ledger.came.iter().filter(telling).collect();
        let skip = recent.len().saturating_sub(40);
        recent
            .iter()
            .skip(skip)
            .map(|came| {
                format!(
                    "{:?} {}{}",
                    came.call,
                    came.object,
                    if came.scripted { " !" } else { "" }
                )
            })
            .collect()
    }
}

impl Drop for Provider {
    fn drop(&mut self) {
        self.stop();
    }
}

fn one(message: impl Message) -> Messages {
    let bytes = Bytes::from(message.encode_to_vec());
    futures::stream::iter([Ok(bytes)]).boxed()
}

async fn answer(shared: Arc<Shared>, path: String, body: Bytes) -> Result<Messages, Status> {
    let call = Call::of(&path);
    let (act, truth) = {
        let mut state = shared.state.lock();
        state.check_offered(&path);
        let object = object_of(call, body.clone());
        let act = match state.next_act(call, &object) {
            Some(Act::Judge(judge)) => judge(body.clone()).map(Act::Refuse),
            act => act,
        };
        state.ledger.note(call, &object, act.is_some());
        let done = !matches!(act, Some(Act::Refuse(_) | Act::Invent(_) | Act::Stall));
        let truth = done.then(|| state.truth(call, body));
        (act, truth)
    };
    shared.changed.send_modify(|count| *count += 1);
    let truth = truth.unwrap_or_else(|| Err(Status::internal("nothing was done")));
    match act {
        None | Some(Act::Judge(_)) => truth,
        Some(Act::Refuse(status) | Act::Lose(status)) => Err(status),
        Some(Act::Invent(bytes)) => Ok(futures::stream::iter([Ok(bytes)]).boxed()),
        Some(Act::Stall | Act::StallDone) => future::pending().await,
        Some(Act::Twist(change)) => Ok(truth?.map(move |message| message.map(|bytes| change(bytes))).boxed()),
    }
}

/// The name of the object that a call is for.
fn object_of(call: Call, body: Bytes) -> String {
    let owner = match call {
        Call::CreateCluster => decode::<v1::CreateClusterRequest>(body).ownership,
        Call::CreateMachine => decode::<v1::CreateMachineRequest>(body).ownership,
        Call::UpdateCluster => owner(decode::<v1::UpdateClusterRequest>(body).r#ref),
        Call::UpdateMachine => owner(decode::<v1::UpdateMachineRequest>(body).r#ref),
        Call::DeleteCluster => owner(decode::<v1::DeleteClusterRequest>(body).r#ref),
        Call::DeleteMachine => owner(decode::<v1::DeleteMachineRequest>(body).r#ref),
        Call::ClusterExists => owner(decode::<v1::ClusterExistsRequest>(body).r#ref),
        Call::MachineExists => owner(decode::<v1::MachineExistsRequest>(body).r#ref),
        _ => None,
    };
    owner.map(|owner| owner.object_name).unwrap_or_default()
}

fn owner(reference: Option<v1::ResourceRef>) -> Option<v1::Ownership> {
    reference?.ownership
}

fn decode<M: Message + Default>(body: Bytes) -> M {
    M::decode(body).unwrap_or_default()
}

fn key(meta: Option<v1::OperationMeta>) -> String {
    meta.map(|meta| meta.idempotency_key).unwrap_or_default()
}

fn key_of(reference: Option<v1::ResourceRef>) -> String {
    reference.map(|reference| reference.idempotency_key).unwrap_or_default()
}

fn machine_status(resource: &Resource) -> v1::MachineStatus {
    let phase = if resource.runs {
        v1::MachinePhase::Running
    } else {
        v1::MachinePhase::Provisioning
    };
    v1::MachineStatus {
        provider_id: resource.id.clone(),
        phase: phase.into(),
        addresses: vec![v1::MachineAddress {
            r#type: v1::MachineAddressType::InternalIp.into(),
            address: "10.0.0.1".to_owned(),
        }],
        observed_digest: resource.digest.clone(),
        observed_generation: resource.generation,
        ..Default::default()
    }
}

impl State {
    fn next_act(&mut self, call: Call, object: &str) -> Option<Act> {
        let index = self.rules.iter().position(|rule| {
            rule.call == call && rule.times != Some(0) && rule.object.as_deref().is_none_or(|wanted| wanted == object)
        })?;
        let rule = self.rules.get_mut(index)?;
        if let Some(times) = &mut rule.times {
            *times -= 1;
        }
        Some(rule.act.clone())
    }

    /// What is not offered may not be called.
    fn check_offered(&mut self, path: &str) {
        let capabilities = self.identity.info.capabilities.unwrap_or_default();
        let package = path
            .trim_start_matches('/')
            .rsplit_once('.')
            .map_or("", |(package, _)| package);
        let offered = match path.rsplit('/').next().unwrap_or_default() {
            "ListMachines" => capabilities.list_machines.is_some(),
            "ListClusters" => capabilities.list_clusters.is_some(),
            "WatchMachines" => capabilities.watch_machines.is_some(),
            "SetEndpointMembers" => capabilities.endpoint_members.is_some(),
            "GetConsoleOutput" => capabilities.console_output.is_some(),
            "ListMachineTypes" => capabilities.machine_types.is_some(),
            _ => true,
        };
        let spoken =
            !package.starts_with("actuator.v") || self.identity.protocols.iter().any(|(served, _)| served == package);
        if !offered || !spoken || package == "actuator.v2" {
            self.ledger
                .violations
                .push(format!("{path} was called, which was not offered to this core"));
        }
    }

    fn cluster_status(&self, resource: &Resource) -> v1::ClusterStatus {
        let phase = if resource.runs {
            v1::ClusterPhase::Ready
        } else {
            v1::ClusterPhase::Provisioning
        };
        v1::ClusterStatus {
            provider_id: resource.id.clone(),
            phase: phase.into(),
            endpoint: Some(v1::Endpoint {
                host: "10.0.0.100".to_owned(),
                port: 6443,
            }),
            failure_domains: self
                .domains
                .iter()
                .map(|name| v1::FailureDomain {
                    name: name.clone(),
                    control_plane: true,
                    ..Default::default()
                })
                .collect(),
            observed_digest: resource.digest.clone(),
            observed_generation: resource.generation,
            ..Default::default()
        }
    }

    /// Does what was asked for, and says so.
    fn truth(&mut self, call: Call, body: Bytes) -> Result<Messages, Status> {
        Ok(match call {
            Call::GetProtocols => one(discovery::GetProtocolsResponse {
                name: self.identity.name.clone(),
                version: self.identity.version.clone(),
                instance_id: self.identity.instance_id.clone(),
                protocols: self
                    .identity
                    .protocols
                    .iter()
                    .map(|(package, stability)| discovery::Protocol {
                        package: package.clone(),
                        stability: *stability,
                    })
                    .collect(),
            }),
            Call::GetInfo => {
                let info = v1::GetInfoResponse {
                    name: self.identity.name.clone(),
                    vendor_version: self.identity.version.clone(),
                    instance_id: self.identity.instance_id.clone(),
                    ..self.identity.info.clone()
                };
                let mut bytes = info.encode_to_vec();
                bytes.extend_from_slice(&self.identity.later_fields);
                futures::stream::iter([Ok(Bytes::from(bytes))]).boxed()
            }
            Call::Probe => one(self.identity.probe.clone()),
            Call::ValidateConfig => one(v1::ValidateConfigResponse::default()),
            Call::CreateCluster => {
                let request: v1::CreateClusterRequest = decode(body);
                let spec = request.spec.unwrap_or_default();
                let made = self.make(true, request.meta, request.ownership, spec.digest);
                one(v1::CreateClusterResponse {
                    status: Some(self.cluster_status(&made)),
                })
            }
            Call::CreateMachine => {
                let request: v1::CreateMachineRequest = decode(body);
                let spec = request.spec.unwrap_or_default();
                let made = self.make(false, request.meta, request.ownership, spec.digest);
                one(v1::CreateMachineResponse {
                    status: Some(machine_status(&made)),
                })
            }
            Call::UpdateCluster => {
                let request: v1::UpdateClusterRequest = decode(body);
                let changed = self.change(request.meta, request.spec.unwrap_or_default().digest)?;
                one(v1::UpdateClusterResponse {
                    status: Some(self.cluster_status(&changed)),
                })
            }
            Call::UpdateMachine => {
                let request: v1::UpdateMachineRequest = decode(body);
                let changed = self.change(request.meta, request.spec.unwrap_or_default().digest)?;
                one(v1::UpdateMachineResponse {
                    status: Some(machine_status(&changed)),
                })
            }
            Call::DeleteCluster => {
                let request: v1::DeleteClusterRequest = decode(body);
                self.ledger.resources.remove(&key(request.meta));
                one(v1::DeleteClusterResponse {
                    state: v1::DeletionState::Gone.into(),
                    ..Default::default()
                })
            }
            Call::DeleteMachine => {
                let request: v1::DeleteMachineRequest = decode(body);
                self.ledger.resources.remove(&key(request.meta));
                one(v1::DeleteMachineResponse {
                    state: v1::DeletionState::Gone.into(),
                    ..Default::default()
                })
            }
            Call::ClusterExists => {
                let found = self.find(&key_of(decode::<v1::ClusterExistsRequest>(body).r#ref));
                one(v1::ClusterExistsResponse {
                    presence: presence(found.is_some()),
                    status: found.map(|found| self.cluster_status(&found)),
                })
            }
            Call::MachineExists => {
                let found = self.find(&key_of(decode::<v1::MachineExistsRequest>(body).r#ref));
                one(v1::MachineExistsResponse {
                    presence: presence(found.is_some()),
                    status: found.map(|found| machine_status(&found)),
                })
            }
            Call::WatchMachines => match &self.watch {
                Some(watch) => watch(&self.ledger, decode(body))
                    .map(|event| event.map(|event| Bytes::from(event.encode_to_vec())))
                    .boxed(),
                None => return Err(Status::unimplemented("not offered")),
            },
            Call::SetEndpointMembers | Call::Other => return Err(Status::unimplemented("not offered")),
        })
    }

    fn make(
        &mut self,
        cluster: bool,
        meta: Option<v1::OperationMeta>,
        owner: Option<v1::Ownership>,
        digest: Vec<u8>,
    ) -> Resource {
        let meta = meta.unwrap_or_default();
        self.ids += 1;
        let wanted = Resource {
            cluster,
            id: format!("mirror:///{}/{}", self.identity.name, self.ids),
            owner: owner.unwrap_or_default(),
            digest,
            generation: meta.generation,
            runs: !self.slow,
            changed: false,
        };
        self.ledger.make(&meta.idempotency_key, wanted)
    }

    fn change(&mut self, meta: Option<v1::OperationMeta>, digest: Vec<u8>) -> Result<Resource, Status> {
        let meta = meta.unwrap_or_default();
        let Some(resource) = self.ledger.resources.get_mut(&meta.idempotency_key) else {
            return Err(crate::statuses::error(
                tonic::Code::NotFound,
                v1::ErrorReason::ResourceNotFound,
                v1::Effect::None,
                "there is none",
            ));
        };
        if meta.generation < resource.generation {
            self.ledger.violations.push(format!(
                "the generation of {} went back from {} to {}",
                meta.idempotency_key, resource.generation, meta.generation
            ));
        }
        resource.digest = digest;
        resource.changed = true;
        resource.generation = meta.generation;
        Ok(resource.clone())
    }

    /// Looks; what was on its way has arrived.
    fn find(&mut self, key: &str) -> Option<Resource> {
        let resource = self.ledger.resources.get_mut(key)?;
        resource.runs = true;
        Some(resource.clone())
    }
}

fn presence(there: bool) -> i32 {
    if there {
        v1::Presence::Present.into()
    } else {
        v1::Presence::Absent.into()
    }
}
