//! What all services share: how a mutation and a read are run.

use std::panic::AssertUnwindSafe;
use std::sync::Arc;

use actuator_proto::errors::ActuatorError;
use actuator_proto::v1::{self, Effect, ErrorReason};
use futures::FutureExt;
use futures::future::BoxFuture;
use tokio::sync::{Semaphore, SemaphorePermit};
use tokio_util::sync::CancellationToken;
use tonic::{Request, Response, Status};

use crate::answer::Diagnostic;
use crate::config::invalid;
use crate::context::CallContext;
use crate::decode::{Arrival, Decoder, Mutation, Reading};
use crate::operations::executor::{Executor, panicked};
use crate::outgoing::{Bounds, Removal};
use crate::provider::Provider;
use crate::request::Validation;
use crate::telemetry::calls::{About, Call, Method, deadline_of, outgoing};
use crate::telemetry::metrics::Metrics;
use actuator_proto::secrets::Secrets;

/// Reads that run at a time.
const MAX_READS: usize = 1024;
/// Watches and console streams that run at a time.
const MAX_STREAMS: usize = 128;

/// What a mutation gives.
#[derive(Debug, Clone)]
pub(crate) enum Outcome {
    Cluster(Box<v1::ClusterStatus>),
    Machine(Box<v1::MachineStatus>),
    Removal(Box<Removal>),
    Members(Box<v1::SetEndpointMembersResponse>),
}

/// A provider with everything that serves it.
pub(crate) struct Core<P: Provider> {
    pub(crate) provider: Arc<P>,
    pub(crate) decoder: Decoder<P::ClusterConfig, P::MachineConfig>,
    pub(crate) capabilities: v1::Capabilities,
    pub(crate) instance_id: String,
    pub(crate) executor: Executor<Outcome>,
    pub(crate) metrics: Metrics,
    pub(crate) shutdown: CancellationToken,
    reads: Semaphore,
    pub(crate) streams: Arc<Semaphore>,
}

/// One gRPC service over a provider.
pub(crate) struct Service<P: Provider>(pub(crate) Arc<Core<P>>);

impl<P: Provider> Clone for Service<P> {
    fn clone(&self) -> Self {
        Self(Arc::clone(&self.0))
    }
}

impl<P: Provider> Core<P> {
    pub(crate) fn new(
        provider: P,
        decoder: Decoder<P::ClusterConfig, P::MachineConfig>,
        capabilities: v1::Capabilities,
        metrics: Metrics,
    ) -> Self {
        Self {
            provider: Arc::new(provider),
            executor: Executor::new(decoder.info.limits.max_concurrent_mutations, metrics.joined()),
            decoder,
            capabilities,
            instance_id: uuid::Uuid::new_v4().to_string(),
            metrics,
            shutdown: CancellationToken::new(),
            reads: Semaphore::new(MAX_READS),
            streams: Arc::new(Semaphore::new(MAX_STREAMS)),
        }
    }

    pub(crate) fn begin<R>(&self, method: Method, about: &About, request: &Request<R>) -> (Call, Arrival) {
        let call = Call::begin(method, request.metadata(), about, &self.metrics);
        let arrival = Arrival {
            deadline: deadline_of(request.metadata()),
            shutdown: self.shutdown.clone(),
        };
        (call, arrival)
    }

    pub(crate) fn bounds(&self, secrets: Secrets, effect: Effect) -> Bounds {
        Bounds {
            prefix: self.decoder.info.provider_id_prefix.clone(),
            secrets,
            effect,
        }
    }

