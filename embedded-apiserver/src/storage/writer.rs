//! The thread that writes the data file: what waits goes into one transaction, is published, and answered.
//!
//! When the file cannot be written, the clients are told, reads go on, and the file is opened anew for a later write:
//! the state in memory is what was acknowledged.

use std::path::PathBuf;
use std::sync::{Arc, Weak};
use std::time::{Duration, Instant};

use tokio::sync::{mpsc, oneshot};

use super::file::DataFile;
use super::state::{Overlay, State};
use super::{Inner, Key, Stored, Write, WriteError};

/// How many writes may wait for the disk; more wait in their callers.
pub(super) const QUEUE: usize = 1024;
/// How many writes share one transaction at most.
const BATCH: usize = 512;
/// How long after a failure the file is tried again: opening reads all of it.
const RETRY: Duration = Duration::from_secs(1);

/// A write and who waits for it.
pub(super) struct Pending {
    pub(super) write: Write,
    pub(super) reply: oneshot::Sender<Result<Arc<Stored>, WriteError>>,
}

/// The file, or why there is none at the moment.
enum Disk {
    Ready(DataFile),
    Failed {
        path: PathBuf,
        reason: Arc<str>,
        /// The objects of the writes that failed: they may have come onto the disk or not.
        unsettled: Vec<Key>,
        since: Instant,
    },
}

/// Runs until the store is dropped.
pub(super) fn run(store: &Weak<Inner>, file: DataFile, mut queue: mpsc::Receiver<Pending>) {
    let mut disk = Disk::Ready(file);
    let mut batch = Vec::with_capacity(BATCH);
    while queue.blocking_recv_many(&mut batch, BATCH) > 0 {
        let Some(inner) = store.upgrade() else { return };
        disk = disk.repaired(&inner.state.read());
        let file = match disk {
            Disk::Ready(file) => file,
            Disk::Failed { ref reason, .. } => {
                for pending in batch.drain(..) {
                    let _ = pending.reply.send(Err(WriteError::Unavailable(Arc::clone(reason))));
                }
                continue;
            }
        };
        disk = write(&inner, file, &mut batch);
    }
}

fn write(inner: &Inner, file: DataFile, batch: &mut Vec<Pending>) -> Disk {
    let mut overlay = Overlay::default();
    let mut answers = Vec::with_capacity(batch.len());
    {
        // Readers go on while the batch is judged and written: only publishing takes the lock for writing.
        let state = inner.state.read();
        for Pending { write, reply } in batch.drain(..) {
            answers.push((reply, state.prepare(write, &mut overlay)));
        }
    }
    let mut disk = Disk::Ready(file);
    if !overlay.is_empty()
        && let Disk::Ready(file) = &disk
    {
        match file.commit(overlay.events()) {
            Ok(()) => inner.publish(&mut inner.state.write(), overlay),
            Err(error) => {
                tracing::error!(path = %file.path().display(), %error, "unable to write the data file");
                let reason: Arc<str> = error.to_string().into();
                for (_, answer) in &mut answers {
                    if answer.is_ok() {
                        *answer = Err(WriteError::Unavailable(Arc::clone(&reason)));
                    }
                }
                disk = Disk::Failed {
                    path: file.path().to_owned(),
                    reason,
                    unsettled: overlay.events().iter().map(|event| event.key.clone()).collect(),
                    since: Instant::now(),
                };
            }
        }
    }
    for (reply, answer) in answers {
        // A caller that went away does not undo its write.
        let _ = reply.send(answer);
    }
    disk
}

impl Disk {
    /// Opens the file again, if it failed and some time has passed.
    fn repaired(self, state: &State) -> Self {
        let Self::Failed {
            path,
            unsettled,
            since,
            reason,
        } = self
        else {
            return self;
        };
        if since.elapsed() < RETRY {
            return Self::Failed {
                path,
                reason,
                unsettled,
                since,
            };
        }
        let present: Vec<_> = unsettled.iter().map(|key| (key.clone(), state.get(key))).collect();
        match DataFile::reopen(&path, &present, state.revision()) {
            Ok(file) => {
                tracing::info!(path = %path.display(), "the data file can be written again");
                Self::Ready(file)
            }
            Err(error) => Self::Failed {
                path,
                reason: error.to_string().into(),
                unsettled,
                since: Instant::now(),
            },
        }
    }
}
