//! The data file: a redb database with one table of objects and one of numbers.
//!
//! It is read once, at the start, every checksum of it; afterwards it only takes writes, a whole batch in one
//! transaction. A commit is of two phases, so that a last commit that does not read back is damage, not a crash: it is
//! told, and never taken back silently.

use std::fs::File;
use std::io::Read as _;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, Instant};

use bytes::Bytes;
use redb::{Database, DatabaseError, ReadableDatabase, ReadableTable, TableDefinition, TableHandle};

use super::state::{Event, EventKind, HistoryLimits, State};
use super::{Key, OpenError, Stored};

/// Objects by `resource NUL namespace NUL name`; a value is the revision (8 bytes, big endian) and the JSON.
const OBJECTS: TableDefinition<'_, &[u8], &[u8]> = TableDefinition::new("objects");
const NUMBERS: TableDefinition<'_, &str, u64> = TableDefinition::new("numbers");
const FORMAT: u64 = 1;
/// With what all redb files begin.
const MAGIC: [u8; 9] = *b"redb\x1A\x0A\xA9\x0D\x0A";
/// Everything is kept in memory anyway.
const CACHE_BYTES: usize = 8 << 20;
/// How long a file that is in use is waited for: a store of this process that was just dropped lets it go in a moment.
const PATIENCE: Duration = Duration::from_secs(2);

pub(super) struct DataFile {
    path: PathBuf,
    database: Database,
}

impl DataFile {
    /// Opens a file, makes it if there is none, and reads it.
    pub(super) fn open(path: &Path, limits: HistoryLimits) -> Result<(Self, State), OpenError> {
        let shown = || path.display().to_string();
        make_if_missing(path)?;
        let file = Self::attach(path)?;
        // Who was killed while making a file left a part of one; the file itself is there, so no one makes one now.
        remove_leftovers(path);
        match file.load()? {
            Content {
                format: FORMAT,
                revision,
                objects,
            } => Ok((file, State::loaded(limits, revision, objects))),
            Content { format, .. } => Err(OpenError::Format {
                path: shown(),
                found: format,
                supported: FORMAT,
            }),
        }
    }

    /// Opens a file that was in use until a write to it failed. What that write had brought onto the disk after all is
    /// taken back, as its client was told: `present` are its objects as they are to be.
    pub(super) fn reopen(
        path: &Path,
        present: &[(Key, Option<Arc<Stored>>)],
        revision: u64,
    ) -> Result<Self, redb::Error> {
        let file = Self {
            path: path.to_owned(),
            database: builder().open(path)?,
        };
        let found = {
            let numbers = file.database.begin_read()?.open_table(NUMBERS)?;
            numbers.get("revision")?.map_or(0, |value| value.value())
        };
        if found != revision {
            file.transact(|objects| {
                for (key, stored) in present {
                    put(objects, key, stored.as_deref())?;
                }
                Ok(revision)
            })?;
        }
        Ok(file)
    }

    pub(super) fn path(&self) -> &Path {
        &self.path
    }

    /// Opens a file that exists. Nothing is written to it before it is known to be ours.
    fn attach(path: &Path) -> Result<Self, OpenError> {
        let started = Instant::now();
        loop {
            match builder().open(path) {
                Ok(database) => {
                    return Ok(Self {
                        path: path.to_owned(),
                        database,
                    });
                }
                Err(DatabaseError::DatabaseAlreadyOpen) if started.elapsed() < PATIENCE => {
                    std::thread::sleep(Duration::from_millis(5));
                }
                Err(DatabaseError::DatabaseAlreadyOpen) => return Err(OpenError::InUse(path.display().to_string())),
                Err(error) => return Err(damaged(path, &error.into())),
            }
        }
    }

    fn load(&self) -> Result<Content, OpenError> {
        let failed = |error: redb::Error| damaged(&self.path, &error);
        let refused = |reason: String| unusable(&self.path, reason);
        let transaction = self.database.begin_read().map_err(|error| failed(error.into()))?;
        let ours = [OBJECTS.name(), NUMBERS.name()];
        let tables = transaction.list_tables().map_err(|error| failed(error.into()))?;
        if tables.filter(|table| ours.contains(&table.name())).count() < ours.len() {
            return Err(refused(FOREIGN.to_owned()));
        }
        let numbers = transaction.open_table(NUMBERS).map_err(|error| failed(error.into()))?;
        let number = |name: &str| match numbers.get(name) {
            Ok(Some(value)) => Ok(value.value()),
            Ok(None) => Err(refused(FOREIGN.to_owned())),
            Err(error) => Err(failed(error.into())),
        };
        let (format, revision) = (number("format")?, number("revision")?);
        let mut objects = Vec::new();
        if format == FORMAT {
            let mut resources: std::collections::HashSet<Arc<str>> = std::collections::HashSet::new();
            let table = transaction.open_table(OBJECTS).map_err(|error| failed(error.into()))?;
            for row in table.iter().map_err(|error| failed(error.into()))? {
                let (key, value) = row.map_err(|error| failed(error.into()))?;
                let object = decode(key.value(), value.value(), &mut resources);
                let Some(object) = object.filter(|(_, stored)| stored.revision <= revision) else {
                    let key = String::from_utf8_lossy(key.value()).replace('\0', "/");
                    return Err(refused(format!("the object {key} is damaged; {RESTORE}")));
                };
                objects.push(object);
            }
        }
        Ok(Content {
            format,
            revision,
            objects,
        })
    }

