//! A provider that answers what it is told to, by RPC; what it was not told anything
//! about it does not implement. It lives in a Tokio runtime of its own, so that killing
//! it is as abrupt as the death of a process.

use std::collections::HashMap;
use std::future::Future;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use actuator_proto::bytes_codec::BytesCodec;
use actuator_proto::discovery::v1::{GetProtocolsResponse, Protocol, Stability};
use actuator_proto::v1;
use bytes::Bytes;
use futures::future::BoxFuture;
use futures::stream::BoxStream;
use futures::{FutureExt as _, StreamExt as _};
use hyper_util::rt::{TokioExecutor, TokioIo};
use prost::Message;
use provider_host::{
    CallBounds, CredentialId, Endpoint, EndpointConfig, EndpointSource, Host, HostConfig, HostTimes, ProviderHandle,
    ProviderSnapshot, ProviderState, Rpc,
};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::runtime::Runtime;
use tonic::metadata::MetadataMap;
use tonic::{Request, Response, Status};

/// Long enough for a slow machine; nothing waits for it when all is well.
pub const PATIENCE: Duration = Duration::from_mins(2);

type Messages = BoxStream<'static, Result<Bytes, Status>>;
type Handler = Arc<dyn Fn(MetadataMap, Bytes) -> BoxFuture<'static, Result<Messages, Status>> + Send + Sync>;

/// What a provider answers.
#[derive(Clone, Default)]
pub struct Script {
    handlers: Arc<Mutex<HashMap<String, Handler>>>,
    calls: Arc<Mutex<HashMap<String, usize>>>,
    /// Makes each connection end as a server does that is asked to stop.
    pub leave: Arc<tokio::sync::Notify>,
}

impl Script {
    /// The required identity of a provider called `name`.
    pub fn provider(name: &str, instance_id: &str) -> Self {
        let script = Self::default();
        script.identity(
            name,
            instance_id,
            "1.0.0",
            "actuator.v1",
            v1::GetInfoResponse::default(),
        );
        script.on(Rpc::Probe, |_: v1::ProbeRequest| async {
            Ok(v1::ProbeResponse {
                readiness: v1::Readiness::Ready.into(),
                checks: Vec::new(),
            })
        });
        script
    }

    pub fn identity(&self, name: &str, instance_id: &str, version: &str, package: &str, info: v1::GetInfoResponse) {
        let protocols = GetProtocolsResponse {
            name: name.into(),
            version: version.into(),
            instance_id: instance_id.into(),
            protocols: vec![Protocol {
                package: package.into(),
                stability: Stability::Stable.into(),
            }],
        };
        let info = v1::GetInfoResponse {
            name: name.into(),
            vendor_version: version.into(),
            instance_id: instance_id.into(),
            ..info
        };
        self.on(
            Rpc::GetProtocols,
            move |_: actuator_proto::discovery::v1::GetProtocolsRequest| {
                let protocols = protocols.clone();
                async move { Ok(protocols) }
            },
        );
        self.on(Rpc::GetInfo, move |_: v1::GetInfoRequest| {
            let info = info.clone();
            async move { Ok(info) }
        });
    }

