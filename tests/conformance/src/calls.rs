//! Makes calls and remembers them: each with its deadline, each written into the test's
//! transcript, each answer looked through for secrets and each error judged by the table.

use std::sync::Arc;
use std::time::{Duration, Instant};

use actuator_proto::bytes_codec::BytesCodec;
use actuator_proto::discovery::v1 as discovery;
use actuator_proto::errors::table::code_name;
use actuator_proto::{limits, v1};
use bytes::Bytes;
use parking_lot::{Mutex, RwLock};
use prost::Message;
use tonic::{Code, Request, Status, Streaming};

use crate::dial::Connection;
use crate::ledger::{Entry, Kind, Ledger, Place};
use crate::mask::{self, Secrets};
use crate::report::errors;

/// After its deadline a call may take this long to end; a machine under load is no broken rule.
pub const SLACK: Duration = Duration::from_secs(2);

/// A request that has one answer, or a stream of them.
pub trait Rpc: Message + Default + Clone + 'static {
    /// What answers it.
    type Answer: Message + Default + 'static;
    /// `actuator.v1.MachineService`.
    const SERVICE: &'static str;
    /// `CreateMachine`.
    const METHOD: &'static str;
    /// How long the core gives it.
    fn deadline(&self, timings: &v1::Timings) -> Duration;
    /// What may exist once it was sent.
    fn makes(&self) -> Option<Entry> {
        None
    }
    /// What its answer says is gone.
    fn gone(&self, _answer: &Self::Answer) -> Option<Place> {
        None
    }
}

macro_rules! rpcs {
    ($($service:literal { $($request:ty => $answer:ty, $method:literal, $deadline:expr;)* })*) => {
        $($(impl Rpc for $request {
            type Answer = $answer;
            const SERVICE: &'static str = $service;
            const METHOD: &'static str = $method;
            fn deadline(&self, timings: &v1::Timings) -> Duration {
                let deadline: fn(&Self, &v1::Timings) -> Duration = $deadline;
                deadline(self, timings)
            }
        })*)*
    };
}

fn recommended(told: Option<&prost_types::Duration>, usual: Duration) -> Duration {
    told.and_then(|told| Duration::try_from(*told).ok())
        .unwrap_or(usual)
        .clamp(usual, limits::MAX_DEADLINE)
}

fn mutation(timings: &v1::Timings) -> Duration {
    recommended(timings.mutation_deadline.as_ref(), limits::MUTATION_DEADLINE)
}

fn exists(timings: &v1::Timings) -> Duration {
    recommended(timings.exists_deadline.as_ref(), limits::EXISTS_DEADLINE)
}

/// A stream of the suite is read for this long at most.
const STREAM_DEADLINE: Duration = Duration::from_mins(5);

rpcs! {
    "actuator.discovery.v1.DiscoveryService" {
        discovery::GetProtocolsRequest => discovery::GetProtocolsResponse, "GetProtocols", |_, _| limits::IDENTITY_DEADLINE;
    }
    "actuator.v1.IdentityService" {
        v1::GetInfoRequest => v1::GetInfoResponse, "GetInfo", |_, _| limits::IDENTITY_DEADLINE;
        v1::ProbeRequest => v1::ProbeResponse, "Probe", |_, _| limits::PROBE_DEADLINE;
        v1::GetConfigSchemaRequest => v1::GetConfigSchemaResponse, "GetConfigSchema", |_, _| limits::IDENTITY_DEADLINE;
        v1::ValidateConfigRequest => v1::ValidateConfigResponse, "ValidateConfig", |request, _| match request.mode() {
            v1::ValidationMode::Preflight => limits::VALIDATE_PREFLIGHT_DEADLINE,
            _ => limits::VALIDATE_STATIC_DEADLINE,
        };
    }
    "actuator.v1.ClusterService" {
        v1::UpdateClusterRequest => v1::UpdateClusterResponse, "UpdateCluster", |_, timings| mutation(timings);
        v1::ClusterExistsRequest => v1::ClusterExistsResponse, "ClusterExists", |_, timings| exists(timings);
        v1::ListClustersRequest => v1::ListClustersResponse, "ListClusters", |_, _| limits::LIST_PAGE_DEADLINE;
    }
    "actuator.v1.EndpointService" {
        v1::SetEndpointMembersRequest => v1::SetEndpointMembersResponse, "SetEndpointMembers", |_, timings| mutation(timings);
    }
    "actuator.v1.MachineService" {
        v1::UpdateMachineRequest => v1::UpdateMachineResponse, "UpdateMachine", |_, timings| mutation(timings);
        v1::MachineExistsRequest => v1::MachineExistsResponse, "MachineExists", |_, timings| exists(timings);
        v1::ListMachinesRequest => v1::ListMachinesResponse, "ListMachines", |_, _| limits::LIST_PAGE_DEADLINE;
        v1::WatchMachinesRequest => v1::WatchMachinesResponse, "WatchMachines", |_, _| STREAM_DEADLINE;
        v1::GetConsoleOutputRequest => v1::GetConsoleOutputResponse, "GetConsoleOutput", |_, _| STREAM_DEADLINE;
        v1::ListMachineTypesRequest => v1::ListMachineTypesResponse, "ListMachineTypes", |_, _| limits::LIST_PAGE_DEADLINE;
    }
}

