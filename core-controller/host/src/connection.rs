//! One HTTP/2 connection over a stream that was dialled and checked, as a service for
//! gRPC. It never dials by itself: a new connection has to be discovered first.

use std::error::Error as StdError;
use std::future::Future;
use std::io;
use std::pin::Pin;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, OnceLock};
use std::task::{Context, Poll};
use std::time::Duration;

use actuator_proto::limits::{KEEP_ALIVE_INTERVAL, MAX_STRING_BYTES, bounded_line};
use http::Uri;
use hyper::body::Incoming;
use hyper::client::conn::http2;
use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio_util::sync::CancellationToken;
use tonic::Status;
use tonic::body::Body;

use crate::tls_trouble;

/// What a peer may send as headers and trailers: an error status of 100 KiB still comes
/// through, to be cut here. A larger one ends the connection with all calls on it, since
/// HTTP/2 cannot skip headers, and the provider is dialled again.
const MAX_HEADER_LIST_BYTES: u32 = 256 * 1024;
/// What one answer may send before it is read.
const STREAM_WINDOW_BYTES: u32 = 1024 * 1024;
/// What all answers together may send before they are read: streams that are read
/// slowly never hold up the calls beside them.
const CONNECTION_WINDOW_BYTES: u32 = 32 * 1024 * 1024;
/// The kind of record in which TLS says that it does not go on.
const TLS_ALERT: u8 = 21;
/// How long the answer to a keep-alive may take.
const KEEP_ALIVE_TIMEOUT: Duration = Duration::from_secs(10);

/// A connection; clones share it, and it closes when the last one is dropped and no
/// call is under way.
#[derive(Clone)]
pub(crate) struct Connection {
    sender: http2::SendRequest<Body>,
    origin: Uri,
    closed: CancellationToken,
    why: Arc<OnceLock<String>>,
    seen: Arc<Seen>,
}

/// What the stream under a connection saw of TLS; HTTP/2 keeps no errors but their words.
#[derive(Default)]
struct Seen {
    /// The first byte was one of TLS.
    tls: AtomicBool,
    /// Why the peer does not go on.
    alert: OnceLock<rustls::AlertDescription>,
}

/// The stream under a connection.
pub(crate) trait Stream: AsyncRead + AsyncWrite + Unpin + Send + 'static {}
impl<T: AsyncRead + AsyncWrite + Unpin + Send + 'static> Stream for T {}

impl Connection {
    /// Speaks HTTP/2 over `stream`. `authority` is what requests are addressed to.
    pub(crate) async fn over(stream: impl Stream, tls: bool, authority: &str) -> Result<Self, String> {
        let scheme = if tls { "https" } else { "http" };
        let seen = Arc::<Seen>::default();
        let stream = Watched {
            stream,
            seen: seen.clone(),
            began: tls,
        };
        let origin = format!("{scheme}://{authority}")
            .parse()
            .map_err(|error| format!("{authority:?} is no authority: {error}"))?;
        let (sender, connection) = http2::Builder::new(TokioExecutor::new())
            .timer(TokioTimer::new())
            .keep_alive_interval(KEEP_ALIVE_INTERVAL)
            .keep_alive_timeout(KEEP_ALIVE_TIMEOUT)
            .keep_alive_while_idle(true)
            .max_header_list_size(MAX_HEADER_LIST_BYTES)
            .initial_stream_window_size(STREAM_WINDOW_BYTES)
            .initial_connection_window_size(CONNECTION_WINDOW_BYTES)
            .handshake(TokioIo::new(stream))
            .await
            .map_err(|error| format!("the peer does not speak HTTP/2: {error}"))?;
        let closed = CancellationToken::new();
        let closes = closed.clone().drop_guard();
        let why = Arc::<OnceLock<String>>::default();
        let because = why.clone();
        tokio::spawn(async move {
            if let Err(error) = connection.await {
                because.get_or_init(|| chain(&error));
            }
            drop(closes);
        });
        Ok(Self {
            sender,
            origin,
            closed,
            why,
            seen,
        })
    }

    /// Ends when the connection has ended.
    pub(crate) fn closed(&self) -> impl Future<Output = ()> + Send + use<> {
        self.closed.clone().cancelled_owned()
    }

