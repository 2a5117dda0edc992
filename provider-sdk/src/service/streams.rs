//! The streams of a provider brought within the protocol: bounded, kept alive, ended
//! when the server stops, and safe from panics.

use std::panic::AssertUnwindSafe;
use std::time::Duration;

use actuator_proto::errors::ActuatorError;
use actuator_proto::limits::{BOOKMARK_INTERVAL, MAX_CONSOLE_CHUNK_BYTES};
use actuator_proto::v1::{self, watch_machines_response::Event};
use bytes::Bytes;
use futures::stream::{self, BoxStream};
use futures::{FutureExt, StreamExt};
use tokio::sync::OwnedSemaphorePermit;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;
use tonic::Status;

use crate::operations::executor::panicked;
use crate::outgoing::Bounds;
use crate::provider::{ByteStream, WatchEvent, WatchStream};
use crate::telemetry::calls::outgoing;
use crate::telemetry::metrics::Metrics;
use actuator_proto::secrets::Secrets;

/// A bookmark comes this long after the last one: some seconds before it must.
const SILENCE: Duration = BOOKMARK_INTERVAL.saturating_sub(Duration::from_secs(5));

struct Watch {
    events: WatchStream,
    bounds: Bounds,
    metrics: Metrics,
    shutdown: CancellationToken,
    /// From the sync marker or the last bookmark on: where a later watch may go on.
    resume_token: Option<String>,
    next_bookmark: Instant,
    ended: bool,
    span: tracing::Span,
    _place: OwnedSemaphorePermit,
}

/// The events of a watch, with bookmarks of our own while the provider is silent.
pub(crate) fn watch(
    events: WatchStream,
    bounds: Bounds,
    metrics: Metrics,
    shutdown: CancellationToken,
    place: OwnedSemaphorePermit,
    span: tracing::Span,
) -> BoxStream<'static, Result<v1::WatchMachinesResponse, Status>> {
    let watch = Watch {
        events,
        bounds,
        metrics,
        shutdown,
        resume_token: None,
        next_bookmark: Instant::now() + SILENCE,
        ended: false,
        span,
        _place: place,
    };
    stream::unfold(watch, |mut watch| async move {
        let item = watch.next().await?;
        Some((item, watch))
    })
    .boxed()
}

impl Watch {
    async fn next(&mut self) -> Option<Result<v1::WatchMachinesResponse, Status>> {
        if self.ended {
            return None;
        }
        let event = loop {
            tokio::select! {
                biased;
                () = self.shutdown.cancelled() => return None,
                event = AssertUnwindSafe(self.events.next()).catch_unwind() => match event {
                    Ok(None) => return None,
                    Ok(Some(event)) => break event,
                    Err(_) => {
                        self.metrics.panicked();
                        break Err(panicked());
                    }
                },
                () = tokio::time::sleep_until(self.next_bookmark) => {
                    self.next_bookmark = Instant::now() + SILENCE;
                    if let Some(token) = self.resume_token.clone() {
                        // An older token only repeats events: always safe to give.
                        break Ok(WatchEvent::Bookmark(token));
                    }
                }
            }
        };
        let event = event.and_then(|event| self.checked(event));
        Some(match event {
            Ok(event) => Ok(v1::WatchMachinesResponse { event: Some(event) }),
            Err(error) => {
                self.ended = true;
                let _entered = self.span.enter();
                tracing::warn!(error = self.bounds.secrets.mask(error.message()), "the watch ends");
                Err(outgoing(error, &self.bounds.secrets))
            }
        })
    }

    fn checked(&mut self, event: WatchEvent) -> Result<Event, ActuatorError> {
        let mut token = |token: String| {
            let token = self.bounds.resume_token(token)?;
            self.resume_token = Some(token.clone());
            self.next_bookmark = Instant::now() + SILENCE;
            Ok::<_, ActuatorError>(token)
        };
        Ok(match event {
            WatchEvent::Present(machine) => Event::Present(self.bounds.listed_machine(*machine)?),
            WatchEvent::Gone(machine) => Event::Gone(machine),
            WatchEvent::Synced(resume_token) => Event::Synced(v1::WatchSynced {
                resume_token: token(resume_token)?,
            }),
            WatchEvent::Bookmark(resume_token) => Event::Bookmark(v1::WatchBookmark {
                resume_token: token(resume_token)?,
            }),
        })
    }
}

/// What a console gave, in chunks that the protocol allows.
pub(crate) fn console(
    pieces: ByteStream,
    secrets: Secrets,
    metrics: Metrics,
    shutdown: CancellationToken,
    place: OwnedSemaphorePermit,
) -> BoxStream<'static, Result<v1::GetConsoleOutputResponse, Status>> {
    let pieces = AssertUnwindSafe(pieces).catch_unwind().map(move |piece| {
        piece.unwrap_or_else(|_| {
            metrics.panicked();
            Err(panicked())
        })
    });
    let mut failed = false;
    pieces
        .flat_map(|piece| stream::iter(chunks(piece)))
        .take_while(move |chunk| {
            // An error is the last that is sent.
            let go_on = !failed;
            failed |= chunk.is_err();
            futures::future::ready(go_on)
        })
        .map(move |chunk| {
            let _held = &place;
            chunk
                .map(|chunk| v1::GetConsoleOutputResponse { chunk: chunk.to_vec() })
                .map_err(|error| outgoing(error, &secrets))
        })
        .take_until(async move { shutdown.cancelled().await })
        .boxed()
}

fn chunks(piece: Result<Bytes, ActuatorError>) -> Vec<Result<Bytes, ActuatorError>> {
    match piece {
        Err(error) => vec![Err(error)],
        Ok(piece) => (0..piece.len())
            .step_by(MAX_CONSOLE_CHUNK_BYTES)
            .map(|start| Ok(piece.slice(start..piece.len().min(start + MAX_CONSOLE_CHUNK_BYTES))))
            .collect(),
    }
}

#[cfg(test)]
#[path = "streams_tests.rs"]
mod tests;