    /// Answers an RPC by a function.
    pub fn on<Q, A, F>(&self, rpc: Rpc, answer: impl Fn(Q) -> F + Send + Sync + 'static)
    where
        Q: Message + Default,
        A: Message,
        F: Future<Output = Result<A, Status>> + Send + 'static,
    {
        self.handle(rpc.path(), move |_, body| {
            let answer = answer(Q::decode(body).unwrap());
            async move {
                let message = Bytes::from(answer.await?.encode_to_vec());
                Ok(futures::stream::iter([Ok(message)]).boxed())
            }
            .boxed()
        });
    }

    /// Answers an RPC always with this error.
    pub fn fail(&self, rpc: Rpc, status: Status) {
        self.handle(rpc.path(), move |_, _| {
            let status = status.clone();
            async move { Err(status) }.boxed()
        });
    }

    /// Never answers an RPC.
    pub fn stall(&self, rpc: Rpc) {
        self.handle(rpc.path(), |_, _| std::future::pending().boxed());
    }

    /// Answers an RPC by a stream.
    pub fn stream<Q, A, S>(&self, rpc: Rpc, answer: impl Fn(Q) -> Result<S, Status> + Send + Sync + 'static)
    where
        Q: Message + Default,
        A: Message + 'static,
        S: futures::Stream<Item = Result<A, Status>> + Send + 'static,
    {
        self.handle(rpc.path(), move |_, body| {
            let answer = answer(Q::decode(body).unwrap()).map(|stream| {
                stream
                    .map(|item| item.map(|item| Bytes::from(item.encode_to_vec())))
                    .boxed()
            });
            async move { answer }.boxed()
        });
    }

    pub fn handle(
        &self,
        path: &str,
        handler: impl Fn(MetadataMap, Bytes) -> BoxFuture<'static, Result<Messages, Status>> + Send + Sync + 'static,
    ) {
        self.handlers.lock().unwrap().insert(path.to_owned(), Arc::new(handler));
    }

    /// How often an RPC was called.
    pub fn calls(&self, rpc: Rpc) -> usize {
        self.calls.lock().unwrap().get(rpc.path()).copied().unwrap_or_default()
    }

    /// Serves on a Unix socket, made anew.
    pub fn serve(&self, path: &Path) -> Serving {
        let runtime = Runtime::new().unwrap();
        let _ = std::fs::remove_file(path);
        let listener = {
            let _inside = runtime.enter();
            tokio::net::UnixListener::bind(path).unwrap()
        };
        let script = self.clone();
        runtime.spawn(async move {
            loop {
                let (stream, _) = listener.accept().await.unwrap();
                script.clone().connection(stream);
            }
        });
        Serving { runtime: Some(runtime) }
    }

    /// Serves one connection.
    pub fn connection(self, stream: impl AsyncRead + AsyncWrite + Unpin + Send + 'static) {
        let leave = self.leave.clone();
        let service = hyper::service::service_fn(move |request: http::Request<hyper::body::Incoming>| {
            let script = self.clone();
            async move { Ok::<_, std::convert::Infallible>(script.answer(request).await) }
        });
        tokio::spawn(async move {
            let goes = leave.clone();
            let connection = hyper::server::conn::http2::Builder::new(TokioExecutor::new())
                .serve_connection(TokioIo::new(stream), service);
            tokio::pin!(connection);
            tokio::select! {
                _ = connection.as_mut() => return,
                () = goes.notified() => connection.as_mut().graceful_shutdown(),
            }
            let _ = connection.await;
        });
    }

    async fn answer(self, request: http::Request<hyper::body::Incoming>) -> http::Response<tonic::body::Body> {
        assert_eq!(request.version(), http::Version::HTTP_2);
        let path = request.uri().path().to_owned();
        *self.calls.lock().unwrap().entry(path.clone()).or_default() += 1;
        let handler = self.handlers.lock().unwrap().get(&path).cloned();
        let service = Answer { handler };
        tonic::server::Grpc::new(BytesCodec)
            .server_streaming(service, request)
            .await
    }
}

struct Answer {
    handler: Option<Handler>,
}

impl tonic::server::ServerStreamingService<Bytes> for Answer {
    type Response = Bytes;
    type ResponseStream = Messages;
    type Future = BoxFuture<'static, Result<Response<Messages>, Status>>;

    fn call(&mut self, request: Request<Bytes>) -> Self::Future {
        let handler = self.handler.clone();
        async move {
            let handler = handler.ok_or_else(|| Status::unimplemented("not in the script"))?;
            let (metadata, _, body) = request.into_parts();
            handler(metadata, body).await.map(Response::new)
        }
        .boxed()
    }
}

/// A provider that serves until it is dropped, which is as abrupt as a `kill -9`.
pub struct Serving {
    runtime: Option<Runtime>,
}

impl Serving {
    pub fn on(runtime: Runtime) -> Self {
        Self { runtime: Some(runtime) }
    }
}

impl Drop for Serving {
    fn drop(&mut self) {
        if let Some(runtime) = self.runtime.take() {
            runtime.shutdown_background();
        }
    }
}

/// A scripted provider called `fake` in a folder of its own, and a host connected to it.
pub struct Scene {
    pub folder: tempfile::TempDir,
    pub script: Script,
    pub serving: Option<Serving>,
    pub host: Host,
}

/// The host's times, short where a test has to wait for them.
pub fn times() -> HostTimes {
    HostTimes {
        probe_interval: Duration::from_millis(50),
        connect: Duration::from_secs(10),
        reconnect_min: Duration::from_millis(10),
        reconnect_max: Duration::from_millis(100),
        socket_poll: Duration::from_millis(10),
        certificate_poll: Duration::from_millis(10),
        folder_poll: Duration::from_millis(10),
        deadline_grace: Duration::from_millis(50),
        ..HostTimes::default()
    }
}

pub fn host() -> Host {
    host_with(times(), CallBounds::default())
}

pub fn host_with(times: HostTimes, bounds: CallBounds) -> Host {
    Host::new(HostConfig {
        times,
        bounds,
        ..HostConfig::default()
    })
}

pub fn unix(path: &Path) -> EndpointConfig {
    EndpointConfig::new(Endpoint::Unix(path.to_owned()), EndpointSource::Flag)
}

impl Scene {
    pub async fn new() -> Self {
        Self::with(Script::provider("fake", "instance-1"), times(), CallBounds::default()).await
    }

    pub async fn with(script: Script, times: HostTimes, bounds: CallBounds) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let host = host_with(times, bounds);
        let path = folder.path().join("fake.sock");
        let serving = Some(script.serve(&path));
        host.set_endpoint("fake", unix(&path)).unwrap();
        let scene = Self {
            folder,
            script,
            serving,
            host,
        };
        scene.state(ProviderState::Ready).await;
        scene
    }

    pub fn path(&self) -> PathBuf {
        self.folder.path().join("fake.sock")
    }

    pub fn fake(&self) -> ProviderHandle {
        self.host.provider("fake").unwrap()
    }

    pub async fn state(&self, state: ProviderState) -> ProviderSnapshot {
        until(&self.host, "fake", |snapshot| snapshot.state == state).await
    }
}

/// Waits until the snapshot of a provider is as wanted.
pub async fn until(host: &Host, name: &str, wanted: impl Fn(&ProviderSnapshot) -> bool) -> ProviderSnapshot {
    let mut changes = host.subscribe();
    let found = async {
        loop {
            if let Some(snapshot) = host.snapshot(name)
                && wanted(&snapshot)
            {
                return snapshot;
            }
            changes.next().await.expect("the host is there");
        }
    };
    match tokio::time::timeout(PATIENCE, found).await {
        Ok(snapshot) => snapshot,
        Err(_) => panic!("the provider did not become as wanted: {:?}", host.snapshot(name)),
    }
}

pub fn credential() -> CredentialId {
    CredentialId::new("default/cloud")
}

pub fn create(key: &str) -> v1::CreateMachineRequest {
    v1::CreateMachineRequest {
        meta: Some(v1::OperationMeta {
            idempotency_key: key.into(),
            ..Default::default()
        }),
        ..Default::default()
    }
}

pub fn reference(key: &str) -> Option<v1::ResourceRef> {
    Some(v1::ResourceRef {
        idempotency_key: key.into(),
        ..Default::default()
    })
}

pub fn delete(key: &str) -> v1::DeleteMachineRequest {
    v1::DeleteMachineRequest {
        r#ref: reference(key),
        ..Default::default()
    }
}

pub fn exists(key: &str) -> v1::MachineExistsRequest {
    v1::MachineExistsRequest {
        r#ref: reference(key),
        ..Default::default()
    }
}

pub fn machine(provider_id: &str) -> v1::MachineStatus {
    v1::MachineStatus {
        provider_id: provider_id.into(),
        phase: v1::MachinePhase::Running.into(),
        ..Default::default()
    }
}

pub fn present(provider_id: &str) -> v1::MachineExistsResponse {
    v1::MachineExistsResponse {
        presence: v1::Presence::Present.into(),
        status: Some(machine(provider_id)),
    }
}

/// Counts how many are inside at once.
#[derive(Clone, Default)]
pub struct Crowd {
    now: Arc<AtomicUsize>,
    peak: Arc<AtomicUsize>,
}

impl Crowd {
    pub fn enter(&self) -> Inside {
        let now = self.now.fetch_add(1, Ordering::SeqCst) + 1;
        self.peak.fetch_max(now, Ordering::SeqCst);
        Inside(self.clone())
    }

    pub fn now(&self) -> usize {
        self.now.load(Ordering::SeqCst)
    }

    pub fn peak(&self) -> usize {
        self.peak.load(Ordering::SeqCst)
    }

    /// Waits until so many are inside.
    pub async fn reaches(&self, count: usize) {
        let reached = async {
            while self.now() != count {
                tokio::time::sleep(Duration::from_millis(2)).await;
            }
        };
        tokio::time::timeout(PATIENCE, reached)
            .await
            .unwrap_or_else(|_| panic!("{} are inside and not {count}", self.now()));
    }
}

pub struct Inside(Crowd);

impl Drop for Inside {
    fn drop(&mut self) {
        self.0.now.fetch_sub(1, Ordering::SeqCst);
    }
}
