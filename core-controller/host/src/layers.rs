//! What every call with one answer goes through, as tower layers, from the outside:
//! counted and traced ([`Observe`]), given its turn ([`Queue`]), let through by circuit
//! and pauses, which learn from its end ([`Gate`]), ended by its deadline
//! ([`Deadline`]), made twice if it is a read that was lost ([`ReadAgain`]), sent
//! ([`Sender`]).

use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::{Duration, Instant};

use actuator_proto::bytes_codec::BytesCodec;
use actuator_proto::errors::Recovery;
use actuator_proto::secrets::Secrets;
use bytes::Bytes;
use http::uri::PathAndQuery;
use tonic::client::Grpc;
use tonic::{Code, Request, Status};
use tower::layer::util::{Identity, Stack};
use tower::{Layer, Service, ServiceBuilder, ServiceExt as _};
use tracing::Instrument as _;

use crate::backoff;
use crate::breaker::CircuitState;
use crate::call_error::CallError;
use crate::connection::Connection;
use crate::disposition::Refusal;
use crate::handle::CredentialId;
use crate::rpc::Rpc;
use crate::shared::{Session, Shared};
use crate::trace;

/// How long a lost read waits for another connection before it is made again.
const READ_AGAIN_WITHIN: Duration = Duration::from_secs(1);

/// A call on its way.
#[derive(Clone)]
pub(crate) struct Call {
    pub(crate) shared: Arc<Shared>,
    pub(crate) rpc: Rpc,
    pub(crate) credential: CredentialId,
    /// The encoded request. It may hold secrets: never printed.
    body: Bytes,
    /// What may not come back.
    secrets: Secrets,
    session: Option<Arc<Session>>,
    deadline: Option<Instant>,
}

impl Call {
    pub(crate) fn new(shared: Arc<Shared>, rpc: Rpc, credential: CredentialId, body: Bytes, secrets: Secrets) -> Self {
        Self {
            shared,
            rpc,
            credential,
            body,
            secrets,
            session: None,
            deadline: None,
        }
    }
}

/// What came back.
pub(crate) struct Reply {
    /// The encoded answer.
    pub(crate) body: Bytes,
    connection: u64,
}

pub(crate) type Outcome = Result<Reply, CallError>;

/// What a layer does around the rest.
pub(crate) trait Around: Copy + Send + Sync + 'static {
    /// Makes the call through `inner`.
    fn around<S: Inner>(self, call: Call, inner: S) -> impl Future<Output = Outcome> + Send;
}

/// The rest of the layers.
pub(crate) trait Inner:
    Service<Call, Response = Reply, Error = CallError, Future: Send> + Clone + Send + 'static
{
}
impl<S> Inner for S where S: Service<Call, Response = Reply, Error = CallError, Future: Send> + Clone + Send + 'static {}

/// A layer made of what it does around the rest.
#[derive(Clone, Copy)]
pub(crate) struct AroundLayer<A>(A);

/// A service with a layer around it.
#[derive(Clone, Copy)]
pub(crate) struct AroundService<A, S> {
    around: A,
    inner: S,
}

impl<A: Copy, S> Layer<S> for AroundLayer<A> {
    type Service = AroundService<A, S>;

    fn layer(&self, inner: S) -> Self::Service {
        AroundService { around: self.0, inner }
    }
}

impl<A: Around, S: Inner> Service<Call> for AroundService<A, S> {
    type Response = Reply;
    type Error = CallError;
    type Future = Pin<Box<dyn Future<Output = Outcome> + Send>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), CallError>> {
        // Calls wait in `Queue`, where they can be counted.
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, call: Call) -> Self::Future {
        Box::pin(self.around.around(call, self.inner.clone()))
    }
}

type Layers = Stack<
    AroundLayer<ReadAgain>,
    Stack<
        AroundLayer<Deadline>,
        Stack<AroundLayer<Gate>, Stack<AroundLayer<Queue>, Stack<AroundLayer<Observe>, Identity>>>,
    >,
>;

/// All layers, outermost first.
pub(crate) fn stack() -> Layers {
    ServiceBuilder::new()
        .layer(AroundLayer(Observe))
        .layer(AroundLayer(Queue))
        .layer(AroundLayer(Gate))
        .layer(AroundLayer(Deadline))
        .layer(AroundLayer(ReadAgain))
        .into_inner()
}

/// Counts calls, and puts each into a span.
#[derive(Clone, Copy)]
pub(crate) struct Observe;

impl Around for Observe {
    async fn around<S: Inner>(self, call: Call, inner: S) -> Outcome {
        let (shared, rpc) = (call.shared.clone(), call.rpc);
        let span = tracing::info_span!(
            "provider call",
            otel.kind = "client",
            rpc.system = "grpc",
            rpc.method = rpc.name(),
            provider = &*shared.name,
            result = tracing::field::Empty,
        );
        let started = Instant::now();
        let outcome = inner.oneshot(call).instrument(span.clone()).await;
        let (result, sent) = match &outcome {
            Ok(_) => ("OK", true),
            Err(error) => (error.reason(), error.facts.refusal.is_none()),
        };
        span.record("result", result);
        shared
            .host
            .metrics
            .called(&shared.name, rpc, result, sent.then(|| started.elapsed()));
        outcome
    }
}

