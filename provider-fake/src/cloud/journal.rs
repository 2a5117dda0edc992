//! The durable ledger: one append-only file of JSON lines, `journal.jsonl`, in which
//! every call and every change stands in the order in which it happened. One line is
//! one atomic step: a call with all the changes that it made. Changes are on disk
//! before a call is answered; callers at the same time share one write and one flush.
//!
//! Not for: what the lines mean (see `state` and `audit`).

use std::fs::{File, OpenOptions};
use std::io::{BufRead, BufReader, Seek, SeekFrom, Write};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::thread::JoinHandle;

use jiff::Timestamp;
use parking_lot::{Condvar, Mutex};
use serde::{Deserialize, Serialize};
use tokio::sync::watch;

use super::model::Change;

/// The name of the file in the state folder.
pub const JOURNAL_FILE: &str = "journal.jsonl";
/// The version of the format.
pub const FORMAT: u32 = 1;

/// The start of a process on this ledger.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Opened {
    /// The version of the format.
    pub format: u32,
    /// Random for each ledger: tokens of another one are not valid here.
    pub cloud: String,
    /// Counts the starts from 1.
    pub start: u64,
    /// The seed of chance.
    pub seed: u64,
}

/// One call of the cloud's API.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Call {
    /// The method.
    pub method: String,
    /// The key that it was about, empty where it was about none.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub key: String,
    /// `OK` or the reason of the error.
    pub result: String,
    /// The answer never arrives at the caller.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub lost: bool,
}

/// One line.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Line {
    /// Counts the lines from 1, without a gap.
    pub seq: u64,
    /// When it happened.
    pub time: Timestamp,
    /// The start of a process.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub opened: Option<Opened>,
    /// The call; absent where the changes happened by themselves.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub call: Option<Call>,
    /// What changed.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub changes: Vec<Change>,
}

/// Why the ledger cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum LedgerError {
    /// The operating system said no.
    #[error("unable to {doing} {}: {source}", path.display())]
    Io {
        /// What was being done.
        doing: &'static str,
        /// With which file.
        path: PathBuf,
        /// What the system said.
        source: std::io::Error,
    },
    /// A line in the middle cannot be read.
    #[error("line {line} of {} is not a journal line ({problem}); restore the file or use an empty state folder", path.display())]
    Corrupt {
        /// Which file.
        path: PathBuf,
        /// Which line, from 1, counted from where the reading began.
        line: u64,
        /// What is wrong with it.
        problem: String,
    },
    /// Another process has the folder.
    #[error("the state folder {} is in use by another process; stop it or use another folder", path.display())]
    InUse {
        /// Which folder.
        path: PathBuf,
    },
    /// The file was written by a later version.
    #[error("the journal has format {found}, and this version reads {FORMAT}; use a later version")]
    Format {
        /// Its format.
        found: u32,
    },
}

impl LedgerError {
    pub(super) fn io(doing: &'static str, path: &Path) -> impl FnOnce(std::io::Error) -> Self {
        let path = path.to_owned();
        move |source| Self::Io { doing, path, source }
    }
}

/// Reads the lines from a byte offset on. Returns the offset behind the last whole
/// line: what follows was being written when the process was killed, and nobody was
/// told of it.
pub fn read(path: &Path, offset: u64, mut each: impl FnMut(Line)) -> Result<u64, LedgerError> {
    let mut file = File::open(path).map_err(LedgerError::io("open", path))?;
    file.seek(SeekFrom::Start(offset))
        .map_err(LedgerError::io("read", path))?;
    let mut reader = BufReader::with_capacity(1 << 20, file);
    let (mut end, mut number) = (offset, 0);
    let mut bytes = Vec::new();
    loop {
        bytes.clear();
        let length = reader
            .read_until(b'\n', &mut bytes)
            .map_err(LedgerError::io("read", path))?;
        if bytes.last() != Some(&b'\n') {
            return Ok(end);
        }
        number += 1;
        match serde_json::from_slice(&bytes) {
            Ok(line) => each(line),
            Err(error) => {
                let last = reader.fill_buf().map_err(LedgerError::io("read", path))?.is_empty();
                if last {
                    return Ok(end);
                }
                return Err(LedgerError::Corrupt {
                    path: path.to_owned(),
                    line: number,
                    problem: error.to_string(),
                });
            }
        }
        end += length as u64;
    }
}

