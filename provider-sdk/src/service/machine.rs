//! `MachineService`.

use std::sync::Arc;

use actuator_proto::v1::machine_service_server::MachineService;
use actuator_proto::v1::{self, Effect, Presence};
use futures::FutureExt;
use futures::stream::BoxStream;
use tonic::{Request, Response, Status, async_trait};

use super::core::{Core, Outcome, Service, not_advertised, nothing_to_validate, secrets_of, too_many};
use super::streams;
use crate::answer::Existence;
use crate::outgoing::Bounds;
use crate::provider::Provider;
use crate::telemetry::calls::{About, Method, Weight, outgoing};

const fn method(name: &'static str, weight: Weight) -> Method {
    Method {
        service: "actuator.v1.MachineService",
        name,
        weight,
    }
}

#[async_trait]
impl<P: Provider> MachineService for Service<P> {
    type WatchMachinesStream = BoxStream<'static, Result<v1::WatchMachinesResponse, Status>>;
    type GetConsoleOutputStream = BoxStream<'static, Result<v1::GetConsoleOutputResponse, Status>>;

    async fn create_machine(
        &self,
        request: Request<v1::CreateMachineRequest>,
    ) -> Result<Response<v1::CreateMachineResponse>, Status> {
        let core = &self.0;
        let about = About::operation(request.get_ref().meta.as_ref(), request.get_ref().ownership.as_ref());
        let (call, arrival) = core.begin(method("CreateMachine", Weight::Mutation), &about, &request);
        let secrets = secrets_of(request.get_ref().credentials.as_ref());
        let decoded = core.decoder.create_machine(request.into_inner(), arrival);
        core.mutate(
            call,
            secrets,
            decoded,
            |provider, context, request| Core::validate_machine(provider, context, &request.spec.config).boxed(),
            |provider, context, request, bounds| {
                async move {
                    let (generation, digest) = (context.generation(), request.spec.digest.clone());
                    let status = provider.create_machine(&context, request).await?;
                    let status = bounds.machine_status(observed_machine(status, generation, digest))?;
                    Ok(Outcome::Machine(Box::new(status)))
                }
                .boxed()
            },
            |outcome| match outcome {
                Outcome::Machine(status) => Some(v1::CreateMachineResponse { status: Some(*status) }),
                _ => None,
            },
        )
        .await
    }

