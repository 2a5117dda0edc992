//! A picture of the state with the place in the journal up to which it holds, so that
//! a start need not read the whole journal. A missing or unreadable one costs time
//! only. The journal is never shortened.

use std::fs::File;
use std::io::{BufReader, BufWriter, Write};
use std::path::Path;

use serde::{Deserialize, Serialize};

use super::journal::{FORMAT, LedgerError};
use super::state::StateImage;

/// The name of the file in the state folder.
pub const SNAPSHOT_FILE: &str = "snapshot.json";

/// A picture of the state.
#[derive(Debug, Serialize, Deserialize)]
pub struct Snapshot {
    /// The version of the format.
    pub format: u32,
    /// Which ledger it is of.
    pub cloud: String,
    /// How many processes have been started on it.
    pub start: u64,
    /// The last line that is in it.
    pub seq: u64,
    /// The byte behind that line.
    pub offset: u64,
    /// The state.
    pub state: StateImage,
}

/// Writes a snapshot in the place of the former one.
pub fn write(folder: &Path, snapshot: &Snapshot) -> Result<(), LedgerError> {
    let (path, draft) = (folder.join(SNAPSHOT_FILE), folder.join("snapshot.json.tmp"));
    let file = File::create(&draft).map_err(LedgerError::io("create", &draft))?;
    let mut writer = BufWriter::new(file);
    serde_json::to_writer(&mut writer, snapshot)
        .map_err(std::io::Error::from)
        .and_then(|()| writer.flush())
        .and_then(|()| writer.get_ref().sync_data())
        .map_err(LedgerError::io("write", &draft))?;
    std::fs::rename(&draft, &path).map_err(LedgerError::io("replace", &path))
}

/// The last snapshot, if there is one that fits a journal of this length.
pub fn read(folder: &Path, journal_length: u64) -> Option<Snapshot> {
    let file = File::open(folder.join(SNAPSHOT_FILE)).ok()?;
    match serde_json::from_reader::<_, Snapshot>(BufReader::new(file)) {
        Ok(snapshot) if snapshot.format == FORMAT && snapshot.offset <= journal_length => Some(snapshot),
        Ok(_) => {
            tracing::warn!("the snapshot does not fit the journal and is not used");
            None
        }
        Err(error) => {
            tracing::warn!(%error, "the snapshot cannot be read and is not used");
            None
        }
    }
}
