//! The control service: steers the simulated cloud from outside. Off unless asked for.
//! Not for: anything that a core should know of.

use futures::{StreamExt as _, stream};
use tonic::{Request, Response, Status};

use crate::cloud::{Cloud, KillMode};
use crate::provider::PROVIDER_ID_PREFIX;

/// `fake.control.v1`.
#[allow(missing_docs, clippy::all, clippy::pedantic, unused_qualifications)]
pub mod v1 {
    tonic::include_proto!("fake.control.v1");
}

use v1::control_service_server::{ControlService, ControlServiceServer};

/// The control service of a cloud.
pub struct Control {
    cloud: Cloud,
}

impl Control {
    /// To be added to a server.
    pub fn service(cloud: Cloud) -> ControlServiceServer<Self> {
        ControlServiceServer::new(Self { cloud })
    }

    fn settings(&self) -> std::collections::BTreeMap<String, String> {
        let entries = self.cloud.settings().entries();
        entries
            .into_iter()
            .map(|(name, value)| (name.to_owned(), value))
            .collect()
    }
}

#[tonic::async_trait]
impl ControlService for Control {
    async fn get_settings(
        &self,
        _: Request<v1::GetSettingsRequest>,
    ) -> Result<Response<v1::GetSettingsResponse>, Status> {
        Ok(Response::new(v1::GetSettingsResponse {
            settings: self.settings(),
        }))
    }

    async fn set_settings(
        &self,
        request: Request<v1::SetSettingsRequest>,
    ) -> Result<Response<v1::SetSettingsResponse>, Status> {
        let wanted = &request.get_ref().settings;
        let changed = self
            .cloud
            .change_settings(|settings| wanted.iter().try_for_each(|(name, value)| settings.set(name, value)));
        changed.map_err(|error| Status::invalid_argument(error.to_string()))?;
        Ok(Response::new(v1::SetSettingsResponse {
            settings: self.settings(),
        }))
    }

    async fn set_outage(
        &self,
        request: Request<v1::SetOutageRequest>,
    ) -> Result<Response<v1::SetOutageResponse>, Status> {
        let outage = request.get_ref().outage;
        let changed = self.cloud.change_settings(|settings| {
            settings.outage = outage;
            Ok::<(), std::convert::Infallible>(())
        });
        let Ok(()) = changed;
        Ok(Response::new(v1::SetOutageResponse {}))
    }

    async fn kill_instance(
        &self,
        request: Request<v1::KillInstanceRequest>,
    ) -> Result<Response<v1::KillInstanceResponse>, Status> {
        let mode = match request.get_ref().mode() {
            v1::KillMode::Unspecified | v1::KillMode::Vanish => KillMode::Vanish,
            v1::KillMode::Stop => KillMode::Stop,
            v1::KillMode::Fail => KillMode::Fail,
        };
        let instance = request.get_ref().instance.as_str();
        let instance = match instance.strip_prefix(PROVIDER_ID_PREFIX) {
            Some(rest) => rest.rsplit('/').next().unwrap_or(rest),
            None => instance,
        };
        let killed = self.cloud.kill_instance(instance, mode).await;
        let killed = killed.map_err(|error| Status::unavailable(error.to_string()))?;
        Ok(Response::new(v1::KillInstanceResponse { killed }))
    }

    type ListLedgerStream = stream::BoxStream<'static, Result<v1::ListLedgerResponse, Status>>;

    async fn list_ledger(
        &self,
        request: Request<v1::ListLedgerRequest>,
    ) -> Result<Response<Self::ListLedgerStream>, Status> {
        let kind = request.into_inner().kind;
        let mut resources = self.cloud.resources();
        resources.retain(|resource| kind.is_empty() || resource.kind().as_str() == kind);
        let listed = resources.into_iter().map(|resource| {
            let json = serde_json::to_string(&resource).map_err(|error| Status::internal(error.to_string()))?;
            let (id, key, owner) = resource.identity();
            Ok(v1::ListLedgerResponse {
                kind: resource.kind().as_str().to_owned(),
                id: id.to_owned(),
                key: key.to_owned(),
                cluster_uid: owner.cluster.clone(),
                object_uid: owner.object.clone(),
                json,
            })
        });
        Ok(Response::new(stream::iter(listed).boxed()))
    }

    async fn get_counters(
        &self,
        _: Request<v1::GetCountersRequest>,
    ) -> Result<Response<v1::GetCountersResponse>, Status> {
        let counters = self.cloud.counters();
        let counters = counters.into_iter().flat_map(|(method, results)| {
            results.into_iter().map(move |(result, count)| v1::Counter {
                method: method.to_owned(),
                result: result.to_owned(),
                count,
            })
        });
        Ok(Response::new(v1::GetCountersResponse {
            counters: counters.collect(),
        }))
    }

    async fn reset_counters(
        &self,
        _: Request<v1::ResetCountersRequest>,
    ) -> Result<Response<v1::ResetCountersResponse>, Status> {
        self.cloud.reset_counters();
        Ok(Response::new(v1::ResetCountersResponse {}))
    }
}