    async fn update_machine(
        &self,
        request: Request<v1::UpdateMachineRequest>,
    ) -> Result<Response<v1::UpdateMachineResponse>, Status> {
        let core = &self.0;
        let about = About::change(request.get_ref().meta.as_ref(), request.get_ref().r#ref.as_ref());
        let (call, arrival) = core.begin(method("UpdateMachine", Weight::Mutation), &about, &request);
        let secrets = secrets_of(request.get_ref().credentials.as_ref());
        let decoded = core.decoder.update_machine(request.into_inner(), arrival);
        core.mutate(
            call,
            secrets,
            decoded,
            |provider, context, request| Core::validate_machine(provider, context, &request.spec.config).boxed(),
            |provider, context, request, bounds| {
                async move {
                    let (generation, digest) = (context.generation(), request.spec.digest.clone());
                    let status = provider.update_machine(&context, request).await?;
                    let status = bounds.machine_status(observed_machine(status, generation, digest))?;
                    Ok(Outcome::Machine(Box::new(status)))
                }
                .boxed()
            },
            |outcome| match outcome {
                Outcome::Machine(status) => Some(v1::UpdateMachineResponse { status: Some(*status) }),
                _ => None,
            },
        )
        .await
    }

    async fn delete_machine(
        &self,
        request: Request<v1::DeleteMachineRequest>,
    ) -> Result<Response<v1::DeleteMachineResponse>, Status> {
        let core = &self.0;
        let about = About::change(request.get_ref().meta.as_ref(), request.get_ref().r#ref.as_ref());
        let (call, arrival) = core.begin(method("DeleteMachine", Weight::Mutation), &about, &request);
        let secrets = secrets_of(request.get_ref().credentials.as_ref());
        let decoded = core.decoder.delete_machine(request.into_inner(), arrival);
        core.mutate(
            call,
            secrets,
            decoded,
            nothing_to_validate,
            |provider, context, request, bounds| {
                async move {
                    let deletion = provider.delete_machine(&context, request).await?;
                    Ok(Outcome::Removal(Box::new(bounds.deletion(deletion))))
                }
                .boxed()
            },
            |outcome| match outcome {
                Outcome::Removal(removal) => Some(v1::DeleteMachineResponse {
                    state: removal.state.into(),
                    message: removal.message,
                    poll_after: removal.poll_after,
                    remaining: removal.remaining,
                }),
                _ => None,
            },
        )
        .await
    }

    async fn machine_exists(
        &self,
        request: Request<v1::MachineExistsRequest>,
    ) -> Result<Response<v1::MachineExistsResponse>, Status> {
        let core = &self.0;
        let about = About::resource(request.get_ref().r#ref.as_ref());
        let (call, arrival) = core.begin(method("MachineExists", Weight::Read), &about, &request);
        let secrets = secrets_of(request.get_ref().credentials.as_ref());
        let decoded = core.decoder.machine_exists(request.into_inner(), arrival);
        core.read(
            call,
            secrets,
            decoded,
            |provider, context, request, bounds| async move {
                let (presence, status) = match provider.machine_exists(&context, request).await? {
                    Existence::Absent => (Presence::Absent, None),
                    Existence::Present(status) => (Presence::Present, Some(status)),
                    Existence::Terminating(status) => (Presence::Terminating, Some(status)),
                };
                Ok(v1::MachineExistsResponse {
                    presence: presence.into(),
                    status: status.map(|status| bounds.machine_status(status)).transpose()?,
                })
            },
        )
        .await
    }

    async fn list_machines(
        &self,
        request: Request<v1::ListMachinesRequest>,
    ) -> Result<Response<v1::ListMachinesResponse>, Status> {
        let core = &self.0;
        let (call, arrival) = core.begin(method("ListMachines", Weight::Read), &About::default(), &request);
        if core.capabilities.list_machines.is_none() {
            return call.answer(async { Err(not_advertised("list_machines")) }).await;
        }
        let secrets = secrets_of(request.get_ref().credentials.as_ref());
        let decoded = core.decoder.list_machines(request.into_inner(), arrival);
        core.read(
            call,
            secrets,
            decoded,
            |provider, context, request, bounds| async move {
                let size = request.page.size;
                let page = provider.list_machines(&context, request).await?;
                let (machines, next_page_token) = bounds.page(page, size, Bounds::listed_machine)?;
                Ok(v1::ListMachinesResponse {
                    machines,
                    next_page_token,
                })
            },
        )
        .await
    }

    async fn watch_machines(
        &self,
        request: Request<v1::WatchMachinesRequest>,
    ) -> Result<Response<Self::WatchMachinesStream>, Status> {
        let core = &self.0;
        let (call, arrival) = core.begin(method("WatchMachines", Weight::Read), &About::default(), &request);
        if core.capabilities.watch_machines.is_none() {
            return call.answer(async { Err(not_advertised("watch_machines")) }).await;
        }
        let secrets = secrets_of(request.get_ref().credentials.as_ref());
        let opened = async {
            let reading = core.decoder.watch_machines(request.into_inner(), arrival)?;
            let place = Arc::clone(&core.streams)
                .try_acquire_owned()
                .map_err(|_| too_many("streams"))?;
            let events = core
                .guarded(core.provider.watch_machines(&reading.context, reading.request))
                .await?;
            Ok((events, place))
        };
        let span = call.span().clone();
        let opened = call
            .answer(async { opened.await.map_err(|error| outgoing(error, &secrets)) })
            .await;
        let (events, place) = opened?;
        let bounds = core.bounds(secrets.clone(), Effect::None);
        let stream = streams::watch(events, bounds, core.metrics.clone(), core.shutdown.clone(), place, span);
        Ok(Response::new(stream))
    }

    async fn get_console_output(
        &self,
        request: Request<v1::GetConsoleOutputRequest>,
    ) -> Result<Response<Self::GetConsoleOutputStream>, Status> {
        let core = &self.0;
        let about = About::resource(request.get_ref().r#ref.as_ref());
        let (call, arrival) = core.begin(method("GetConsoleOutput", Weight::Read), &about, &request);
        if core.capabilities.console_output.is_none() {
            return call.answer(async { Err(not_advertised("console_output")) }).await;
        }
        let secrets = secrets_of(request.get_ref().credentials.as_ref());
        let opened = async {
            let reading = core.decoder.console_output(request.into_inner(), arrival)?;
            let place = Arc::clone(&core.streams)
                .try_acquire_owned()
                .map_err(|_| too_many("streams"))?;
            let pieces = core
                .guarded(core.provider.console_output(&reading.context, reading.request))
                .await?;
            Ok((pieces, place))
        };
        let opened = call
            .answer(async { opened.await.map_err(|error| outgoing(error, &secrets)) })
            .await;
        let (pieces, place) = opened?;
        let stream = streams::console(
            pieces,
            secrets.clone(),
            core.metrics.clone(),
            core.shutdown.clone(),
            place,
        );
        Ok(Response::new(stream))
    }

    async fn list_machine_types(
        &self,
        request: Request<v1::ListMachineTypesRequest>,
    ) -> Result<Response<v1::ListMachineTypesResponse>, Status> {
        let core = &self.0;
        let (call, arrival) = core.begin(method("ListMachineTypes", Weight::Read), &About::default(), &request);
        if core.capabilities.machine_types.is_none() {
            return call.answer(async { Err(not_advertised("machine_types")) }).await;
        }
        let secrets = secrets_of(request.get_ref().credentials.as_ref());
        let decoded = core.decoder.list_machine_types(request.into_inner(), arrival);
        core.read(
            call,
            secrets,
            decoded,
            |provider, context, request, bounds| async move {
                let size = request.page.size;
                let page = provider.list_machine_types(&context, request).await?;
                let (machine_types, next_page_token) = bounds.page(page, size, Bounds::machine_type)?;
                Ok(v1::ListMachineTypesResponse {
                    machine_types,
                    next_page_token,
                })
            },
        )
        .await
    }
}

/// An accepted spec is an observed one where the provider leaves it open.
fn observed_machine(mut status: v1::MachineStatus, generation: i64, digest: Vec<u8>) -> v1::MachineStatus {
    if status.observed_generation == 0 {
        status.observed_generation = generation;
    }
    if status.observed_digest.is_empty() {
        status.observed_digest = digest;
    }
    status
}
