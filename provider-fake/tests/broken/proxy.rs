//! A gRPC proxy on a Unix socket of its own, in front of a real provider: passes every call
//! on as bytes, and lets a fault change what is asked, what is answered, or when.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};
use std::pin::Pin;
use std::sync::atomic::{AtomicBool, AtomicUsize};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use actuator_conformance::Endpoint;
use actuator_conformance::dial::{self, Connection};
use actuator_proto::bytes_codec::BytesCodec;
use bytes::Bytes;
use futures::{Stream, StreamExt as _};
use hyper::body::Incoming;
use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
use prost::Message;
use tokio::net::UnixListener;
use tonic::server::{ServerStreamingService, UnaryService};
use tonic::{Request, Response, Status};

type Answering = Pin<Box<dyn Future<Output = Result<Bytes, Status>> + Send>>;
type Chunks = Pin<Box<dyn Stream<Item = Result<Bytes, Status>> + Send>>;

/// What a fault remembers between calls.
#[derive(Debug, Default)]
pub struct Memory {
    /// Keys by what a fault wants to know of them.
    pub keys: Mutex<BTreeSet<String>>,
    /// Anything seen before.
    pub seen: Mutex<BTreeMap<String, Vec<u8>>>,
    /// Counts calls, or those under way.
    pub count: AtomicUsize,
    /// The provider was restarted.
    pub restarted: AtomicBool,
    /// One at a time, for providers with a global lock.
    pub lock: tokio::sync::Mutex<()>,
}

/// One call on its way.
#[derive(Clone)]
pub struct Call {
    /// `CreateMachine`.
    pub method: String,
    /// The request, encoded.
    pub request: Bytes,
    /// What the fault remembers.
    pub memory: Arc<Memory>,
    path: String,
    deadline: Option<Duration>,
    upstream: Endpoint,
}

impl Call {
    /// Whether it is this method.
    pub fn is(&self, method: &str) -> bool {
        self.method == method
    }

    /// The request as a message.
    pub fn decoded<M: Message + Default>(&self) -> M {
        M::decode(self.request.clone()).expect("the suite sends what it should")
    }

    /// The same call with another request.
    pub fn with<M: Message>(&self, request: &M) -> Self {
        Self {
            request: request.encode_to_vec().into(),
            ..self.clone()
        }
    }

    /// The same call with a changed request.
    pub fn edited<M: Message + Default>(&self, edit: impl FnOnce(&mut M)) -> Self {
        let mut request = self.decoded::<M>();
        edit(&mut request);
        self.with(&request)
    }

    async fn upstream(&self) -> Result<tonic::client::Grpc<Connection>, Status> {
        let connection = dial::connect(&self.upstream, None)
            .await
            .map_err(|error| Status::unavailable(format!("{error:#}")))?;
        let origin = connection.origin.clone();
        let mut grpc = tonic::client::Grpc::with_origin(connection, origin).max_decoding_message_size(usize::MAX);
        grpc.ready().await?;
        Ok(grpc)
    }

    fn timed(&self) -> Request<Bytes> {
        let mut request = Request::new(self.request.clone());
        if let Some(deadline) = self.deadline {
            request.set_timeout(deadline);
        }
        request
    }

    /// What the real provider answers.
    pub async fn forward(&self) -> Result<Bytes, Status> {
        let path = self.path.parse().expect("a path");
        Ok(self
            .upstream()
            .await?
            .unary(self.timed(), path, BytesCodec)
            .await?
            .into_inner())
    }

    /// What the real provider streams.
    pub async fn forward_stream(&self) -> Result<Chunks, Status> {
        let path = self.path.parse().expect("a path");
        let stream = self
            .upstream()
            .await?
            .server_streaming(self.timed(), path, BytesCodec)
            .await?;
        Ok(stream.into_inner().boxed())
    }
}

/// Changes one answer, if it is one.
pub fn edit<M: Message + Default>(answer: Result<Bytes, Status>, edit: impl FnOnce(&mut M)) -> Result<Bytes, Status> {
    let mut message = M::decode(answer?).expect("the provider answers what it should");
    edit(&mut message);
    Ok(message.encode_to_vec().into())
}

/// What goes wrong.
pub trait Fault: Send + Sync + 'static {
    /// Answers a unary call; [`Call::forward`] asks the real provider.
    fn unary(&self, call: Call) -> Answering;

    /// Answers a streaming call.
    fn stream(&self, call: Call) -> Pin<Box<dyn Future<Output = Result<Chunks, Status>> + Send>> {
        Box::pin(async move { call.forward_stream().await })
    }

    /// The mode of the socket.
    fn socket_mode(&self) -> u32 {
        0o600
    }
}

