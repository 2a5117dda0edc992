//! The data file: a redb database with one table of objects and one of numbers.
//!
//! It is read once, at the start; afterwards it only takes writes, a whole batch in one transaction.

use std::path::Path;
use std::sync::Arc;

use bytes::Bytes;
use redb::{Database, ReadableDatabase, ReadableTable, TableDefinition};

use super::state::{EventKind, HistoryLimits, Overlay, State};
use super::{Key, OpenError, Stored};

/// Objects by `resource NUL namespace NUL name`; a value is the revision (8 bytes, big endian) and the JSON.
const OBJECTS: TableDefinition<'_, &[u8], &[u8]> = TableDefinition::new("objects");
const NUMBERS: TableDefinition<'_, &str, u64> = TableDefinition::new("numbers");
const FORMAT: u64 = 1;
/// Everything is kept in memory anyway.
const CACHE_BYTES: usize = 8 << 20;

pub(super) struct DataFile {
    database: Database,
}

impl DataFile {
    pub(super) fn open(path: &Path, limits: HistoryLimits) -> Result<(Self, State), OpenError> {
        let shown = path.display().to_string();
        let damaged = |reason: String| OpenError::Damaged {
            path: shown.clone(),
            reason,
        };
        create_private(path).map_err(|error| damaged(error.to_string()))?;
        let database = Database::builder()
            .set_cache_size(CACHE_BYTES)
            .create(path)
            .map_err(|error| match error {
                redb::DatabaseError::DatabaseAlreadyOpen => OpenError::InUse(shown.clone()),
                other => damaged(other.to_string()),
            })?;
        let file = Self { database };
        file.initialise().map_err(|error| damaged(error.to_string()))?;
        let (format, revision, objects) = file.load().map_err(|error| damaged(error.to_string()))?;
        if format != FORMAT {
            return Err(OpenError::Format {
                path: shown.clone(),
                found: format,
                supported: FORMAT,
            });
        }
        Ok((file, State::loaded(limits, revision, objects)))
    }

    fn initialise(&self) -> Result<(), redb::Error> {
        let transaction = self.database.begin_write()?;
        {
            transaction.open_table(OBJECTS)?;
            let mut numbers = transaction.open_table(NUMBERS)?;
            if numbers.get("format")?.is_none() {
                numbers.insert("format", FORMAT)?;
                numbers.insert("revision", 1)?;
            }
        }
        transaction.commit()?;
        Ok(())
    }

    fn load(&self) -> Result<Content, LoadError> {
        let transaction = self.database.begin_read().map_err(redb::Error::from)?;
        let numbers = transaction.open_table(NUMBERS).map_err(redb::Error::from)?;
        let number =
            |name: &str| -> Result<u64, redb::Error> { Ok(numbers.get(name)?.map_or(0, |value| value.value())) };
        let (format, revision) = (number("format")?, number("revision")?);
        let mut objects = Vec::new();
        if format == FORMAT {
            let mut resources: std::collections::HashSet<Arc<str>> = std::collections::HashSet::new();
            let table = transaction.open_table(OBJECTS).map_err(redb::Error::from)?;
            for row in table.iter().map_err(redb::Error::from)? {
                let (key, value) = row.map_err(redb::Error::from)?;
                objects.push(decode(key.value(), value.value(), &mut resources).ok_or(LoadError::Row)?);
            }
        }
        Ok((format, revision, objects))
    }

    pub(super) fn commit(&mut self, overlay: &Overlay) -> Result<(), redb::Error> {
        let mut transaction = self.database.begin_write()?;
        // The allocator's state is written along, so that opening after a kill does not walk the whole file.
        transaction.set_quick_repair(true);
        {
            let mut objects = transaction.open_table(OBJECTS)?;
            for event in overlay.events() {
                let key = encode_key(&event.key);
                if event.kind == EventKind::Deleted {
                    objects.remove(key.as_slice())?;
                } else {
                    let mut value = Vec::with_capacity(event.object.bytes.len() + 8);
                    value.extend_from_slice(&event.object.revision.to_be_bytes());
                    value.extend_from_slice(&event.object.bytes);
                    objects.insert(key.as_slice(), value.as_slice())?;
                }
            }
            if let Some(last) = overlay.events().last() {
                transaction.open_table(NUMBERS)?.insert("revision", last.revision())?;
            }
        }
        transaction.commit()?;
        Ok(())
    }
}

/// Format, revision, objects.
type Content = (u64, u64, Vec<(Key, Arc<Stored>)>);

#[derive(Debug, thiserror::Error)]
enum LoadError {
    #[error(transparent)]
    Database(#[from] redb::Error),
    #[error("a row cannot be read")]
    Row,
}

/// Secrets are in it: it belongs to its owner alone, from the first moment.
fn create_private(path: &Path) -> std::io::Result<()> {
    if let Some(parent) = path.parent().filter(|parent| !parent.as_os_str().is_empty()) {
        std::fs::create_dir_all(parent)?;
    }
    let mut options = std::fs::OpenOptions::new();
    options.create(true).read(true).write(true).truncate(false);
    #[cfg(unix)]
    std::os::unix::fs::OpenOptionsExt::mode(&mut options, 0o600);
    options.open(path).map(drop)
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