/// Gives each call its turn: a place in its lane, and a token of the rate.
#[derive(Clone, Copy)]
pub(crate) struct Queue;

impl Around for Queue {
    async fn around<S: Inner>(self, call: Call, inner: S) -> Outcome {
        let shared = call.shared.clone();
        // What could not be sent now does not wait either.
        shared.admit(call.rpc, &call.credential)?;
        let busy = |after, message: &str| {
            Err(CallError::refused(
                &shared.name,
                call.rpc,
                Refusal::Busy,
                Some(after),
                message,
            ))
        };
        let Ok(_place) = shared.lanes().enter(call.rpc.lane(), &call.credential).await else {
            let message = "too many calls of this kind wait for the provider already; nothing was sent";
            return busy(Duration::from_secs(1), message);
        };
        if call.rpc.reaches_cloud() {
            match shared.take_token(Instant::now()) {
                Ok(wait) if wait.is_zero() => {}
                Ok(wait) => tokio::time::sleep(wait).await,
                Err(wait) => return busy(wait, "the rate limit of this provider is used up; nothing was sent"),
            }
        }
        inner.oneshot(call).await
    }
}

/// Lets calls through while the circuit is closed and nothing is paused, and learns
/// from how they end.
#[derive(Clone, Copy)]
pub(crate) struct Gate;

impl Around for Gate {
    async fn around<S: Inner>(self, mut call: Call, inner: S) -> Outcome {
        let (shared, rpc, credential) = (call.shared.clone(), call.rpc, call.credential.clone());
        let session = shared.admit(rpc, &credential)?;
        call.session = Some(session.clone());
        let started = Instant::now();
        match inner.oneshot(call).await {
            Ok(reply) => {
                shared.breaker.lock().answered(reply.connection);
                if rpc.reaches_cloud() {
                    shared.pauses.lock().passed(&credential, started);
                }
                Ok(reply)
            }
            Err(error) => Err(learn(&shared, &session, &credential, started, error)),
        }
    }
}

/// What the circuit and the pauses learn from an error.
pub(crate) fn learn(
    shared: &Shared,
    session: &Session,
    credential: &CredentialId,
    started: Instant,
    mut error: CallError,
) -> CallError {
    if error.facts.refusal.is_some() {
        return error;
    }
    let (now, random) = (Instant::now(), rand::random());
    let classified = &error.classified;
    let connection = error.connection.unwrap_or(session.connection);
    if classified.from_provider {
        shared.breaker.lock().answered(connection);
    }
    let broken = match classified.recovery {
        Recovery::Break | Recovery::BreakThenResolve => true,
        Recovery::Fallback if error.facts.rpc.is_optional() => {
            session.lacks(error.facts.rpc);
            false
        }
        Recovery::Fallback => true,
        _ => false,
    };
    if broken {
        let opened = shared.breaker.lock().broken(connection, now, random);
        if opened {
            if classified.recovery == Recovery::Break || classified.recovery == Recovery::Fallback {
                tracing::error!(provider = %shared.name, error = %error, "the circuit opens: the provider is not usable as it is");
            } else {
                tracing::warn!(provider = %shared.name, error = %error, "the circuit opens: the provider does not answer");
            }
            let sentence = format!("the circuit is open: {error}");
            shared.update(|snapshot| snapshot.message = sentence);
            shared.redial.notify_one();
        }
        let breaker = shared.breaker.lock();
        if breaker.state() != CircuitState::Closed {
            error.facts.closed_for = Some(breaker.remaining(now));
        }
        return error;
    }
    let asked = classified.retry_after;
    let paused = match classified.recovery {
        Recovery::Throttle => Some(shared.pauses.lock().throttled(credential, started, now, asked, random)),
        Recovery::RetryProvider => Some(shared.pauses.lock().cloud_down(started, now, asked, random)),
        _ => None,
    };
    if paused.is_some() {
        shared.host.metrics.paused(&shared.name);
        error.facts.closed_for = paused;
    } else if classified.from_provider && error.facts.rpc.reaches_cloud() {
        shared.pauses.lock().passed(credential, started);
    }
    error
}

/// Ends a call that takes too long: the provider is told the deadline, and the host's
/// own timer ends the call a little later.
#[derive(Clone, Copy)]
pub(crate) struct Deadline;

