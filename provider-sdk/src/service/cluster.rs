//! `ClusterService`.

use actuator_proto::v1::cluster_service_server::ClusterService;
use actuator_proto::v1::{self, Presence};
use futures::FutureExt;
use tonic::{Request, Response, Status, async_trait};

use super::core::{Core, Outcome, Service, not_advertised, nothing_to_validate, secrets_of};
use crate::answer::Existence;
use crate::outgoing::Bounds;
use crate::provider::Provider;
use crate::telemetry::calls::{About, Method, Weight};

const fn method(name: &'static str, weight: Weight) -> Method {
    Method {
        service: "actuator.v1.ClusterService",
        name,
        weight,
    }
}

#[async_trait]
impl<P: Provider> ClusterService for Service<P> {
    async fn create_cluster(
        &self,
        request: Request<v1::CreateClusterRequest>,
    ) -> Result<Response<v1::CreateClusterResponse>, Status> {
        let core = &self.0;
        let about = About::operation(request.get_ref().meta.as_ref(), request.get_ref().ownership.as_ref());
        let (call, arrival) = core.begin(method("CreateCluster", Weight::Mutation), &about, &request);
        let secrets = secrets_of(request.get_ref().credentials.as_ref());
        let decoded = core.decoder.create_cluster(request.into_inner(), arrival);
        core.mutate(
            call,
            secrets,
            decoded,
            |provider, context, request| Core::validate_cluster(provider, context, &request.spec.config).boxed(),
            |provider, context, request, bounds| {
                async move {
                    let (generation, digest) = (context.generation(), request.spec.digest.clone());
                    let status = provider.create_cluster(&context, request).await?;
                    let status = bounds.cluster_status(observed_cluster(status, generation, digest))?;
                    Ok(Outcome::Cluster(Box::new(status)))
                }
                .boxed()
            },
            |outcome| match outcome {
                Outcome::Cluster(status) => Some(v1::CreateClusterResponse { status: Some(*status) }),
                _ => None,
            },
        )
        .await
    }

    async fn update_cluster(
        &self,
        request: Request<v1::UpdateClusterRequest>,
    ) -> Result<Response<v1::UpdateClusterResponse>, Status> {
        let core = &self.0;
        let about = About::change(request.get_ref().meta.as_ref(), request.get_ref().r#ref.as_ref());
        let (call, arrival) = core.begin(method("UpdateCluster", Weight::Mutation), &about, &request);
        let secrets = secrets_of(request.get_ref().credentials.as_ref());
        let decoded = core.decoder.update_cluster(request.into_inner(), arrival);
        core.mutate(
            call,
            secrets,
            decoded,
            |provider, context, request| Core::validate_cluster(provider, context, &request.spec.config).boxed(),
            |provider, context, request, bounds| {
                async move {
                    let (generation, digest) = (context.generation(), request.spec.digest.clone());
                    let status = provider.update_cluster(&context, request).await?;
                    let status = bounds.cluster_status(observed_cluster(status, generation, digest))?;
                    Ok(Outcome::Cluster(Box::new(status)))
                }
                .boxed()
            },
            |outcome| match outcome {
                Outcome::Cluster(status) => Some(v1::UpdateClusterResponse { status: Some(*status) }),
                _ => None,
            },
        )
        .await
    }

    async fn delete_cluster(
        &self,
        request: Request<v1::DeleteClusterRequest>,
    ) -> Result<Response<v1::DeleteClusterResponse>, Status> {
        let core = &self.0;
        let about = About::change(request.get_ref().meta.as_ref(), request.get_ref().r#ref.as_ref());
        let (call, arrival) = core.begin(method("DeleteCluster", Weight::Mutation), &about, &request);
        let secrets = secrets_of(request.get_ref().credentials.as_ref());
        let decoded = core.decoder.delete_cluster(request.into_inner(), arrival);
        core.mutate(
            call,
            secrets,
            decoded,
            nothing_to_validate,
            |provider, context, request, bounds| {
                async move {
                    let deletion = provider.delete_cluster(&context, request).await?;
                    Ok(Outcome::Removal(Box::new(bounds.deletion(deletion))))
                }
                .boxed()
            },
            |outcome| match outcome {
                Outcome::Removal(removal) => Some(v1::DeleteClusterResponse {
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

    async fn cluster_exists(
        &self,
        request: Request<v1::ClusterExistsRequest>,
    ) -> Result<Response<v1::ClusterExistsResponse>, Status> {
        let core = &self.0;
        let about = About::resource(request.get_ref().r#ref.as_ref());
        let (call, arrival) = core.begin(method("ClusterExists", Weight::Read), &about, &request);
        let secrets = secrets_of(request.get_ref().credentials.as_ref());
        let decoded = core.decoder.cluster_exists(request.into_inner(), arrival);
        core.read(
            call,
            secrets,
            decoded,
            |provider, context, request, bounds| async move {
                let (presence, status) = match provider.cluster_exists(&context, request).await? {
                    Existence::Absent => (Presence::Absent, None),
                    Existence::Present(status) => (Presence::Present, Some(status)),
                    Existence::Terminating(status) => (Presence::Terminating, Some(status)),
                };
                Ok(v1::ClusterExistsResponse {
                    presence: presence.into(),
                    status: status.map(|status| bounds.cluster_status(status)).transpose()?,
                })
            },
        )
        .await
    }

    async fn list_clusters(
        &self,
        request: Request<v1::ListClustersRequest>,
    ) -> Result<Response<v1::ListClustersResponse>, Status> {
        let core = &self.0;
        let (call, arrival) = core.begin(method("ListClusters", Weight::Read), &About::default(), &request);
        if core.capabilities.list_clusters.is_none() {
            return call.answer(async { Err(not_advertised("list_clusters")) }).await;
        }
        let secrets = secrets_of(request.get_ref().credentials.as_ref());
        let decoded = core.decoder.list_clusters(request.into_inner(), arrival);
        core.read(
            call,
            secrets,
            decoded,
            |provider, context, request, bounds| async move {
                let size = request.page.size;
                let page = provider.list_clusters(&context, request).await?;
                let (clusters, next_page_token) = bounds.page(page, size, Bounds::listed_cluster)?;
                Ok(v1::ListClustersResponse {
                    clusters,
                    next_page_token,
                })
            },
        )
        .await
    }
}

/// An accepted spec is an observed one where the provider leaves it open.
fn observed_cluster(mut status: v1::ClusterStatus, generation: i64, digest: Vec<u8>) -> v1::ClusterStatus {
    if status.observed_generation == 0 {
        status.observed_generation = generation;
    }
    if status.observed_digest.is_empty() {
        status.observed_digest = digest;
    }
    status
}