macro_rules! makers {
    ($($service:literal, $kind:ident, $create:ty => $created:ty, $create_name:literal, $delete:ty => $deleted:ty, $delete_name:literal;)*) => {
        $(
            impl Rpc for $create {
                type Answer = $created;
                const SERVICE: &'static str = $service;
                const METHOD: &'static str = $create_name;
                fn deadline(&self, timings: &v1::Timings) -> Duration {
                    mutation(timings)
                }
                fn makes(&self) -> Option<Entry> {
                    let (meta, ownership) = (self.meta.as_ref()?, self.ownership.as_ref()?);
                    // What is not named lawfully is refused, and could not be swept either.
                    let lawful = actuator_proto::key::validate(&meta.idempotency_key).is_ok()
                        && ![&ownership.management_cluster_id, &ownership.cluster_uid, &ownership.object_uid]
                            .into_iter()
                            .any(String::is_empty);
                    lawful.then(|| Entry::new(Kind::$kind, &meta.idempotency_key, ownership))
                }
            }
            impl Rpc for $delete {
                type Answer = $deleted;
                const SERVICE: &'static str = $service;
                const METHOD: &'static str = $delete_name;
                fn deadline(&self, timings: &v1::Timings) -> Duration {
                    mutation(timings)
                }
                fn gone(&self, answer: &Self::Answer) -> Option<Place> {
                    let reference = self.r#ref.as_ref().filter(|_| answer.state() == v1::DeletionState::Gone)?;
                    Some(Place::of(Kind::$kind, reference))
                }
            }
        )*
    };
}

makers! {
    "actuator.v1.ClusterService", Cluster,
        v1::CreateClusterRequest => v1::CreateClusterResponse, "CreateCluster",
        v1::DeleteClusterRequest => v1::DeleteClusterResponse, "DeleteCluster";
    "actuator.v1.MachineService", Machine,
        v1::CreateMachineRequest => v1::CreateMachineResponse, "CreateMachine",
        v1::DeleteMachineRequest => v1::DeleteMachineResponse, "DeleteMachine";
}

/// One call, for people.
#[derive(Debug, Clone)]
pub struct Exchange {
    /// `MachineService/CreateMachine`.
    pub call: String,
    /// What was sent, without secrets.
    pub sent: String,
    /// What came back, without secrets.
    pub received: String,
    /// How long it took.
    pub took: Duration,
}

/// What was seen in the whole run, for the rules that are judged at the end.
#[derive(Debug, Default)]
pub struct Noticed {
    /// Where a secret was told.
    pub secrets: Vec<String>,
    /// Errors that break the rules about errors: which rule, and how.
    pub errors: Vec<(&'static str, String)>,
    /// How many errors were looked at.
    pub errors_seen: usize,
    /// Calls that went on beyond their deadline.
    pub late: Vec<String>,
    /// Answers that could not be read.
    pub unreadable: Vec<String>,
    /// Answers beyond a size of the protocol.
    pub oversized: Vec<String>,
}

/// What all calls of a run share.
#[derive(Debug)]
pub struct Shared {
    /// What may never be told.
    pub secrets: RwLock<Secrets>,
    /// What was seen.
    pub noticed: Mutex<Noticed>,
    /// What may have been made.
    pub ledger: Ledger,
    /// How long things take with this provider.
    pub timings: RwLock<v1::Timings>,
}

/// Makes calls on one connection, for one test.
#[derive(Debug, Clone)]
pub struct Calls {
    connection: Connection,
    shared: Arc<Shared>,
    transcript: Arc<Mutex<Vec<Exchange>>>,
    made: Arc<Mutex<Vec<Entry>>>,
    written: Arc<Mutex<Option<Instant>>>,
}

/// The most exchanges that one test keeps.
const KEPT_EXCHANGES: usize = 200;

impl Calls {
    /// Calls of one test.
    pub fn new(connection: Connection, shared: Arc<Shared>) -> Self {
        Self {
            connection,
            shared,
            transcript: Arc::default(),
            made: Arc::default(),
            written: Arc::default(),
        }
    }

