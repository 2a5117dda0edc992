//! The server: a provider, the services over it, a place to listen, and an orderly end.

use std::collections::HashSet;
use std::convert::Infallible;
use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use actuator_proto::discovery::v1::discovery_service_server::{DiscoveryServiceServer, SERVICE_NAME as DISCOVERY};
use actuator_proto::limits::{KEEP_ALIVE_INTERVAL, MAX_MESSAGE_BYTES};
use actuator_proto::v1::cluster_service_server::{ClusterServiceServer, SERVICE_NAME as CLUSTER};
use actuator_proto::v1::endpoint_service_server::{EndpointServiceServer, SERVICE_NAME as ENDPOINT};
use actuator_proto::v1::identity_service_server::{IdentityServiceServer, SERVICE_NAME as IDENTITY};
use actuator_proto::v1::machine_service_server::{MachineServiceServer, SERVICE_NAME as MACHINE};
use futures::{Stream, StreamExt};
use tokio::net::{TcpListener, TcpStream, UnixListener};
use tokio::sync::{OwnedSemaphorePermit, Semaphore, mpsc};
use tokio_stream::wrappers::ReceiverStream;
use tokio_util::sync::CancellationToken;
use tokio_util::task::AbortOnDropHandle;
use tonic::body::Body;
use tonic::server::NamedService;
use tonic::service::RoutesBuilder;
use tonic_health::ServingStatus;
use tonic_health::server::HealthReporter;

use super::connection::{Connection, Transport};
use super::listen::Listen;
use super::metrics_listener;
use super::refusal;
use super::tls::{Tls, TlsError, TlsFiles};
use super::unix_socket::{self, BoundSocket, SocketError};
use crate::checks;
use crate::config::{Config, ConfigReader, UnusableSchema};
use crate::decode::Decoder;
use crate::provider::Provider;
use crate::service::{Core, Service};
use crate::telemetry::metrics::Metrics;

/// Connections at a time.
const MAX_CONNECTIONS: usize = 64;
/// Calls at a time on one connection: more than the mutations that any provider may run,
/// so that reads always find a place.
const MAX_CALLS_PER_CONNECTION: u32 = 8192;
/// Of the headers of one call, in bytes.
const MAX_HEADER_BYTES: u32 = 16 * 1024;
/// An unanswered keep-alive ends the connection after this long.
const KEEP_ALIVE_TIMEOUT: Duration = Duration::from_secs(10);
/// How long running mutations are waited for at the end, unless told otherwise.
const DRAIN: Duration = Duration::from_mins(1);
/// How long connections may take to close once nothing runs any more.
const CLOSE: Duration = Duration::from_secs(2);

