//! `GetConsoleOutput`: what a machine said while it booted.

use std::time::Duration;

use actuator_proto::limits::MAX_CONSOLE_CHUNK_BYTES;
use actuator_proto::v1::{self, ErrorReason, MachinePhase};
use tonic::Status;

use crate::context::{Context, Expected as _};
use crate::holds;
use crate::requests::Created as _;
use crate::rule::{Capability, Rule, Severity::Minor, Stop, Verdict};

/// More than any console of a test says.
const MOST_BYTES: usize = 64 * 1024 * 1024;

pub fn rules() -> Vec<Rule> {
    let capability = Capability::ConsoleOutput;
    vec![
        Rule::required(
            "console.is-streamed",
            Minor,
            "The console of a running machine is streamed in chunks of at most 64 KiB, and the stream ends.",
            streamed,
        )
        .with(capability)
        .machines(1),
        Rule::required(
            "console.tail",
            Minor,
            "With tail_bytes at most so many bytes come, and they are the last.",
            tail,
        )
        .with(capability)
        .machines(1),
        Rule::required(
            "console.not-there",
            Minor,
            "The console of what is not there is NOT_FOUND with RESOURCE_NOT_FOUND, or empty.",
            not_there,
        )
        .with(capability),
        Rule::required(
            "console.missing-ref",
            Minor,
            "Without ref it is refused with INVALID_FIELD.",
            missing,
        )
        .with(capability),
    ]
}

async fn read(context: &Context, request: v1::GetConsoleOutputRequest) -> Result<Vec<u8>, Status> {
    let mut stream = context.calls.stream(request).await?;
    let mut text = Vec::new();
    while let Some(chunk) = stream.next(Duration::from_mins(1)).await {
        let chunk = chunk?.chunk;
        if chunk.len() > MAX_CONSOLE_CHUNK_BYTES || text.len() > MOST_BYTES {
            return Err(Status::internal(format!(
                "a chunk has {} bytes, after {}",
                chunk.len(),
                text.len()
            )));
        }
        text.extend_from_slice(&chunk);
    }
    Ok(text)
}

fn asks(request: &v1::CreateMachineRequest, tail_bytes: i64) -> v1::GetConsoleOutputRequest {
    v1::GetConsoleOutputRequest {
        r#ref: Some(request.reference()),
        tail_bytes,
        config: request.spec.as_ref().and_then(|spec| spec.config.clone()),
        credentials: request.credentials.clone(),
    }
}

async fn running(context: &Context) -> Result<v1::CreateMachineRequest, Stop> {
    let request = context.create_machine(&*context.cluster().await?, "console");
    context.create(&request).await?;
    context.phase(&request, MachinePhase::Running).await?;
    Ok(request)
}

async fn streamed(context: Context) -> Verdict {
    let request = running(&context).await?;
    read(&context, asks(&request, 0))
        .await
        .expected("GetConsoleOutput")
        .map(|_| ())
}

async fn tail(context: Context) -> Verdict {
    let request = running(&context).await?;
    let whole = read(&context, asks(&request, 0)).await.expected("GetConsoleOutput")?;
    let end = read(&context, asks(&request, 10)).await.expected("GetConsoleOutput")?;
    holds!(end.len() <= 10, "10 bytes were asked for, {} came", end.len());
    // A machine may go on talking: then the end is another one.
    let again = read(&context, asks(&request, 0)).await.expected("GetConsoleOutput")?;
    holds!(
        whole != again || whole.ends_with(&end),
        "what came is not the end of the console"
    );
    Ok(())
}

async fn not_there(context: Context) -> Verdict {
    let request = context.create_machine(&*context.cluster().await?, "silent");
    match read(&context, asks(&request, 0)).await {
        Ok(text) => {
            holds!(text.is_empty(), "nothing said {} bytes", text.len());
            Ok(())
        }
        Err(status) => context
            .refused::<()>(Err(status), &[ErrorReason::ResourceNotFound], "the console of nothing")
            .map(|_| ()),
    }
}

async fn missing(context: Context) -> Verdict {
    let answer = read(&context, v1::GetConsoleOutputRequest::default()).await;
    context
        .refused(answer, &[ErrorReason::InvalidField], "a console without ref")
        .map(|_| ())
}