    /// The same test on another connection.
    #[must_use]
    pub fn over(&self, connection: Connection) -> Self {
        Self {
            connection,
            ..self.clone()
        }
    }

    /// What the run shares.
    pub fn shared(&self) -> &Arc<Shared> {
        &self.shared
    }

    /// The connection.
    pub fn connection(&self) -> &Connection {
        &self.connection
    }

    /// What was sent and received so far.
    pub fn transcript(&self) -> Vec<Exchange> {
        self.transcript.lock().clone()
    }

    /// What this test may have made.
    pub fn made(&self) -> Vec<Entry> {
        self.made.lock().clone()
    }

    /// When a mutation of this test last ended, well or not.
    pub fn written(&self) -> Option<Instant> {
        *self.written.lock()
    }

    /// Calls with the deadline that the core gives.
    pub async fn call<R: Rpc>(&self, request: R) -> Result<R::Answer, Status> {
        let deadline = request.deadline(&self.shared.timings.read());
        self.call_within(request, deadline).await
    }

    /// Calls with this deadline.
    pub async fn call_within<R: Rpc>(&self, request: R, deadline: Duration) -> Result<R::Answer, Status> {
        if let Some(entry) = request.makes() {
            self.shared
                .ledger
                .may_exist(entry.clone())
                .map_err(|error| Status::internal(format!("the suite made no call: {error:#}")))?;
            self.made.lock().push(entry);
        }
        let path = format!("/{}/{}", R::SERVICE, R::METHOD);
        let encoded = Bytes::from(request.encode_to_vec());
        let began = Instant::now();
        let answer = self.raw(&path, encoded.clone(), deadline).await;
        if mutates(R::METHOD) {
            *self.written.lock() = Some(Instant::now());
        }
        let decoded = answer.and_then(|bytes| {
            R::Answer::decode(bytes.clone())
                .map(|answer| (answer, bytes))
                .map_err(|error| {
                    let words = format!(
                        "{path} answered with something that is no {}: {error}",
                        type_name::<R::Answer>()
                    );
                    self.shared.noticed.lock().unreadable.push(words.clone());
                    Status::internal(words)
                })
        });
        let received = match &decoded {
            Ok((_, bytes)) => {
                self.look_through::<R>(bytes);
                mask::show(&type_name::<R::Answer>(), bytes)
            }
            Err(status) => {
                self.judge::<R>(status);
                show_status(status)
            }
        };
        self.remember(Exchange {
            call: format!("{}/{}", R::SERVICE, R::METHOD),
            sent: mask::show(&type_name::<R>(), &encoded),
            received,
            took: began.elapsed(),
        });
        let (answer, _) = decoded?;
        if let Some(place) = request.gone(&answer) {
            self.shared.ledger.is_gone(place);
        }
        Ok(answer)
    }

    /// Opens a stream of answers; its elements are not looked through, whoever reads them does.
    pub async fn stream<R: Rpc>(&self, request: R) -> Result<Stream<R>, Status> {
        let path = format!("/{}/{}", R::SERVICE, R::METHOD);
        let encoded = Bytes::from(request.encode_to_vec());
        let began = Instant::now();
        let mut grpc = self.grpc();
        grpc.ready().await?;
        let opened = grpc
            .server_streaming(timed(encoded.clone(), STREAM_DEADLINE), uri(&path)?, BytesCodec)
            .await;
        self.remember(Exchange {
            call: format!("{}/{}", R::SERVICE, R::METHOD),
            sent: mask::show(&type_name::<R>(), &encoded),
            received: opened.as_ref().map_or_else(show_status, |_| "a stream".to_owned()),
            took: began.elapsed(),
        });
        match opened {
            Ok(stream) => Ok(Stream {
                inner: stream.into_inner(),
                calls: self.clone(),
                _request: std::marker::PhantomData,
            }),
            Err(status) => {
                self.judge::<R>(&status);
                Err(status)
            }
        }
    }

