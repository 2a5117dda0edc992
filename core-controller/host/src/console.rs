//! The output of a machine's console: a stream of chunks, collected within bounds.

use std::sync::Arc;
use std::time::Instant;

use actuator_proto::limits::MAX_CONSOLE_CHUNK_BYTES;
use actuator_proto::v1;
use bytes::{Bytes, BytesMut};
use http::uri::PathAndQuery;
use tonic::Status;
use tonic_prost::ProstCodec;

use crate::call_error::CallError;
use crate::disposition::Refusal;
use crate::handle::CredentialId;
use crate::layers::{learn, lost};
use crate::rpc::Rpc;
use crate::shared::{Session, Shared};
use crate::trace;

/// At most `max_bytes` of what a machine wrote to its console.
pub(crate) async fn get(
    shared: &Arc<Shared>,
    credential: &CredentialId,
    request: v1::GetConsoleOutputRequest,
    max_bytes: usize,
) -> Result<Bytes, CallError> {
    let rpc = Rpc::GetConsoleOutput;
    shared.admit(rpc, credential)?;
    let Ok(_place) = shared.lanes().enter(rpc.lane(), credential).await else {
        let after = Some(std::time::Duration::from_secs(1));
        let message = "too many calls of this kind wait for the provider already; nothing was sent";
        return Err(CallError::refused(&shared.name, rpc, Refusal::Busy, after, message));
    };
    let session = shared.admit(rpc, credential)?;
    let deadline = rpc
        .deadline(&session.info.timings)
        .unwrap_or(shared.host.times.max_deadline)
        .min(shared.host.times.max_deadline);
    let started = Instant::now();
    let mut request = tonic::Request::new(request);
    request.set_timeout(deadline);
    trace::inject(request.metadata_mut());
    let collected = tokio::time::timeout(
        deadline + shared.host.times.deadline_grace,
        collect(&session, request, max_bytes),
    );
    let outcome = collected
        .await
        .unwrap_or_else(|_| Err(Status::deadline_exceeded(format!("no end within {deadline:?}"))));
    let result = match &outcome {
        Ok(_) => "OK",
        Err(status) => actuator_proto::errors::table::code_name(status.code()),
    };
    let metrics = &shared.host.metrics;
    metrics.called(&shared.name, rpc, result, Some(started.elapsed()));
    outcome.map_err(|status| {
        let mut error = CallError::from_status(&shared.name, rpc, &lost(&session, status));
        error.connection = Some(session.connection);
        learn(shared, &session, credential, started, error)
    })
}

async fn collect(
    session: &Session,
    request: tonic::Request<v1::GetConsoleOutputRequest>,
    max_bytes: usize,
) -> Result<Bytes, Status> {
    let mut grpc = session
        .channel
        .grpc()
        .max_decoding_message_size(MAX_CONSOLE_CHUNK_BYTES + 64);
    grpc.ready().await?;
    let codec: ProstCodec<v1::GetConsoleOutputRequest, v1::GetConsoleOutputResponse> = ProstCodec::default();
    let path = PathAndQuery::from_static(Rpc::GetConsoleOutput.path());
    let mut chunks = grpc.server_streaming(request, path, codec).await?.into_inner();
    let mut output = BytesMut::new();
    while let Some(message) = chunks.message().await? {
        let room = max_bytes - output.len();
        output.extend_from_slice(&message.chunk[..message.chunk.len().min(room)]);
        if output.len() >= max_bytes {
            break;
        }
    }
    Ok(output.freeze())
}