impl Around for Deadline {
    async fn around<S: Inner>(self, mut call: Call, inner: S) -> Outcome {
        let (shared, rpc) = (call.shared.clone(), call.rpc);
        let timings = call
            .session
            .as_ref()
            .map(|session| session.info.timings)
            .unwrap_or_default();
        let Some(length) = rpc.deadline(&timings) else {
            return inner.oneshot(call).await;
        };
        let length = length.min(shared.host.times.max_deadline);
        call.deadline = Some(Instant::now() + length);
        let ended = tokio::time::timeout(length + shared.host.times.deadline_grace, inner.oneshot(call)).await;
        ended.unwrap_or_else(|_| {
            let message = format!("no answer within {length:?}; what the call did is not known");
            Err(CallError::from_status(
                &shared.name,
                rpc,
                &Status::deadline_exceeded(message),
            ))
        })
    }
}

/// Makes a read once more that the transport has lost. Mutations are never repeated.
#[derive(Clone, Copy)]
pub(crate) struct ReadAgain;

impl Around for ReadAgain {
    async fn around<S: Inner>(self, mut call: Call, inner: S) -> Outcome {
        if call.rpc.is_mutation() {
            return inner.oneshot(call).await;
        }
        let again = call.clone();
        let error = match inner.clone().oneshot(call).await {
            Err(error) if error.classified.code == Code::Unavailable && !error.classified.from_provider => error,
            outcome => return outcome,
        };
        call = again;
        let lost = error.connection.unwrap_or_default();
        let Some(session) = another_session(&call.shared, lost).await else {
            return Err(error);
        };
        call.session = Some(session);
        inner.oneshot(call).await
    }
}

/// The session on another connection than the one that was lost, waiting a little for
/// it; or the same one if it is still open.
async fn another_session(shared: &Shared, lost: u64) -> Option<Arc<Session>> {
    let found = async {
        loop {
            let changed = shared.session_changed.notified();
            tokio::pin!(changed);
            changed.as_mut().enable();
            match shared.session() {
                Some(session) if session.connection > lost || !session.channel.is_closed() => return session,
                _ => changed.await,
            }
        }
    };
    tokio::time::sleep(backoff::MIN_BACKOFF.mul_f64(0.05 + 0.05 * rand::random::<f64>())).await;
    tokio::time::timeout(READ_AGAIN_WITHIN, found).await.ok()
}

/// Sends a call over the connection of its session.
#[derive(Clone, Copy)]
pub(crate) struct Sender;

impl Service<Call> for Sender {
    type Response = Reply;
    type Error = CallError;
    type Future = Pin<Box<dyn Future<Output = Outcome> + Send>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), CallError>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, call: Call) -> Self::Future {
        Box::pin(send(call))
    }
}

async fn send(call: Call) -> Outcome {
    let Some(session) = &call.session else {
        let message = "the call has no session; nothing was sent";
        return Err(CallError::refused(
            &call.shared.name,
            call.rpc,
            Refusal::Unavailable,
            None,
            message,
        ));
    };
    let remaining = call
        .deadline
        .map(|deadline| deadline.saturating_duration_since(Instant::now()));
    let mut grpc = session.channel.grpc();
    if grpc.ready().await.is_err() {
        // The provider is going, or gone. The supervisor dials as soon as it sees that.
        let message = "the provider is closing the connection; nothing was sent";
        let mut error = CallError::refused(&call.shared.name, call.rpc, Refusal::Unavailable, None, message);
        error.connection = Some(session.connection);
        return Err(error);
    }
    let answer = send_on(session, grpc, call.rpc, call.body, remaining).await;
    let secrets = &call.secrets;
    answer
        .map(|body| Reply {
            body: if secrets.is_empty() {
                body
            } else {
                secrets.masked(&body).into()
            },
            connection: session.connection,
        })
        .map_err(|status| {
            let status = secrets.mask_status(status);
            let mut error = CallError::from_status(&call.shared.name, call.rpc, &status);
            error.connection = Some(session.connection);
            error
        })
}

async fn send_on(
    session: &Session,
    mut grpc: Grpc<Connection>,
    rpc: Rpc,
    body: Bytes,
    timeout: Option<Duration>,
) -> Result<Bytes, Status> {
    let mut request = Request::new(body);
    if let Some(timeout) = timeout {
        request.set_timeout(timeout);
    }
    trace::inject(request.metadata_mut());
    let path = PathAndQuery::from_static(rpc.path());
    match grpc.unary(request, path, BytesCodec).await {
        Ok(response) => Ok(response.into_inner()),
        Err(status) => Err(lost(session, status)),
    }
}

/// What happens to calls when their connection goes is told in many codes: it is one.
pub(crate) fn lost(session: &Session, status: Status) -> Status {
    let vague = matches!(status.code(), Code::Unknown | Code::Internal | Code::Cancelled);
    if vague && status.details().is_empty() && (session.channel.is_closed() || stream_broke(&status)) {
        return Status::unavailable(format!("the connection to the provider was lost: {}", status.message()));
    }
    status
}

/// Whether an error comes from the stream under the connection. The connection itself
/// may learn of it a moment later than its calls.
fn stream_broke(status: &Status) -> bool {
    let mut cause = std::error::Error::source(status);
    while let Some(error) = cause {
        if error.is::<std::io::Error>() {
            return true;
        }
        cause = error.source();
    }
    false
}
