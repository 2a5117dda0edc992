//! The stream of hints about machines: opened anew when it ends or falls silent,
//! resumed where the provider can, from a full snapshot where it cannot.
//!
//! Hints only: the runtime asks Exists before it acts on one.

use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};

use actuator_proto::v1;
use futures::Stream;
use tokio::sync::mpsc;
use tokio_util::task::AbortOnDropHandle;

use crate::handle::CredentialId;
use crate::shared::Shared;

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

pub(crate) fn start(
    _shared: &Arc<Shared>,
    _credential: &CredentialId,
    _request: v1::WatchMachinesRequest,
) -> Option<MachineWatch> {
    None
}