    pub(crate) fn is_closed(&self) -> bool {
        self.closed.is_cancelled() || self.sender.is_closed()
    }

    /// Why it has ended, once it has.
    pub(crate) fn why_closed(&self) -> Option<&str> {
        self.why.get().map(String::as_str)
    }

    /// What the peer said in TLS when it did not go on.
    pub(crate) fn alert(&self) -> Option<rustls::AlertDescription> {
        self.seen.alert.get().copied()
    }

    /// Whether the peer's first byte was one of TLS, though TLS is not spoken here.
    pub(crate) fn was_answered_with_tls(&self) -> bool {
        self.seen.tls.load(Ordering::Acquire)
    }

    /// A client with the sizes of the contract.
    pub(crate) fn grpc(&self) -> tonic::client::Grpc<Self> {
        tonic::client::Grpc::with_origin(self.clone(), self.origin.clone())
            .max_decoding_message_size(actuator_proto::limits::MAX_MESSAGE_BYTES)
            .max_encoding_message_size(actuator_proto::limits::MAX_MESSAGE_BYTES)
    }
}

/// A stream whose first byte is looked at, and its end: HTTP/2 begins with a length below
/// 2^16, TLS with an alert.
struct Watched<S> {
    stream: S,
    seen: Arc<Seen>,
    began: bool,
}

impl<S: Stream> Watched<S> {
    /// A peer that has closed lets writing fail; what it said before is still to be read,
    /// and tells more.
    fn last_words<T>(&mut self, cx: &mut Context<'_>, result: Poll<io::Result<T>>) -> Poll<io::Result<T>> {
        if matches!(result, Poll::Ready(Err(_))) {
            let mut scratch = [0; 512];
            let mut buffer = ReadBuf::new(&mut scratch);
            if let Poll::Ready(Err(error)) = Pin::new(&mut self.stream).poll_read(cx, &mut buffer) {
                self.ended(&error);
            }
        }
        result
    }

    fn ended(&self, error: &io::Error) {
        if let Some(rustls::Error::AlertReceived(alert)) = tls_trouble::under(error) {
            self.seen.alert.get_or_init(|| *alert);
        }
    }
}

impl<S: Stream> AsyncRead for Watched<S> {
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buffer: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        let before = buffer.filled().len();
        let read = Pin::new(&mut self.stream).poll_read(cx, buffer);
        if let Poll::Ready(Err(error)) = &read {
            self.ended(error);
        }
        if !self.began
            && let Some(first) = buffer.filled().get(before)
        {
            self.began = true;
            self.seen.tls.store(*first == TLS_ALERT, Ordering::Release);
        }
        read
    }
}

impl<S: Stream> AsyncWrite for Watched<S> {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        let written = Pin::new(&mut self.stream).poll_write(cx, bytes);
        self.last_words(cx, written)
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let flushed = Pin::new(&mut self.stream).poll_flush(cx);
        self.last_words(cx, flushed)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(cx)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        slices: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let written = Pin::new(&mut self.stream).poll_write_vectored(cx, slices);
        self.last_words(cx, written)
    }

    fn is_write_vectored(&self) -> bool {
        self.stream.is_write_vectored()
    }
}

/// An error with its causes, bounded.
fn chain(error: &(dyn StdError + 'static)) -> String {
    let mut words = error.to_string();
    let mut source = error.source();
    while let Some(error) = source {
        words = format!("{words}: {error}");
        source = error.source();
    }
    bounded_line(&words, MAX_STRING_BYTES)
}

impl tower::Service<http::Request<Body>> for Connection {
    type Response = http::Response<Incoming>;
    type Error = Status;
    type Future = Pin<Box<dyn Future<Output = Result<Self::Response, Status>> + Send>>;

    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), Status>> {
        self.sender
            .poll_ready(cx)
            .map_err(|_| Status::unavailable("the connection to the provider is closed"))
    }

    fn call(&mut self, request: http::Request<Body>) -> Self::Future {
        let answer = self.sender.send_request(request);
        Box::pin(async move {
            answer.await.map_err(|error| {
                if error.is_canceled() || error.is_closed() || error.is_incomplete_message() {
                    Status::unavailable("the connection to the provider was lost")
                } else {
                    Status::from_error(Box::new(error))
                }
            })
        })
    }
}