/// Why a provider cannot be served at all; defects of the provider.
#[derive(Debug, thiserror::Error)]
pub enum BuildError {
    /// It describes itself against the protocol.
    #[error("the provider describes itself wrongly: {0}")]
    Info(String),
    /// Both kinds of config have the same name.
    #[error("the cluster config and the machine config have the same kind {0:?}")]
    SameKind(&'static str),
    /// A config type has no usable schema.
    #[error(transparent)]
    Schema(#[from] UnusableSchema),
    /// Reflection cannot be set up.
    #[error("the descriptors of the protocol cannot be served")]
    Reflection(#[source] tonic_reflection::server::Error),
}

/// Why a server does not serve.
#[derive(Debug, thiserror::Error)]
pub enum ServeError {
    /// The Unix socket.
    #[error(transparent)]
    Socket(#[from] SocketError),
    /// The TLS files.
    #[error(transparent)]
    Tls(#[from] TlsError),
    /// The port.
    #[error("unable to listen on {address}")]
    Listen {
        /// Which one.
        address: String,
        /// Why not.
        source: io::Error,
    },
    /// TCP neither with TLS nor allowed without.
    #[error(
        "tcp://{0} needs a certificate, a key and client authorities (mutual TLS); plain TCP is for loopback addresses only, with the explicit flag"
    )]
    Unprotected(SocketAddr),
    /// TLS over a Unix socket.
    #[error("TLS is for TCP; a Unix socket is protected by its mode and by the check of its peers")]
    TlsOverUnix,
    /// The HTTP/2 server.
    #[error("the server failed")]
    Transport(#[source] tonic::transport::Error),
}

/// How TCP is protected.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub enum TcpSecurity {
    /// Not at all: TCP is refused.
    #[default]
    Refused,
    /// Plain TCP, on loopback addresses only.
    PlainLoopback,
    /// Mutual TLS.
    MutualTls(TlsFiles),
}

/// Puts a server together.
pub struct ServerBuilder<P> {
    provider: P,
    reflection: bool,
    tcp_security: TcpSecurity,
    peer_uids: Option<Vec<u32>>,
    drain: Duration,
    routes: RoutesBuilder,
    service_names: Vec<&'static str>,
}

/// A provider that is ready to be served.
pub struct Server<P: Provider> {
    core: Arc<Core<P>>,
    routes: RoutesBuilder,
    health: HealthReporter,
    service_names: Vec<&'static str>,
    tcp_security: TcpSecurity,
    peer_uids: HashSet<u32>,
    drain: Duration,
}

/// A server that listens; nothing is answered before [`BoundServer::serve`].
pub struct BoundServer<P: Provider> {
    server: Server<P>,
    address: Listen,
    listener: Listener,
}

enum Listener {
    Unix(UnixListener, BoundSocket),
    Tcp(TcpListener, Option<Arc<Tls>>),
}

impl<P: Provider> Server<P> {
    /// Starts with a provider.
    pub fn builder(provider: P) -> ServerBuilder<P> {
        ServerBuilder {
            provider,
            reflection: false,
            tcp_security: TcpSecurity::default(),
            peer_uids: None,
            drain: DRAIN,
            routes: RoutesBuilder::default(),
            service_names: vec![DISCOVERY, IDENTITY, CLUSTER, ENDPOINT, MACHINE],
        }
    }

    /// The metrics of this server, for scraping and for adding the provider's own.
    pub fn metrics(&self) -> Metrics {
        self.core.metrics.clone()
    }

    /// What a scrape gives, with the gauges of this moment.
    pub(crate) fn scrape(&self) -> metrics_listener::Scrape {
        let core = Arc::clone(&self.core);
        Arc::new(move || {
            core.metrics.mutations(core.executor.running(), core.executor.queued());
            core.metrics.encode()
        })
    }

    /// Listens on an address.
    pub async fn bind(self, listen: &Listen) -> Result<BoundServer<P>, ServeError> {
        let failed = |source| ServeError::Listen {
            address: listen.to_string(),
            source,
        };
        let (address, listener) = match listen {
            Listen::Unix(_) if matches!(self.tcp_security, TcpSecurity::MutualTls(_)) => {
                return Err(ServeError::TlsOverUnix);
            }
            Listen::Unix(path) => {
                let blocking = path.clone();
                let bound = tokio::task::spawn_blocking(move || unix_socket::bind(&blocking)).await;
                let (listener, socket) = bound.map_err(|error| failed(io::Error::other(error)))??;
                let listener = UnixListener::from_std(listener).map_err(failed)?;
                (listen.clone(), Listener::Unix(listener, socket))
            }
            Listen::Tcp(address) => {
                let tls = match &self.tcp_security {
                    TcpSecurity::MutualTls(files) => Some(Arc::new(Tls::new(files.clone())?)),
                    TcpSecurity::PlainLoopback if address.ip().is_loopback() => None,
                    TcpSecurity::PlainLoopback | TcpSecurity::Refused => {
                        return Err(ServeError::Unprotected(*address));
                    }
                };
                let listener = TcpListener::bind(address).await.map_err(failed)?;
                let address = listener.local_addr().map_err(failed)?;
                (Listen::Tcp(address), Listener::Tcp(listener, tls))
            }
        };
        Ok(BoundServer {
            server: self,
            address,
            listener,
        })
    }

    /// Listens on an address and serves until `shutdown` is cancelled.
    pub async fn serve(self, listen: &Listen, shutdown: CancellationToken) -> Result<(), ServeError> {
        self.bind(listen).await?.serve(shutdown).await
    }
}

impl<P: Provider> ServerBuilder<P> {
    /// Whether to serve gRPC reflection; off by default.
    #[must_use]
    pub fn reflection(mut self, reflection: bool) -> Self {
        self.reflection = reflection;
        self
    }

    /// How TCP is protected; by default it is refused.
    #[must_use]
    pub fn tcp_security(mut self, security: TcpSecurity) -> Self {
        self.tcp_security = security;
        self
    }

    /// The users that may connect to the Unix socket; by default the one of this process
    /// and root.
    #[must_use]
    pub fn peer_uids(mut self, uids: impl IntoIterator<Item = u32>) -> Self {
        self.peer_uids = Some(uids.into_iter().collect());
        self
    }

    /// How long running mutations are waited for at the end; 60 s by default.
    #[must_use]
    pub fn drain(mut self, drain: Duration) -> Self {
        self.drain = drain;
        self
    }

    /// One more gRPC service beside those of the protocol.
    #[must_use]
    pub fn add_service<S>(mut self, service: S) -> Self
    where
        S: tower::Service<http::Request<Body>, Response = http::Response<Body>, Error = Infallible>
            + NamedService
            + Clone
            + Send
            + Sync
            + 'static,
        S::Future: Send + 'static,
    {
        self.routes.add_service(service);
        self.service_names.push(S::NAME);
        self
    }

    /// Checks what the provider says about itself and puts the services together.
    pub fn build(mut self) -> Result<Server<P>, BuildError> {
        let info = self.provider.info();
        if let Some(wrong) = checks::provider_info(&info) {
            return Err(BuildError::Info(wrong));
        }
        if P::ClusterConfig::KIND == P::MachineConfig::KIND {
            return Err(BuildError::SameKind(P::ClusterConfig::KIND));
        }
        let capabilities = self.provider.capabilities();
        let metrics = Metrics::new(&info.name, &info.version);
        let decoder = Decoder {
            max_members: capabilities.endpoint_members.map_or(0, |members| members.max_members),
            cluster: ConfigReader::new()?,
            machine: ConfigReader::new()?,
            info,
        };
        let core = Arc::new(Core::new(self.provider, decoder, capabilities, metrics));
        let service = Service(Arc::clone(&core));
        let health = HealthReporter::new();
        self.routes
            .add_service(DiscoveryServiceServer::new(service.clone()).max_decoding_message_size(MAX_MESSAGE_BYTES))
            .add_service(
                IdentityServiceServer::new(service.clone())
                    .max_decoding_message_size(MAX_MESSAGE_BYTES)
                    .max_encoding_message_size(MAX_MESSAGE_BYTES),
            )
            .add_service(
                ClusterServiceServer::new(service.clone())
                    .max_decoding_message_size(MAX_MESSAGE_BYTES)
                    .max_encoding_message_size(MAX_MESSAGE_BYTES),
            )
            .add_service(
                EndpointServiceServer::new(service.clone())
                    .max_decoding_message_size(MAX_MESSAGE_BYTES)
                    .max_encoding_message_size(MAX_MESSAGE_BYTES),
            )
            .add_service(
                MachineServiceServer::new(service)
                    .max_decoding_message_size(MAX_MESSAGE_BYTES)
                    .max_encoding_message_size(MAX_MESSAGE_BYTES),
            )
            .add_service(tonic_health::pb::health_server::HealthServer::new(
                tonic_health::server::HealthService::from_health_reporter(health.clone()),
            ));
        if self.reflection {
            let reflection = tonic_reflection::server::Builder::configure()
                .register_encoded_file_descriptor_set(actuator_proto::FILE_DESCRIPTOR_SET)
                .register_encoded_file_descriptor_set(tonic_health::pb::FILE_DESCRIPTOR_SET)
                .build_v1()
                .map_err(BuildError::Reflection)?;
            self.routes.add_service(reflection);
        }
        let own = [nix::unistd::geteuid().as_raw(), 0];
        Ok(Server {
            core,
            routes: self.routes,
            health,
            service_names: self.service_names,
            tcp_security: self.tcp_security,
            peer_uids: self.peer_uids.unwrap_or_else(|| own.to_vec()).into_iter().collect(),
            drain: self.drain,
        })
    }
}

impl<P: Provider> BoundServer<P> {
    /// Where it listens; tells the port where 0 was asked for.
    pub fn address(&self) -> &Listen {
        &self.address
    }

    /// The server's metrics.
    pub fn metrics(&self) -> Metrics {
        self.server.metrics()
    }

    /// What a scrape gives.
    pub(crate) fn scrape(&self) -> metrics_listener::Scrape {
        self.server.scrape()
    }

    /// Serves until `shutdown` is cancelled; then starts nothing more, lets what runs
    /// come to its end within bounds, and removes the socket.
    pub async fn serve(self, shutdown: CancellationToken) -> Result<(), ServeError> {
        let Self {
            server,
            address,
            listener,
        } = self;
        let Server {
            core,
            routes,
            health,
            service_names,
            peer_uids,
            drain,
            ..
        } = server;
        set_health(&health, &service_names, ServingStatus::Serving).await;
        tracing::info!(%address, provider = core.decoder.info.name, instance_id = core.instance_id, "serving");

        // Two steps: `closing` ends the accepting and the idle connections, `ended` those
        // that are left over.
        let (closing, ended) = (CancellationToken::new(), CancellationToken::new());
        let (incoming, _socket) = incoming(listener, peer_uids, &ended);
        let serving = tonic::transport::Server::builder()
            .http2_keepalive_interval(Some(KEEP_ALIVE_INTERVAL))
            .http2_keepalive_timeout(Some(KEEP_ALIVE_TIMEOUT))
            .max_concurrent_streams(MAX_CALLS_PER_CONNECTION)
            .http2_max_header_list_size(MAX_HEADER_BYTES)
            .add_routes(routes.routes())
            .serve_with_incoming_shutdown(incoming, closing.clone().cancelled_owned());
        let mut serving = tokio::spawn(serving);
        let failed_early = tokio::select! {
            () = shutdown.cancelled() => None,
            result = &mut serving => Some(result),
        };
        let _end = ended.clone().drop_guard();

        tracing::info!("shutting down");
        set_health(&health, &service_names, ServingStatus::NotServing).await;
        // Streams end and provider code is told; mutations that run are waited for.
        core.shutdown.cancel();
        core.executor.close();
        closing.cancel();
        if !core.executor.drain(drain).await {
            tracing::error!(
                running = core.executor.running(),
                "mutations are still running at the end; the core will ask what became of them"
            );
        }
        // Watches of the health end with what they watch.
        let mut health = health;
        for name in service_names.iter().copied().chain([""]) {
            health.clear_service_status(name).await;
        }
        let result = match failed_early {
            Some(result) => Some(result),
            None => match tokio::time::timeout(CLOSE, &mut serving).await {
                Ok(result) => Some(result),
                Err(_) => {
                    // Whoever still holds a connection open is cut off.
                    ended.cancel();
                    tokio::time::timeout(CLOSE, &mut serving).await.ok()
                }
            },
        };
        core.provider.shutdown().await;
        tracing::info!("stopped");
        match result {
            Some(Ok(Err(error))) => Err(ServeError::Transport(error)),
            _ => Ok(()),
        }
    }
}

async fn set_health(health: &HealthReporter, names: &[&'static str], status: ServingStatus) {
    for name in names.iter().copied().chain([""]) {
        health.set_service_status(name, status).await;
    }
}

type Incoming = std::pin::Pin<Box<dyn Stream<Item = io::Result<Connection>> + Send>>;

/// The connections that come in, each checked; and what removes the socket in the end.
fn incoming(listener: Listener, peer_uids: HashSet<u32>, ended: &CancellationToken) -> (Incoming, Option<BoundSocket>) {
    let places = Arc::new(Semaphore::new(MAX_CONNECTIONS));
    let ended = ended.clone();
    match listener {
        Listener::Unix(listener, socket) => {
            let stream = futures::stream::unfold((listener, places), move |(listener, places)| {
                let (peer_uids, ended) = (peer_uids.clone(), ended.clone());
                async move {
                    let place = Arc::clone(&places).acquire_owned().await.ok()?;
                    let accepted = accept_unix(&listener, &peer_uids, &ended, place).await;
                    Some((accepted, (listener, places)))
                }
            });
            (stream.boxed(), Some(socket))
        }
        Listener::Tcp(listener, tls) => {
            let (sender, receiver) = mpsc::channel(MAX_CONNECTIONS);
            tokio::spawn(accept_tcp(listener, tls, places, ended, sender));
            (ReceiverStream::new(receiver).boxed(), None)
        }
    }
}

async fn accept_unix(
    listener: &UnixListener,
    peer_uids: &HashSet<u32>,
    ended: &CancellationToken,
    place: OwnedSemaphorePermit,
) -> io::Result<Connection> {
    loop {
        let (stream, _) = match listener.accept().await {
            Ok(accepted) => accepted,
            Err(error) => {
                out_of_files(&error).await;
                continue;
            }
        };
        let Ok(peer) = stream.peer_cred() else { continue };
        if !peer_uids.contains(&peer.uid()) {
            tracing::warn!(
                uid = peer.uid(),
                pid = peer.pid(),
                "a connection of a user that is not allowed is refused; allow it with --allow-peer-uid"
            );
            continue;
        }
        return Ok(Connection::new(Transport::Unix(stream), ended, place));
    }
}

/// Accepts until nobody takes connections any more. Handshakes do not wait for each
/// other; they hold a place each.
async fn accept_tcp(
    listener: TcpListener,
    tls: Option<Arc<Tls>>,
    places: Arc<Semaphore>,
    ended: CancellationToken,
    sender: mpsc::Sender<io::Result<Connection>>,
) {
    // Ends with the accepting.
    let _looking = tls
        .clone()
        .map(|tls| AbortOnDropHandle::new(tokio::spawn(async move { tls.watch().await })));
    loop {
        let Ok(place) = Arc::clone(&places).acquire_owned().await else {
            return;
        };
        let (stream, peer) = tokio::select! {
            () = sender.closed() => return,
            () = ended.cancelled() => return,
            accepted = listener.accept() => match accepted {
                Ok(accepted) => accepted,
                Err(error) => {
                    out_of_files(&error).await;
                    continue;
                }
            },
        };
        // Calls are small and answered at once.
        let _ = stream.set_nodelay(true);
        let (tls, ended, sender) = (tls.clone(), ended.clone(), sender.clone());
        tokio::spawn(async move {
            let transport = match &tls {
                None => match plain(&stream).await {
                    Ok(()) => Transport::Tcp(stream),
                    Err(error) => {
                        tracing::warn!(%peer, error, "a connection is refused");
                        return;
                    }
                },
                Some(tls) => match tls.accept(stream).await {
                    Ok(stream) => Transport::Tls(Box::new(stream)),
                    Err(error) => {
                        tracing::warn!(%peer, error, "a connection is refused");
                        return;
                    }
                },
            };
            let _ = sender.send(Ok(Connection::new(transport, &ended, place))).await;
        });
    }
}

/// Looks at the first byte of a client: HTTP/2 begins with `P`, TLS with a handshake.
async fn plain(stream: &TcpStream) -> Result<(), &'static str> {
    const TLS_HANDSHAKE: u8 = 22;
    const PATIENCE: Duration = Duration::from_secs(10);
    let mut first = [0];
    match tokio::time::timeout(PATIENCE, stream.peek(&mut first)).await {
        Ok(Ok(1)) if first[0] == TLS_HANDSHAKE => Err(refusal::TLS_ON_PLAIN_TCP),
        // What is wrong with others, HTTP/2 finds out.
        _ => Ok(()),
    }
}

/// The process has no more file descriptors, most likely: trying again at once would
/// only burn time.
async fn out_of_files(error: &io::Error) {
    tracing::warn!(%error, "unable to accept a connection");
    tokio::time::sleep(Duration::from_millis(100)).await;
}
