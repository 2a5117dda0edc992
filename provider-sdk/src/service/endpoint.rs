//! `EndpointService`.

use actuator_proto::v1;
use actuator_proto::v1::endpoint_service_server::EndpointService;
use futures::FutureExt;
use tonic::{Request, Response, Status, async_trait};

use super::core::{Outcome, Service, not_advertised, nothing_to_validate, secrets_of};
use crate::provider::Provider;
use crate::telemetry::calls::{About, Method, Weight};

const SET_ENDPOINT_MEMBERS: Method = Method {
    service: "actuator.v1.EndpointService",
    name: "SetEndpointMembers",
    weight: Weight::Mutation,
};

#[async_trait]
impl<P: Provider> EndpointService for Service<P> {
    async fn set_endpoint_members(
        &self,
        request: Request<v1::SetEndpointMembersRequest>,
    ) -> Result<Response<v1::SetEndpointMembersResponse>, Status> {
        let core = &self.0;
        let about = About::change(request.get_ref().meta.as_ref(), request.get_ref().cluster.as_ref());
        let (call, arrival) = core.begin(SET_ENDPOINT_MEMBERS, &about, &request);
        if core.capabilities.endpoint_members.is_none() {
            return call.answer(async { Err(not_advertised("endpoint_members")) }).await;
        }
        let secrets = secrets_of(request.get_ref().credentials.as_ref());
        let decoded = core.decoder.set_endpoint_members(request.into_inner(), arrival);
        core.mutate(
            call,
            secrets,
            decoded,
            nothing_to_validate,
            |provider, context, request, bounds| {
                async move {
                    let response = provider.set_endpoint_members(&context, request).await?;
                    Ok(Outcome::Members(Box::new(bounds.members(response))))
                }
                .boxed()
            },
            |outcome| match outcome {
                Outcome::Members(response) => Some(*response),
                _ => None,
            },
        )
        .await
    }
}