    /// Sends any bytes to any path. Not in the transcript, and not judged.
    pub async fn raw(&self, path: &str, bytes: Bytes, deadline: Duration) -> Result<Bytes, Status> {
        let mut grpc = self.grpc();
        grpc.ready().await?;
        let calling = grpc.unary(timed(bytes, deadline), uri(path)?, BytesCodec);
        match tokio::time::timeout(deadline + SLACK, calling).await {
            Ok(answer) => answer.map(tonic::Response::into_inner),
            Err(_) => {
                let words = format!("{path} went on for {SLACK:?} beyond its deadline of {deadline:?}");
                self.shared.noticed.lock().late.push(words.clone());
                Err(Status::deadline_exceeded(words))
            }
        }
    }

    fn grpc(&self) -> tonic::client::Grpc<Connection> {
        // Room for answers that are too large, so that they are seen to be.
        tonic::client::Grpc::with_origin(self.connection.clone(), self.connection.origin.clone())
            .max_decoding_message_size(4 * limits::MAX_MESSAGE_BYTES)
            .max_encoding_message_size(4 * limits::MAX_MESSAGE_BYTES)
    }

    fn remember(&self, exchange: Exchange) {
        let mut transcript = self.transcript.lock();
        if transcript.len() < KEPT_EXCHANGES {
            transcript.push(exchange);
        }
    }

    fn look_through<R: Rpc>(&self, bytes: &[u8]) {
        // What a console says is what the machine was given; the contract allows it.
        if R::METHOD != "GetConsoleOutput" && self.shared.secrets.read().within(bytes) {
            self.shared
                .noticed
                .lock()
                .secrets
                .push(format!("the answer of {}", R::METHOD));
        }
        if bytes.len() > limits::MAX_MESSAGE_BYTES {
            let words = format!("the answer of {} has {} bytes", R::METHOD, bytes.len());
            self.shared.noticed.lock().oversized.push(words);
        }
    }

    fn judge<R: Rpc>(&self, status: &Status) {
        let told = self.shared.secrets.read().within(status.details())
            || self.shared.secrets.read().within(status.message().as_bytes());
        let mut noticed = self.shared.noticed.lock();
        if told {
            noticed.secrets.push(format!("an error of {}", R::METHOD));
        }
        noticed.errors_seen += 1;
        for (rule, words) in errors::problems(status) {
            noticed.errors.push((rule, format!("{}: {words}", R::METHOD)));
        }
    }
}

/// A stream of answers.
pub struct Stream<R: Rpc> {
    inner: Streaming<Bytes>,
    calls: Calls,
    _request: std::marker::PhantomData<R>,
}

impl<R: Rpc> Stream<R> {
    /// The next answer within this time; `None` at the end; DEADLINE_EXCEEDED when none came.
    pub async fn next(&mut self, within: Duration) -> Option<Result<R::Answer, Status>> {
        let Ok(next) = tokio::time::timeout(within, self.inner.message()).await else {
            return Some(Err(Status::deadline_exceeded(format!(
                "nothing came within {within:?}"
            ))));
        };
        let (received, answer) = match next {
            Ok(None) => ("the end".to_owned(), None),
            Ok(Some(bytes)) => {
                self.calls.look_through::<R>(&bytes);
                let shown = mask::show(&type_name::<R::Answer>(), &bytes);
                (
                    shown,
                    Some(R::Answer::decode(bytes).map_err(|error| Status::internal(error.to_string()))),
                )
            }
            Err(status) => {
                self.calls.judge::<R>(&status);
                (show_status(&status), Some(Err(status)))
            }
        };
        self.calls.remember(Exchange {
            call: format!("{}/{}", R::SERVICE, R::METHOD),
            sent: String::new(),
            received,
            took: Duration::ZERO,
        });
        answer
    }
}

/// `actuator.v1.CreateMachineRequest`, from the type that prost made of it.
fn type_name<M: 'static>() -> String {
    let path = std::any::type_name::<M>();
    let name = path.rsplit("::").next().unwrap_or(path);
    let package = if path.contains("discovery") {
        "actuator.discovery.v1"
    } else {
        actuator_proto::PACKAGE_V1
    };
    format!("{package}.{name}")
}

fn mutates(method: &str) -> bool {
    ["Create", "Update", "Delete", "Set"]
        .iter()
        .any(|verb| method.starts_with(verb))
}

/// A status, for people.
pub fn show_status(status: &Status) -> String {
    let details = errors::describe(status);
    format!("{} {:?}{details}", code_name(status.code()), status.message())
}

fn timed(bytes: Bytes, deadline: Duration) -> Request<Bytes> {
    let mut request = Request::new(bytes);
    request.set_timeout(deadline);
    request
}

fn uri(path: &str) -> Result<http::uri::PathAndQuery, Status> {
    path.parse()
        .map_err(|_| Status::new(Code::Internal, format!("{path} is no path")))
}
