//! Objects with revisions: optimistic concurrency, consistent lists, a bounded watch history, in memory or on one file.
//!
//! Objects are kept once, as the JSON that clients get, together with the little that selection and garbage collection
//! need. It knows nothing of kinds, schemas or HTTP.

mod encode;
mod file;
mod state;
#[cfg(test)]
mod tests;
mod writer;

use std::path::Path;
use std::sync::Arc;

use parking_lot::RwLock;
use tokio::sync::{mpsc, oneshot, watch};

pub use encode::{Encoded, Stored};
pub use state::{Event, EventKind, HistoryLimits, ObjectName, Start};
use state::{Overlay, State};

/// Identifies an object: the resource (`PLURAL` or `PLURAL.GROUP`), the namespace (empty for cluster scope), the name.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Key {
    /// The resource, such as `pods` or `machines.cluster.outrigger.dev`.
    pub resource: Arc<str>,
    /// Namespace and name.
    pub object: ObjectName,
}

impl Key {
    /// The key of an object.
    pub fn new(resource: &Arc<str>, namespace: &str, name: &str) -> Self {
        Self {
            resource: Arc::clone(resource),
            object: ObjectName::new(namespace, name),
        }
    }
}

/// What must hold of the object for a write to happen.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Expect {
    /// It does not exist.
    Absent,
    /// It exists in exactly this revision.
    Revision(u64),
}

/// What else must hold, judged in the same instant as the write.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Guard {
    /// The object exists and is not being deleted: the namespace of a new object.
    Live(Key),
    /// No namespaced object lives in this namespace: before a namespace goes.
    NamespaceEmpty(String),
    /// The resource has no objects: before a custom resource definition goes.
    ResourceEmpty(Arc<str>),
}

/// The write itself. A deletion carries the object's last state, which watchers get.
#[derive(Debug)]
pub enum Change {
    /// Create or replace.
    Put(Encoded),
    /// Remove.
    Delete(Encoded),
}

/// One atomic write of one object.
#[derive(Debug)]
pub struct Write {
    /// Which object.
    pub key: Key,
    /// What must hold of it.
    pub expect: Expect,
    /// What else must hold.
    pub guards: Vec<Guard>,
    /// What to do.
    pub change: Change,
}

/// Why a write did not happen.
#[derive(Clone, Debug, thiserror::Error)]
pub enum WriteError {
    /// The object exists, [`Expect::Absent`] did not hold.
    #[error("the object exists already")]
    Exists(Arc<Stored>),
    /// The object has another revision than expected.
    #[error("the object is at another revision")]
    Conflict(Arc<Stored>),
    /// The object is gone.
    #[error("the object does not exist")]
    NotFound,
    /// The guard did not hold.
    #[error("the condition of the write does not hold")]
    Guard,
    /// The object is too large to be kept, with so many bytes.
    #[error("the object has {0} bytes, which is more than is kept")]
    TooLarge(usize),
    /// The file could not be written; nothing was changed.
    #[error("the data file could not be written: {0}; free some disk space or check the disk, then try again")]
    Unavailable(Arc<str>),
}

/// Why a list or watch cannot be answered from the given revision.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum RevisionError {
    /// The history no longer reaches back that far.
    #[error("too old resource version: {requested} ({oldest})")]
    Expired {
        /// What was asked for.
        requested: u64,
        /// The oldest revision that can be answered.
        oldest: u64,
    },
    /// The revision lies in the future.
    #[error("too large resource version: {requested}, current: {current}")]
    Future {
        /// What was asked for.
        requested: u64,
        /// The present revision.
        current: u64,
    },
}

/// Why a store could not be opened.
#[derive(Debug, thiserror::Error)]
pub enum OpenError {
    /// Another process has the file open.
    #[error("the data file {0} is in use by another process; stop that one first")]
    InUse(String),
    /// The file cannot be read or is damaged.
    #[error("the data file {path} cannot be opened: {reason}")]
    Damaged {
        /// The file.
        path: String,
        /// What is wrong with it.
        reason: String,
    },
    /// The file was written by a newer version of this program.
    #[error("the data file {path} has format {found}, this version reads format {supported}; use a newer version")]
    Format {
        /// The file.
        path: String,
        /// Its format.
        found: u64,
        /// What this version reads.
        supported: u64,
    },
}

/// Objects of a resource as of one revision, in key order.
#[derive(Debug)]
pub struct Snapshot {
    /// The revision.
    pub revision: u64,
    /// The objects.
    pub objects: Vec<(ObjectName, Arc<Stored>)>,
    /// How many more there are after them.
    pub remaining: usize,
}

/// Events after a revision.
#[derive(Debug)]
pub struct Events {
    /// The events, oldest first.
    pub events: Vec<Arc<Event>>,
    /// The revision up to which the watcher has now seen everything.
    pub revision: u64,
}

/// Told of every write after it happened, in order; it must be quick and must not write itself.
pub type Observer = Box<dyn Fn(&Arc<Event>) + Send + Sync>;

/// The store; clones share it.
#[derive(Clone)]
pub struct Store {
    inner: Arc<Inner>,
}

struct Inner {
    state: RwLock<State>,
    observer: std::sync::OnceLock<Observer>,
    /// The writer thread of a file; in memory, writes happen under the lock.
    writer: Option<mpsc::Sender<writer::Pending>>,
}

