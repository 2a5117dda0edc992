//! The stream of hints about machines: opened anew when it ends or falls silent,
//! resumed where the provider can, from a full snapshot where it cannot.
//!
//! Hints only: the runtime asks Exists before it acts on one.

use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::{Duration, Instant};

use actuator_proto::errors::Recovery;
use actuator_proto::v1;
use actuator_proto::v1::watch_machines_response::Event;
use futures::Stream;
use http::uri::PathAndQuery;
use tokio::sync::mpsc;
use tokio_util::task::AbortOnDropHandle;
use tonic::Status;
use tonic_prost::ProstCodec;

use crate::backoff;
use crate::call_error::CallError;
use crate::disposition::Refusal;
use crate::handle::CredentialId;
use crate::layers::{learn, lost};
use crate::rpc::Rpc;
use crate::shared::{Session, Shared};
use crate::{trace, untrusted};

/// The most hints that wait to be read.
const MAX_HINTS: usize = 256;
/// The longest resume token that is kept.
const MAX_TOKEN_BYTES: usize = 4096;

/// Something that happened to a machine, perhaps.
#[derive(Debug, Clone, PartialEq)]
pub enum MachineHint {
    /// A full snapshot begins: everything heard before may be out of date.
    Restarted,
    /// The machine is there, in this state; clean and bounded.
    Present(Box<v1::ListedMachine>),
    /// The machine is gone.
    Gone(v1::GoneMachine),
    /// The snapshot is complete: what was not named in it is not there.
    Synced,
    /// Nothing more happened up to here.
    Bookmark,
}

/// The stream; dropping it ends the watch.
#[derive(Debug)]
pub struct MachineWatch {
    hints: mpsc::Receiver<MachineHint>,
    _task: AbortOnDropHandle<()>,
}

impl MachineWatch {
    /// The next hint; `None` when the provider no longer offers the watch.
    pub async fn next(&mut self) -> Option<MachineHint> {
        self.hints.recv().await
    }
}

impl Stream for MachineWatch {
    type Item = MachineHint;

    fn poll_next(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<MachineHint>> {
        self.hints.poll_recv(cx)
    }
}

/// Opens a watch; `None` when the provider does not offer it, or too many are open.
pub(crate) fn start(
    shared: &Arc<Shared>,
    credential: &CredentialId,
    request: v1::WatchMachinesRequest,
) -> Option<MachineWatch> {
    if !shared.session()?.offers(Rpc::WatchMachines) {
        return None;
    }
    let permit = shared.watches.clone().try_acquire_owned().ok()?;
    let (hints, receiver) = mpsc::channel(MAX_HINTS);
    let mut watch = Watch {
        shared: shared.clone(),
        credential: credential.clone(),
        request,
        hints,
    };
    let task = tokio::spawn(async move {
        watch.run().await;
        drop(permit);
    });
    Some(MachineWatch {
        hints: receiver,
        _task: AbortOnDropHandle::new(task),
    })
}

/// How one connection of a watch has ended.
enum Ended {
    /// For good.
    Never,
    /// Open it anew, after a back-off that begins from the start when `heard`.
    Again {
        /// Whether anything was heard on it.
        heard: bool,
    },
    /// Open it anew after this long.
    After(Duration),
}

struct Watch {
    shared: Arc<Shared>,
    credential: CredentialId,
    /// Its `resume_token` is where to go on.
    request: v1::WatchMachinesRequest,
    hints: mpsc::Sender<MachineHint>,
}

impl Watch {
    async fn run(&mut self) {
        let times = self.shared.host.times;
        let mut failures = 0;
        loop {
            let delay = match self.once().await {
                Ended::Never => return,
                Ended::After(delay) => delay,
                Ended::Again { heard } => {
                    failures = if heard { 1 } else { failures + 1 };
                    backoff::bounded(failures, times.reconnect_min, times.reconnect_max, rand::random())
                }
            };
            // A new session ends the wait: its provider may well answer.
            let session = self.shared.session_changed.notified();
            tokio::select! {
                () = tokio::time::sleep(delay) => {}
                () = session => {}
            }
        }
    }

