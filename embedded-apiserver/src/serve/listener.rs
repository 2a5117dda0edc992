//! Accepting connections: TLS, who the client certificate names, HTTP/1.1 and HTTP/2.

use std::convert::Infallible;
use std::sync::Arc;
use std::time::Duration;

use http::header::{ACCEPT_ENCODING, CONTENT_ENCODING, VARY};
use http::{HeaderValue, Request, Response};
use hyper::body::Incoming;
use hyper_util::rt::{TokioExecutor, TokioIo};
use hyper_util::server::graceful::GracefulShutdown;
use rustls::server::danger::ClientCertVerifier;
use tokio::net::{TcpListener, TcpStream};
use tokio_rustls::TlsAcceptor;
use tokio_util::sync::CancellationToken;
use tower::ServiceExt as _;
use tower_http::CompressionLevel;
use tower_http::compression::CompressionLayer;

use super::client_certificate::Peer;
use super::connections::{Answering, Connections, Place};
use super::identity::Tls;
use crate::http::Body;
use crate::server::ApiServer;

/// How many connections there may be; for more, idle ones leave.
const CONNECTIONS: usize = 4096;
/// How long a handshake may take.
const HANDSHAKE: Duration = Duration::from_secs(10);
/// How often a silent HTTP/2 client is asked whether it is still there.
const PING: Duration = Duration::from_secs(30);
/// How long open requests have after the shutdown began. Watches never end by themselves.
const GRACE: Duration = Duration::from_secs(2);
/// Answers smaller than this are not worth packing.
const COMPRESS_FROM: u64 = 128 << 10;

/// Serves until cancelled.
pub(super) async fn run(server: ApiServer, socket: TcpListener, tls: Tls, shutdown: CancellationToken) {
    let acceptor = TlsAcceptor::from(tls.config);
    let verifier = tls.client_certificates;
    let connections = Connections::new(CONNECTIONS);
    let graceful = GracefulShutdown::new();
    let closing = CancellationToken::new();
    loop {
        let accepted = tokio::select! {
            () = shutdown.cancelled() => break,
            accepted = accept(&socket, &connections) => accepted,
        };
        let Some((stream, place)) = accepted else { continue };
        let (server, acceptor, watcher, closing) =
            (server.clone(), acceptor.clone(), graceful.watcher(), closing.clone());
        let verifier = Arc::clone(&verifier);
        tokio::spawn(async move {
            tokio::select! {
                () = closing.cancelled() => {}
                () = place.left() => {}
                () = connection(server, acceptor, verifier, stream, watcher, &place) => {}
            }
        });
    }
    drop(socket);
    if tokio::time::timeout(GRACE, graceful.shutdown()).await.is_err() {
        closing.cancel();
    }
}

async fn accept(socket: &TcpListener, connections: &Arc<Connections>) -> Option<(TcpStream, Arc<Place>)> {
    let place = connections.place().await;
    match socket.accept().await {
        Ok((stream, _)) => {
            // Events are small and must not wait for more.
            let _ = stream.set_nodelay(true);
            Some((stream, place))
        }
        Err(error) => {
            // Out of descriptors, most likely: whoever is idle makes room. Trying at once would only spin.
            let room = connections.evict();
            tracing::debug!(%error, room, "unable to accept a connection");
            tokio::time::sleep(Duration::from_millis(if room { 1 } else { 100 })).await;
            None
        }
    }
}

async fn connection(
    server: ApiServer,
    acceptor: TlsAcceptor,
    verifier: Arc<dyn ClientCertVerifier>,
    stream: TcpStream,
    watcher: hyper_util::server::graceful::Watcher,
    place: &Arc<Place>,
) {
    let stream = match tokio::time::timeout(HANDSHAKE, acceptor.accept(stream)).await {
        Ok(Ok(stream)) => stream,
        Ok(Err(error)) => {
            tracing::debug!(%error, "a TLS handshake failed");
            return;
        }
        Err(_) => return,
    };
    let peer = Peer::new(verifier.as_ref(), stream.get_ref().1.peer_certificates());
    let place = Arc::clone(place);
    let answer = tower::service_fn(move |request: Request<Incoming>| {
        let handler = server.handler();
        let caller = peer.caller(jiff::Timestamp::now());
        let busy = place.busy();
        async move {
            let answer = handler.handle(caller, request).await;
            Ok::<Response<Answering<Body>>, Infallible>(answer.map(|body| Answering::new(body, busy)))
        }
    });
    let worth_it = |_: http::StatusCode, _: http::Version, headers: &http::HeaderMap, _: &http::Extensions| {
        let length = headers
            .get(http::header::CONTENT_LENGTH)
            .and_then(|length| length.to_str().ok());
        length
            .and_then(|length| length.parse::<u64>().ok())
            .is_some_and(|length| length >= COMPRESS_FROM)
    };
    let service = tower::ServiceBuilder::new()
        .map_request(only_plain_gzip)
        .map_response(varies)
        .layer(
            CompressionLayer::new()
                .gzip(true)
                .quality(CompressionLevel::Fastest)
                .compress_when(worth_it),
        )
        .map_response(with_length)
        .service(answer);
    let service = hyper_util::service::TowerToHyperService::new(service.boxed_clone());
    let mut builder = hyper_util::server::conn::auto::Builder::new(TokioExecutor::new());
    builder.http1().timer(hyper_util::rt::TokioTimer::new());
    builder
        .http2()
        .timer(hyper_util::rt::TokioTimer::new())
        .max_concurrent_streams(1000)
        // A peer that is gone without a word would keep its watches for ever.
        .keep_alive_interval(PING)
        .keep_alive_timeout(HANDSHAKE);
    let connection = builder
        .serve_connection_with_upgrades(TokioIo::new(stream), service)
        .into_owned();
    if let Err(error) = watcher.watch(connection).await {
        tracing::debug!(%error, "a connection ended");
    }
}

/// The real server packs answers for clients that take `gzip`, and looks at no qualities.
fn only_plain_gzip<B>(mut request: Request<B>) -> Request<B> {
    let takes = request
        .headers()
        .get(ACCEPT_ENCODING)
        .and_then(|codings| codings.to_str().ok())
        .is_some_and(|codings| codings.split(',').any(|coding| coding.trim() == "gzip"));
    if takes {
        request
            .headers_mut()
            .insert(ACCEPT_ENCODING, HeaderValue::from_static("gzip"));
    } else {
        request.headers_mut().remove(ACCEPT_ENCODING);
    }
    request
}

/// Only packed answers say that they depend on what the client packs and unpacks.
fn varies<B>(mut response: Response<B>) -> Response<B> {
    let packed = response.headers().contains_key(CONTENT_ENCODING);
    let others: Vec<HeaderValue> = response
        .headers()
        .get_all(VARY)
        .iter()
        .filter(|vary| !vary.as_bytes().eq_ignore_ascii_case(b"accept-encoding"))
        .cloned()
        .collect();
    let headers = response.headers_mut();
    headers.remove(VARY);
    for vary in others {
        headers.append(VARY, vary);
    }
    if packed {
        headers.append(VARY, HeaderValue::from_static("Accept-Encoding"));
    }
    response
}

/// Puts the length of whole bodies into the headers, where the compression looks for it.
fn with_length<B: http_body::Body>(mut response: Response<B>) -> Response<B> {
    if let Some(length) = response.body().size_hint().exact() {
        response
            .headers_mut()
            .insert(http::header::CONTENT_LENGTH, length.into());
    }
    response
}