    /// Makes events durable.
    pub(super) fn commit(&self, events: &[Arc<Event>]) -> Result<(), redb::Error> {
        let Some(last) = events.last() else { return Ok(()) };
        self.transact(|objects| {
            for event in events {
                let present = (event.kind != EventKind::Deleted).then_some(event.object.as_ref());
                put(objects, &event.key, present)?;
            }
            Ok(last.revision())
        })
    }

    /// Changes objects and sets the revision, all or nothing.
    fn transact(
        &self,
        change: impl FnOnce(&mut redb::Table<'_, &[u8], &[u8]>) -> Result<u64, redb::Error>,
    ) -> Result<(), redb::Error> {
        let mut transaction = self.database.begin_write()?;
        transaction.set_two_phase_commit(true);
        let revision = change(&mut transaction.open_table(OBJECTS)?)?;
        transaction.open_table(NUMBERS)?.insert("revision", revision)?;
        transaction.commit()?;
        Ok(())
    }
}

fn builder() -> redb::Builder {
    let mut builder = Database::builder();
    builder.set_cache_size(CACHE_BYTES).set_check_integrity_on_open(true);
    builder
}

struct Content {
    format: u64,
    revision: u64,
    objects: Vec<(Key, Arc<Stored>)>,
}

const RESTORE: &str = "restore the file from a backup, or remove it to start anew";
const FOREIGN: &str = "it is not a data file of this program; name another file";

fn unusable(path: &Path, reason: String) -> OpenError {
    OpenError::Damaged {
        path: path.display().to_string(),
        reason,
    }
}

fn damaged(path: &Path, error: &redb::Error) -> OpenError {
    let reason = match error {
        redb::Error::Io(error) => return unreadable(path, error),
        redb::Error::UpgradeRequired(_) => "it has an older format; use the version that wrote it".to_owned(),
        error => {
            let what = error.to_string();
            format!("its content is damaged ({}); {RESTORE}", what.trim_end_matches('.'))
        }
    };
    unusable(path, reason)
}

fn unreadable(path: &Path, error: &std::io::Error) -> OpenError {
    use std::io::ErrorKind;
    let reason = match error.kind() {
        // What redb says of a file that ends too early or is no database.
        ErrorKind::UnexpectedEof | ErrorKind::InvalidData => {
            format!("its content is damaged or cut short ({error}); {RESTORE}")
        }
        ErrorKind::StorageFull | ErrorKind::QuotaExceeded | ErrorKind::FileTooLarge => {
            format!("there is no room for it ({error}); free some disk space and start again")
        }
        _ => format!("{error}; check the path and its permissions"),
    };
    unusable(path, reason)
}

/// Makes the file as a whole or not at all, so that an empty or partial one is known for damage.
fn make_if_missing(path: &Path) -> Result<(), OpenError> {
    let failed = |error: std::io::Error| unreadable(path, &error);
    let metadata = match std::fs::metadata(path) {
        Ok(metadata) => metadata,
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => return make(path),
        Err(error) => return Err(failed(error)),
    };
    let refused = |reason: &str| Err(unusable(path, reason.to_owned()));
    if metadata.is_dir() {
        return refused("it is a folder; name a file");
    }
    if !metadata.is_file() {
        return refused("it is not a regular file; name another one");
    }
    if metadata.len() == 0 {
        return refused(&format!("it is empty, so whatever it held is lost; {RESTORE}"));
    }
    let mut start = Vec::with_capacity(MAGIC.len());
    let file = File::open(path).map_err(failed)?;
    file.take(MAGIC.len() as u64).read_to_end(&mut start).map_err(failed)?;
    if MAGIC.starts_with(&start) {
        Ok(())
    } else {
        refused(FOREIGN)
    }
}

fn make(path: &Path) -> Result<(), OpenError> {
    let folder = match path.parent() {
        Some(folder) if !folder.as_os_str().is_empty() => folder,
        _ => Path::new("."),
    };
    std::fs::create_dir_all(folder).map_err(|error| unreadable(path, &error))?;
    let part = with_suffix(path, &format!("{PART}{}", uuid::Uuid::new_v4().simple()));
    let made = fill(&part)
        .map_err(|error| damaged(path, &error))
        .and_then(|()| put_in_place(&part, path).map_err(|error| unreadable(path, &error)));
    let _ = std::fs::remove_file(&part);
    made?;
    // The name of the file is to survive a power cut as its content does.
    #[cfg(unix)]
    File::open(folder)
        .and_then(|folder| folder.sync_all())
        .map_err(|error| unreadable(path, &error))?;
    Ok(())
}

/// Of another process that makes the same file at the same time, one wins.
fn put_in_place(part: &Path, path: &Path) -> std::io::Result<()> {
    match std::fs::hard_link(part, path) {
        Err(error) if error.kind() == std::io::ErrorKind::AlreadyExists => Ok(()),
        // Not every file system has links.
        Err(_) => std::fs::rename(part, path),
        Ok(()) => Ok(()),
    }
}

fn fill(part: &Path) -> Result<(), redb::Error> {
    create_private(part)?;
    let database = Database::builder().set_cache_size(CACHE_BYTES).create(part)?;
    let mut transaction = database.begin_write()?;
    transaction.set_two_phase_commit(true);
    transaction.open_table(OBJECTS)?;
    {
        let mut numbers = transaction.open_table(NUMBERS)?;
        numbers.insert("format", FORMAT)?;
        // Clients read resourceVersion "0" as "any", so the first revision is 1.
        numbers.insert("revision", 1)?;
    }
    transaction.commit()?;
    database.close()?;
    Ok(())
}

/// Between the name of a file and what makes the name of a part of it unique.
const PART: &str = ".part-";

fn with_suffix(path: &Path, suffix: &str) -> PathBuf {
    let mut name = path.as_os_str().to_owned();
    name.push(suffix);
    name.into()
}

fn remove_leftovers(path: &Path) {
    let (Some(folder), Some(name)) = (path.parent(), path.file_name()) else {
        return;
    };
    let prefix = format!("{}{PART}", name.to_string_lossy());
    let entries = std::fs::read_dir(folder).into_iter().flatten().filter_map(Result::ok);
    for entry in entries {
        if entry.file_name().to_string_lossy().starts_with(&prefix) {
            let _ = std::fs::remove_file(entry.path());
        }
    }
}

/// Secrets are in it: it belongs to its owner alone, from the first moment.
fn create_private(path: &Path) -> std::io::Result<()> {
    let mut options = std::fs::OpenOptions::new();
    options.create_new(true).read(true).write(true);
    #[cfg(unix)]
    std::os::unix::fs::OpenOptionsExt::mode(&mut options, 0o600);
    options.open(path).map(drop)
}

fn put(
    objects: &mut redb::Table<'_, &[u8], &[u8]>,
    key: &Key,
    present: Option<&Stored>,
) -> Result<(), redb::StorageError> {
    let key = encode_key(key);
    match present {
        None => objects.remove(key.as_slice())?,
        Some(stored) => {
            let mut value = Vec::with_capacity(stored.bytes.len() + 8);
            value.extend_from_slice(&stored.revision.to_be_bytes());
            value.extend_from_slice(&stored.bytes);
            objects.insert(key.as_slice(), value.as_slice())?
        }
    };
    Ok(())
}

fn encode_key(key: &Key) -> Vec<u8> {
    [
        key.resource.as_bytes(),
        key.object.namespace.as_bytes(),
        key.object.name.as_bytes(),
    ]
    .join(&0)
}

fn decode(key: &[u8], value: &[u8], resources: &mut std::collections::HashSet<Arc<str>>) -> Option<(Key, Arc<Stored>)> {
    let mut parts = std::str::from_utf8(key).ok()?.split('\0');
    let (resource, namespace, name) = (parts.next()?, parts.next()?, parts.next()?);
    let resource = match resources.get(resource) {
        Some(known) => Arc::clone(known),
        None => {
            let new: Arc<str> = resource.into();
            resources.insert(Arc::clone(&new));
            new
        }
    };
    let (revision, bytes) = value.split_first_chunk::<8>()?;
    let stored = Stored::from_bytes(u64::from_be_bytes(*revision), Bytes::copy_from_slice(bytes)).ok()?;
    Some((Key::new(&resource, namespace, name), Arc::new(stored)))
}