    async fn once(&mut self) -> Ended {
        let shared = self.shared.clone();
        let session = match shared.admit(Rpc::WatchMachines, &self.credential) {
            Ok(session) => session,
            Err(_) if shared.is_removed() => return Ended::Never,
            Err(error) => {
                return match error.facts.refusal {
                    Some(Refusal::CapabilityMissing) => Ended::Never,
                    _ => Ended::After(error.facts.closed_for.unwrap_or(shared.host.times.reconnect_max)),
                };
            }
        };
        let started = Instant::now();
        let mut heard = false;
        let Err(status) = self.listen(&session, &mut heard).await else {
            return Ended::Again { heard };
        };
        let mut error = CallError::from_status(&shared.name, Rpc::WatchMachines, &lost(&session, status));
        error.connection = Some(session.connection);
        let error = learn(&shared, &session, &self.credential, started, error);
        tracing::debug!(provider = %shared.name, %error, "a watch has ended and is opened anew");
        match error.classified.recovery {
            Recovery::Fallback => Ended::Never,
            Recovery::ListInFull if !self.request.resume_token.is_empty() => {
                self.request.resume_token.clear();
                Ended::After(Duration::ZERO)
            }
            _ => match error.facts.closed_for {
                Some(closed_for) if !closed_for.is_zero() => Ended::After(closed_for),
                _ => Ended::Again { heard },
            },
        }
    }

    /// Passes hints on until the stream ends.
    async fn listen(&mut self, session: &Session, heard: &mut bool) -> Result<(), Status> {
        let times = self.shared.host.times;
        let resumes = session.info.capabilities.watch_resume_window.is_some();
        if !resumes {
            self.request.resume_token.clear();
        }
        let full = self.request.resume_token.is_empty();
        let mut request = tonic::Request::new(self.request.clone());
        trace::inject(request.metadata_mut());
        let codec: ProstCodec<v1::WatchMachinesRequest, v1::WatchMachinesResponse> = ProstCodec::default();
        let mut grpc = session.channel.grpc();
        let opened = async {
            grpc.ready().await?;
            let path = PathAndQuery::from_static(Rpc::WatchMachines.path());
            grpc.server_streaming(request, path, codec).await
        };
        let silent = |_| Status::deadline_exceeded("the watch has fallen silent");
        let opened = tokio::time::timeout(times.watch_silence, opened)
            .await
            .map_err(silent)??;
        let mut stream = opened.into_inner();
        let mut begun = !full;
        // What is told before the snapshot is complete cannot be resumed from.
        let mut complete = !full;
        loop {
            let message = tokio::time::timeout(times.watch_silence, stream.message())
                .await
                .map_err(silent)??;
            let Some(event) = message else { return Ok(()) };
            if !begun {
                self.tell(MachineHint::Restarted).await?;
                begun = true;
            }
            *heard = true;
            let token = match event.event {
                Some(Event::Present(mut machine)) => {
                    // A hint that is malformed is lost; Exists will tell.
                    if untrusted::listed_machine(&mut machine).is_ok() {
                        self.tell(MachineHint::Present(Box::new(machine))).await?;
                    }
                    continue;
                }
                Some(Event::Gone(mut machine)) => {
                    if untrusted::gone_machine(&mut machine).is_ok() {
                        self.tell(MachineHint::Gone(machine)).await?;
                    }
                    continue;
                }
                Some(Event::Synced(synced)) => {
                    complete = true;
                    self.tell(MachineHint::Synced).await?;
                    synced.resume_token
                }
                Some(Event::Bookmark(bookmark)) => {
                    self.tell(MachineHint::Bookmark).await?;
                    bookmark.resume_token
                }
                // An event of a later version.
                None => continue,
            };
            if resumes && complete && token.len() <= MAX_TOKEN_BYTES {
                self.request.resume_token = token;
            }
        }
    }

    /// The runtime that reads slowly slows the stream down, and nothing else.
    async fn tell(&self, hint: MachineHint) -> Result<(), Status> {
        let told = self.hints.send(hint).await;
        told.map_err(|_| Status::cancelled("nobody listens to the watch any more"))
    }
}
