//! One call with one answer: encoded, sent through the layers, decoded, and checked,
//! because what a provider answers is untrusted.

use std::sync::Arc;

use actuator_proto::secrets::Secrets;
use actuator_proto::v1;
use prost::Message;
use tower::{Layer as _, ServiceExt as _};

use crate::call_error::CallError;
use crate::handle::CredentialId;
use crate::layers::{self, Call};
use crate::rpc::Rpc;
use crate::shared::Shared;
use crate::untrusted::{Answer, Fault};

/// What a request is about: the key of the resource, and its id where the core has it.
pub(crate) struct Subject<'a> {
    pub(crate) key: &'a str,
    pub(crate) known_id: &'a str,
}

/// A request of an RPC with one answer.
pub(crate) trait Unary: Message + Send + Sync + 'static {
    /// Its answer.
    type Response: Message + Default + Answer;
    /// Which RPC.
    fn rpc(&self) -> Rpc;
    /// What it is about; `None` where that is not one resource.
    fn subject(&self) -> Option<Subject<'_>> {
        None
    }
    /// What it tells in confidence.
    fn secrets(&self) -> Secrets;
}

/// Makes a call.
pub(crate) async fn call<R: Unary>(
    shared: &Arc<Shared>,
    credential: &CredentialId,
    request: R,
) -> Result<R::Response, CallError> {
    let outcome = exchange(shared, credential, request).await;
    outcome.map_err(|error| CallError {
        max_wait: shared.host.times.max_wait,
        ..error
    })
}

async fn exchange<R: Unary>(
    shared: &Arc<Shared>,
    credential: &CredentialId,
    request: R,
) -> Result<R::Response, CallError> {
    let rpc = request.rpc();
    let size = request.encoded_len();
    if size > actuator_proto::limits::MAX_MESSAGE_BYTES {
        let message = format!(
            "the request has {size} bytes and may have {}; nothing was sent",
            actuator_proto::limits::MAX_MESSAGE_BYTES
        );
        return Err(CallError::too_large(&shared.name, rpc, &message));
    }
    let (body, secrets) = (request.encode_to_vec().into(), request.secrets());
    let call = Call::new(shared.clone(), rpc, credential.clone(), body, secrets);
    let reply = layers::stack().layer(layers::Sender).oneshot(call).await?;
    let mut response = R::Response::decode(reply.body)
        .map_err(|error| CallError::defect(&shared.name, rpc, &format!("the answer does not decode: {error}")))?;
    check(shared, &request, &mut response).map_err(|fault| match fault {
        Fault::Defect(message) => CallError::defect(&shared.name, rpc, &message),
        Fault::Inconsistent(message) => CallError::inconsistent(&shared.name, rpc, &message),
    })?;
    Ok(response)
}

fn check<R: Unary>(shared: &Shared, request: &R, response: &mut R::Response) -> Result<(), Fault> {
    response.clean()?;
    let Some(subject) = request.subject().filter(|subject| !subject.key.is_empty()) else {
        return Ok(());
    };
    if let Some(id) = response.provider_id() {
        let known = subject.known_id;
        if (!known.is_empty() && known != id) || !shared.identities.is_same(subject.key, id) {
            return Err(Fault::Inconsistent(format!(
                "the provider answers with provider id {id:?} for key {}, which had another one{}; \
                 look for two resources with this key in the cloud",
                subject.key,
                if known.is_empty() {
                    String::new()
                } else {
                    format!(", {known:?}")
                },
            )));
        }
    }
    if response.is_gone() {
        shared.identities.forget(subject.key);
    }
    Ok(())
}

macro_rules! mutations {
    ($($request:ident => $response:ident, $rpc:ident, $reference:tt, $secrets:tt;)*) => {$(
        impl Unary for v1::$request {
            type Response = v1::$response;
            fn rpc(&self) -> Rpc {
                Rpc::$rpc
            }
            fn subject(&self) -> Option<Subject<'_>> {
                mutations!(@subject self, $reference)
            }
            fn secrets(&self) -> Secrets {
                mutations!(@secrets self, $secrets)
            }
        }
    )*};
    (@subject $self:ident, create) => {
        $self.meta.as_ref().map(|meta| Subject { key: &meta.idempotency_key, known_id: "" })
    };
    (@subject $self:ident, reference) => {
        $self.r#ref.as_ref().map(|reference| Subject {
            key: &reference.idempotency_key,
            known_id: &reference.provider_id,
        })
    };
    (@subject $self:ident, none) => {
        None
    };
    (@secrets $self:ident, credentials) => {
        Secrets::of_request($self.credentials.as_ref(), None)
    };
    (@secrets $self:ident, bootstrap) => {
        Secrets::of_request($self.credentials.as_ref(), $self.bootstrap.as_ref())
    };
    (@secrets $self:ident, none) => {
        Secrets::default()
    };
}

mutations! {
    CreateMachineRequest => CreateMachineResponse, CreateMachine, create, bootstrap;
    UpdateMachineRequest => UpdateMachineResponse, UpdateMachine, reference, credentials;
    DeleteMachineRequest => DeleteMachineResponse, DeleteMachine, reference, credentials;
    MachineExistsRequest => MachineExistsResponse, MachineExists, reference, credentials;
    CreateClusterRequest => CreateClusterResponse, CreateCluster, create, credentials;
    UpdateClusterRequest => UpdateClusterResponse, UpdateCluster, reference, credentials;
    DeleteClusterRequest => DeleteClusterResponse, DeleteCluster, reference, credentials;
    ClusterExistsRequest => ClusterExistsResponse, ClusterExists, reference, credentials;
    SetEndpointMembersRequest => SetEndpointMembersResponse, SetEndpointMembers, none, credentials;
    ListMachinesRequest => ListMachinesResponse, ListMachines, none, credentials;
    ListClustersRequest => ListClustersResponse, ListClusters, none, credentials;
    ListMachineTypesRequest => ListMachineTypesResponse, ListMachineTypes, none, credentials;
    GetConfigSchemaRequest => GetConfigSchemaResponse, GetConfigSchema, none, none;
}

impl Unary for v1::ValidateConfigRequest {
    type Response = v1::ValidateConfigResponse;

    fn rpc(&self) -> Rpc {
        match self.mode() {
            v1::ValidationMode::Preflight => Rpc::ValidateConfigPreflight,
            v1::ValidationMode::Static | v1::ValidationMode::Unspecified => Rpc::ValidateConfigStatic,
        }
    }

    fn secrets(&self) -> Secrets {
        Secrets::of_request(self.credentials.as_ref(), None)
    }
}