/// How far the file is.
#[derive(Debug, Clone, Default)]
struct Progress {
    written: u64,
    synced: u64,
    failed: Option<Arc<str>>,
}

#[derive(Default)]
struct Queue {
    bytes: Vec<u8>,
    last: u64,
    sync: bool,
    closing: bool,
}

struct Shared {
    queue: Mutex<Queue>,
    wake: Condvar,
    progress: watch::Sender<Progress>,
}

/// The writing end of the ledger. What is queued is bounded by the calls in flight, as
/// each waits for its own line.
pub struct Journal {
    shared: Arc<Shared>,
    thread: Mutex<Option<JoinHandle<()>>>,
    /// The length of the file once all that is queued is written.
    length: u64,
}

impl Journal {
    /// Appends to `path` from the byte `length` on; what stood behind it is cut off.
    /// Without `flush` the lines survive the end of the process and not that of the
    /// machine.
    pub fn open(path: &Path, length: u64, flush: bool) -> Result<Self, LedgerError> {
        let mut file = OpenOptions::new()
            .create(true)
            .truncate(false)
            .write(true)
            .open(path)
            .map_err(LedgerError::io("open", path))?;
        file.set_len(length).map_err(LedgerError::io("cut", path))?;
        file.seek(SeekFrom::End(0)).map_err(LedgerError::io("write", path))?;
        let shared = Arc::new(Shared {
            queue: Mutex::default(),
            wake: Condvar::new(),
            progress: watch::Sender::new(Progress::default()),
        });
        let writer = Arc::clone(&shared);
        let thread = std::thread::Builder::new()
            .name("journal".to_owned())
            .spawn(move || write_all(&writer, &mut file, flush))
            .map_err(LedgerError::io("start the writer of", path))?;
        Ok(Self {
            shared,
            thread: Mutex::new(Some(thread)),
            length,
        })
    }

    /// Queues a line. Lines must come in the order of their numbers. Changes are
    /// flushed to the disk, mere calls are not.
    pub fn append(&mut self, line: &Line) {
        let mut queue = self.shared.queue.lock();
        let before = queue.bytes.len();
        if let Err(error) = serde_json::to_writer(&mut queue.bytes, line) {
            queue.bytes.truncate(before);
            drop(queue);
            self.shared
                .progress
                .send_modify(|progress| progress.failed = Some(error.to_string().into()));
            return;
        }
        queue.bytes.push(b'\n');
        self.length += (queue.bytes.len() - before) as u64;
        queue.last = line.seq;
        queue.sync |= !line.changes.is_empty() || line.opened.is_some();
        self.shared.wake.notify_one();
    }

    /// The length of the file once all that is queued is written.
    pub fn length(&self) -> u64 {
        self.length
    }

    /// For waiting without holding the journal.
    pub fn durability(&self) -> Durability {
        Durability(self.shared.progress.subscribe())
    }

    /// Writes and flushes what is queued, and ends.
    pub fn close(&self) {
        self.shared.queue.lock().closing = true;
        self.shared.wake.notify_one();
        if let Some(thread) = self.thread.lock().take()
            && thread.join().is_err()
        {
            tracing::error!("the writer of the journal ended in a panic");
        }
    }
}

impl Drop for Journal {
    fn drop(&mut self) {
        self.close();
    }
}

/// Waits until lines are on disk.
#[derive(Clone)]
pub struct Durability(watch::Receiver<Progress>);

impl Durability {
    /// Until the line is written: it survives the end of this process.
    pub async fn written(&mut self, seq: u64) -> Result<(), Arc<str>> {
        self.until(|progress| progress.written >= seq).await
    }

    /// Until the line is flushed: it survives the end of this machine.
    pub async fn synced(&mut self, seq: u64) -> Result<(), Arc<str>> {
        self.until(|progress| progress.synced >= seq).await
    }

    /// What makes the ledger unusable, if something does.
    pub fn failure(&self) -> Option<Arc<str>> {
        self.0.borrow().failed.clone()
    }