/// A running proxy.
pub struct Proxy {
    /// Where it listens.
    pub socket: PathBuf,
    /// What its fault remembers.
    pub memory: Arc<Memory>,
    task: tokio::task::JoinHandle<()>,
}

impl Drop for Proxy {
    fn drop(&mut self) {
        self.task.abort();
    }
}

impl Proxy {
    /// Listens in `folder`, in front of the provider at `upstream`.
    pub fn start(folder: &Path, upstream: Endpoint, fault: Arc<dyn Fault>) -> Self {
        let socket = folder.join("proxy.sock");
        let listener = UnixListener::bind(&socket).expect("a socket");
        let mode = std::os::unix::fs::PermissionsExt::from_mode(fault.socket_mode());
        std::fs::set_permissions(&socket, mode).expect("a mode");
        let memory = Arc::<Memory>::default();
        let kept = memory.clone();
        let task = tokio::spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                let (fault, memory, upstream) = (fault.clone(), memory.clone(), upstream.clone());
                let service = hyper::service::service_fn(move |request: http::Request<Incoming>| {
                    let (fault, memory, upstream) = (fault.clone(), memory.clone(), upstream.clone());
                    async move { Ok::<_, std::convert::Infallible>(serve(request, fault, memory, upstream).await) }
                });
                let serving = hyper::server::conn::http2::Builder::new(TokioExecutor::new())
                    .timer(TokioTimer::new())
                    .max_header_list_size(1024 * 1024)
                    .serve_connection(TokioIo::new(stream), service);
                tokio::spawn(serving);
            }
        });
        Self {
            socket,
            memory: kept,
            task,
        }
    }
}

/// The methods that answer with a stream.
const STREAMS: [&str; 3] = ["WatchMachines", "GetConsoleOutput", "Watch"];

async fn serve(
    request: http::Request<Incoming>,
    fault: Arc<dyn Fault>,
    memory: Arc<Memory>,
    upstream: Endpoint,
) -> http::Response<tonic::body::Body> {
    let path = request.uri().path().to_owned();
    let deadline = request
        .headers()
        .get("grpc-timeout")
        .and_then(|value| timeout(value.to_str().ok()?));
    let call = Call {
        method: path.rsplit('/').next().unwrap_or_default().to_owned(),
        request: Bytes::new(),
        memory,
        path,
        deadline,
        upstream,
    };
    let request = request.map(tonic::body::Body::new);
    let mut grpc = tonic::server::Grpc::new(BytesCodec).max_decoding_message_size(usize::MAX);
    if STREAMS.contains(&call.method.as_str()) {
        grpc.server_streaming(Streaming(fault, call), request).await
    } else {
        grpc.unary(Unary(fault, call), request).await
    }
}

/// `50m`: milliseconds, as gRPC writes a deadline.
fn timeout(text: &str) -> Option<Duration> {
    let (number, unit) = text.split_at_checked(text.len().checked_sub(1)?)?;
    let number: u64 = number.parse().ok()?;
    Some(match unit {
        "H" => Duration::from_hours(number),
        "M" => Duration::from_mins(number),
        "S" => Duration::from_secs(number),
        "m" => Duration::from_millis(number),
        "u" => Duration::from_micros(number),
        "n" => Duration::from_nanos(number),
        _ => return None,
    })
}

struct Unary(Arc<dyn Fault>, Call);

impl UnaryService<Bytes> for Unary {
    type Response = Bytes;
    type Future = Pin<Box<dyn Future<Output = Result<Response<Bytes>, Status>> + Send>>;

    fn call(&mut self, request: Request<Bytes>) -> Self::Future {
        let answering = self.0.unary(Call {
            request: request.into_inner(),
            ..self.1.clone()
        });
        // What was begun goes on when the caller has gone, as it must.
        let running = tokio::spawn(answering);
        Box::pin(async move { running.await.expect("no fault panics").map(Response::new) })
    }
}

struct Streaming(Arc<dyn Fault>, Call);

impl ServerStreamingService<Bytes> for Streaming {
    type Response = Bytes;
    type ResponseStream = Chunks;
    type Future = Pin<Box<dyn Future<Output = Result<Response<Chunks>, Status>> + Send>>;

    fn call(&mut self, request: Request<Bytes>) -> Self::Future {
        let answering = self.0.stream(Call {
            request: request.into_inner(),
            ..self.1.clone()
        });
        Box::pin(async move { answering.await.map(Response::new) })
    }
}