    /// Runs a mutation in its order. `validate` judges the config first, `work` is what
    /// the provider does; both are the provider's code.
    pub(crate) async fn mutate<R, V, W, T>(
        self: &Arc<Self>,
        call: Call,
        secrets: Secrets,
        decoded: Result<Mutation<R>, ActuatorError>,
        validate: V,
        work: W,
        answer: fn(Outcome) -> Option<T>,
    ) -> Result<Response<T>, Status>
    where
        R: Send + Sync + 'static,
        V: for<'a> FnOnce(&'a P, &'a CallContext, &'a R) -> BoxFuture<'a, Result<Vec<Diagnostic>, ActuatorError>>,
        W: FnOnce(
                Arc<P>,
                crate::context::OperationContext,
                R,
                Bounds,
            ) -> BoxFuture<'static, Result<Outcome, ActuatorError>>
            + Send
            + 'static,
    {
        let masks = secrets.clone();
        call.answer(async move {
            let outcome = async {
                let mutation = decoded?;
                self.executor
                    .check_epoch(&mutation.management_cluster_id, mutation.context.fencing_epoch)?;
                let found = self
                    .guarded(validate(&self.provider, &mutation.context, &mutation.request))
                    .await?;
                if found.iter().any(Diagnostic::is_error) {
                    return Err(invalid(&found));
                }
                let bounds = self.bounds(secrets, Effect::Unknown);
                let (provider, metrics) = (Arc::clone(&self.provider), self.metrics.clone());
                let (context, request) = (mutation.context, mutation.request);
                let deadline = context.deadline();
                // Nothing of the provider runs before its turn has come.
                let work = async move { counted(work(provider, context, request, bounds), &metrics).await };
                self.executor
                    .run(mutation.key, mutation.intent, deadline, work.boxed())
                    .await
            };
            let outcome = outcome.await.map_err(|error| outgoing(error, &masks))?;
            answer(outcome).map(Response::new).ok_or_else(|| {
                let error = ActuatorError::new(ErrorReason::ProviderBug, "the operation gave another kind of answer")
                    .with_effect(Effect::Unknown);
                outgoing(error, &masks)
            })
        })
        .await
    }

    /// Runs a read: it never waits behind a mutation, and ends when its caller goes.
    pub(crate) async fn read<R, W, T, F>(
        self: &Arc<Self>,
        call: Call,
        secrets: Secrets,
        decoded: Result<Reading<R>, ActuatorError>,
        work: W,
    ) -> Result<Response<T>, Status>
    where
        W: FnOnce(Arc<P>, CallContext, R, Bounds) -> F,
        F: Future<Output = Result<T, ActuatorError>>,
    {
        let masks = secrets.clone();
        call.answer(async move {
            let answer = async {
                let reading = decoded?;
                let _place = self.place()?;
                let bounds = self.bounds(secrets, Effect::None);
                let work = work(Arc::clone(&self.provider), reading.context, reading.request, bounds);
                self.guarded(work).await
            };
            answer.await.map(Response::new).map_err(|error| outgoing(error, &masks))
        })
        .await
    }

    fn place(&self) -> Result<SemaphorePermit<'_>, ActuatorError> {
        self.reads.try_acquire().map_err(|_| too_many("reads"))
    }

    /// Runs provider code that changes nothing; a panic becomes an error.
    pub(crate) async fn guarded<T>(
        &self,
        work: impl Future<Output = Result<T, ActuatorError>>,
    ) -> Result<T, ActuatorError> {
        AssertUnwindSafe(work).catch_unwind().await.unwrap_or_else(|_| {
            self.metrics.panicked();
            Err(panicked())
        })
    }

    pub(crate) async fn validate_cluster(
        provider: &P,
        context: &CallContext,
        config: &P::ClusterConfig,
    ) -> Result<Vec<Diagnostic>, ActuatorError> {
        provider.validate_cluster(context, &before_mutation(config)).await
    }

    pub(crate) async fn validate_machine(
        provider: &P,
        context: &CallContext,
        config: &P::MachineConfig,
    ) -> Result<Vec<Diagnostic>, ActuatorError> {
        provider.validate_machine(context, &before_mutation(config)).await
    }
}

/// Counts a panic of a mutation and lets it go on to where it becomes an error.
async fn counted<T>(work: impl Future<Output = T>, metrics: &Metrics) -> T {
    match AssertUnwindSafe(work).catch_unwind().await {
        Ok(result) => result,
        Err(panic) => {
            metrics.panicked();
            std::panic::resume_unwind(panic)
        }
    }
}

fn before_mutation<C: Clone>(config: &C) -> Validation<C> {
    Validation {
        config: config.clone(),
        previous: None,
        preflight: false,
    }
}

/// No validation, for mutations without a config.
pub(crate) fn nothing_to_validate<'a, P, R>(
    _: &'a P,
    _: &'a CallContext,
    _: &'a R,
) -> BoxFuture<'a, Result<Vec<Diagnostic>, ActuatorError>> {
    futures::future::ready(Ok(Vec::new())).boxed()
}

/// The secrets of the credentials of a request.
pub(crate) fn secrets_of(credentials: Option<&v1::Credentials>) -> Secrets {
    Secrets::of_request(credentials, None)
}

pub(crate) fn too_many(what: &str) -> ActuatorError {
    ActuatorError::new(
        ErrorReason::TooManyInFlight,
        format!("as many {what} are running as the provider can bear; try again later"),
    )
    .with_retry_after(std::time::Duration::from_secs(1))
}

/// What a call of an optional part gets that the provider has not.
pub(crate) fn not_advertised(capability: &str) -> Status {
    Status::unimplemented(format!("this provider does not have the capability {capability}"))
}