    async fn until(&mut self, done: impl Fn(&Progress) -> bool) -> Result<(), Arc<str>> {
        let reached = self
            .0
            .wait_for(|progress| progress.failed.is_some() || done(progress))
            .await;
        match reached {
            Ok(progress) => match &progress.failed {
                Some(problem) => Err(Arc::clone(problem)),
                None => Ok(()),
            },
            Err(_) => Err("the journal is closed".into()),
        }
    }
}

fn write_all(shared: &Shared, file: &mut File, flush: bool) {
    let mut bytes = Vec::new();
    loop {
        let (last, sync, closing) = {
            let mut queue = shared.queue.lock();
            while queue.bytes.is_empty() && !queue.closing {
                shared.wake.wait(&mut queue);
            }
            std::mem::swap(&mut bytes, &mut queue.bytes);
            (queue.last, std::mem::take(&mut queue.sync), queue.closing)
        };
        let nothing = bytes.is_empty();
        let outcome = file.write_all(&bytes).and_then(|()| {
            shared
                .progress
                .send_modify(|progress| progress.written = progress.written.max(last));
            if flush && (sync || closing) {
                file.sync_data()
            } else {
                Ok(())
            }
        });
        if let Err(error) = outcome {
            tracing::error!(%error, "unable to write the journal: every call is refused from now on");
            shared
                .progress
                .send_modify(|progress| progress.failed = Some(error.to_string().into()));
            return;
        }
        // What is not flushed needs no flush: mere calls.
        shared
            .progress
            .send_modify(|progress| progress.synced = progress.synced.max(last));
        bytes.clear();
        bytes.shrink_to(1 << 20);
        if nothing && closing {
            return;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn line(seq: u64) -> Line {
        Line {
            seq,
            time: Timestamp::UNIX_EPOCH,
            opened: None,
            call: Some(Call {
                method: "RunInstance".into(),
                key: format!("key-{seq}"),
                result: "OK".into(),
                lost: false,
            }),
            changes: vec![Change::retired(super::super::model::Kind::Instance, "k", "c")],
        }
    }

    fn seqs(path: &Path) -> (Vec<u64>, u64) {
        let mut seqs = Vec::new();
        let end = read(path, 0, |line| seqs.push(line.seq)).expect("readable");
        (seqs, end)
    }

    #[tokio::test]
    async fn what_is_synced_is_read_back_and_a_torn_line_is_cut_off() {
        let folder = tempfile::tempdir().expect("a folder");
        let path = folder.path().join(JOURNAL_FILE);
        let mut journal = Journal::open(&path, 0, true).expect("opened");
        (1..=3).for_each(|seq| journal.append(&line(seq)));
        journal.durability().synced(3).await.expect("synced");
        assert_eq!(seqs(&path).0, [1, 2, 3]);
        journal.close();
        let length = std::fs::metadata(&path).expect("there").len();
        assert_eq!(journal.length(), length);
        drop(journal);

        let mut file = OpenOptions::new().append(true).open(&path).expect("opened");
        file.write_all(br#"{"seq":4,"time":"19"#).expect("written");
        let (read_back, end) = seqs(&path);
        assert_eq!((read_back, end), (vec![1, 2, 3], length));

        let mut journal = Journal::open(&path, end, true).expect("opened");
        journal.append(&line(4));
        journal.close();
        assert_eq!(seqs(&path).0, [1, 2, 3, 4]);
    }

    #[tokio::test]
    async fn garbage_in_the_middle_is_an_error_that_names_the_line() {
        let folder = tempfile::tempdir().expect("a folder");
        let path = folder.path().join(JOURNAL_FILE);
        let good = serde_json::to_string(&line(1)).expect("text");
        std::fs::write(&path, format!("{good}\noops\n{good}\n")).expect("written");
        let error = read(&path, 0, |_| {}).expect_err("refused").to_string();
        assert!(error.starts_with("line 2 of"), "{error}");
    }

    #[tokio::test]
    async fn a_full_disk_is_told_to_every_caller() {
        let mut journal = Journal::open(Path::new("/dev/full"), 0, true);
        // Where the file cannot even be opened so, there is nothing to try.
        if let Ok(journal) = &mut journal {
            journal.append(&line(1));
            let mut durability = journal.durability();
            durability.synced(1).await.expect_err("nothing can be written");
            assert!(durability.failure().is_some());
        }
    }
}