impl std::fmt::Debug for Store {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        formatter
            .debug_struct("Store")
            .field("revision", &self.revision())
            .finish_non_exhaustive()
    }
}

impl Store {
    /// A store that is gone with the process.
    pub fn in_memory(limits: HistoryLimits) -> Self {
        Self {
            inner: Arc::new(Inner {
                state: RwLock::new(State::new(limits)),
                observer: std::sync::OnceLock::new(),
                writer: None,
            }),
        }
    }

    /// A store on a file, made if missing. What is acknowledged is on the disk.
    pub fn open(path: &Path, limits: HistoryLimits) -> Result<Self, OpenError> {
        let (file, state) = file::DataFile::open(path, limits)?;
        let (sender, receiver) = mpsc::channel(writer::QUEUE);
        let inner = Arc::new(Inner {
            state: RwLock::new(state),
            observer: std::sync::OnceLock::new(),
            writer: Some(sender),
        });
        let weak = Arc::downgrade(&inner);
        std::thread::Builder::new()
            .name("apiserver-writer".to_owned())
            .spawn(move || writer::run(&weak, file, receiver))
            .map_err(|error| OpenError::Damaged {
                path: path.display().to_string(),
                reason: error.to_string(),
            })?;
        Ok(Self { inner })
    }

    /// Sets who is told of every write; the first call counts.
    pub fn observe(&self, observer: Observer) {
        let _ = self.inner.observer.set(observer);
    }

    /// The present revision.
    pub fn revision(&self) -> u64 {
        self.inner.state.read().revision()
    }

    /// Performs a write; on return it is durable and visible.
    pub async fn write(&self, write: Write) -> Result<Arc<Stored>, WriteError> {
        let Some(writer) = &self.inner.writer else {
            return self.inner.write_in_memory(write);
        };
        let (reply, answer) = oneshot::channel();
        let stopped = || WriteError::Unavailable("the writer has stopped".into());
        writer
            .send(writer::Pending { write, reply })
            .await
            .map_err(|_| stopped())?;
        answer.await.map_err(|_| stopped())?
    }

    /// One object.
    pub fn get(&self, key: &Key) -> Option<Arc<Stored>> {
        self.inner.state.read().get(key)
    }

    /// All objects of a resource, of one namespace or of all, as of now.
    pub fn list_all(&self, resource: &str, namespace: Option<&str>) -> Vec<(ObjectName, Arc<Stored>)> {
        // Without a revision to be of, nothing can be wrong with it.
        self.list(resource, namespace, None, None, usize::MAX)
            .map(|list| list.objects)
            .unwrap_or_default()
    }

    /// At most `limit` objects of a resource, of one namespace or of all, from `start` on in key order, as of `at` or of
    /// now.
    pub fn list(
        &self,
        resource: &str,
        namespace: Option<&str>,
        start: Option<&Start>,
        at: Option<u64>,
        limit: usize,
    ) -> Result<Snapshot, RevisionError> {
        self.inner.state.read().list(resource, namespace, start, at, limit)
    }

    /// How many objects a resource has.
    pub fn count(&self, resource: &str) -> usize {
        self.inner.state.read().count(resource)
    }

    /// The resources that have objects in a namespace.
    pub fn resources_in_namespace(&self, namespace: &str) -> Vec<Arc<str>> {
        self.inner.state.read().resources_in_namespace(namespace)
    }

    /// Which object has this UID.
    pub fn key_of(&self, uid: &str) -> Option<Key> {
        self.inner.state.read().key_of(encode::uid_number(uid))
    }

    /// Which object has this UID, given as a number.
    pub fn key_of_number(&self, uid: u128) -> Option<Key> {
        self.inner.state.read().key_of(uid)
    }

    /// The objects that name this UID, given as a number, as an owner.
    pub fn dependents(&self, uid: u128) -> Vec<Key> {
        self.inner.state.read().dependents(uid)
    }

    /// All keys of objects that need a look after a start: those with owners and those being deleted.
    pub fn unfinished(&self) -> Vec<Key> {
        self.inner.state.read().unfinished()
    }

    /// At most `limit` events of a resource after a revision.
    pub fn events_after(&self, resource: &str, revision: u64, limit: usize) -> Result<Events, RevisionError> {
        self.inner.state.read().events_after(resource, revision, limit)
    }

    /// Has the watchers of a resource look again, though nothing was written.
    pub fn wake(&self, resource: &str) {
        self.inner.state.read().wake(resource);
    }

    /// Signals new events of a resource; subscribe before reading events.
    pub fn subscribe(&self, resource: &Arc<str>) -> watch::Receiver<u64> {
        if let Some(receiver) = self.inner.state.read().subscribe(resource) {
            return receiver;
        }
        self.inner.state.write().subscribe_new(resource)
    }
}

impl Inner {
    fn write_in_memory(&self, write: Write) -> Result<Arc<Stored>, WriteError> {
        let mut state = self.state.write();
        let mut overlay = Overlay::default();
        let stored = state.prepare(write, &mut overlay)?;
        self.publish(&mut state, overlay);
        Ok(stored)
    }

    fn publish(&self, state: &mut State, overlay: Overlay) {
        for event in state.publish(overlay) {
            if let Some(observer) = self.observer.get() {
                observer(&event);
            }
        }
    }
}
