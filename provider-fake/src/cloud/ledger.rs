//! The state together with what is written about it: the journal, the history for
//! those who watch, and what reads still show. Everything that changes the state goes
//! through here. Not for: deciding what changes.

use std::fs::File;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use jiff::Timestamp;

use super::history::History;
use super::journal::{Call, Durability, FORMAT, JOURNAL_FILE, Journal, LedgerError, Line, Opened, read};
use super::model::{Action, Change, Instance, Kind};
use super::networks::NetworkView;
use super::settings::Settings;
use super::snapshot::{self, Snapshot};
use super::state::State;
use super::visibility::Visibility;

/// A snapshot is written when the journal has grown by this many bytes.
const SNAPSHOT_EVERY: u64 = 16 << 20;

/// The state and everything that is written about it.
pub(super) struct Ledger {
    pub(super) state: State,
    pub(super) history: History,
    pub(super) seen_instances: Visibility<Arc<Instance>>,
    pub(super) seen_networks: Visibility<NetworkView>,
    journal: Journal,
    seq: u64,
    now: Timestamp,
    opened: Opened,
    folder: PathBuf,
    snapshot_offset: u64,
    /// Held as long as the ledger is open.
    _lock: File,
}

impl Ledger {
    pub(super) fn open(folder: &Path, seed: u64, flush: bool, now: Timestamp) -> Result<(Self, Opened), LedgerError> {
        std::fs::create_dir_all(folder).map_err(LedgerError::io("create", folder))?;
        let lock = lock(folder)?;
        let path = folder.join(JOURNAL_FILE);
        let length = path.metadata().map_or(0, |metadata| metadata.len());
        let snapshot = snapshot::read(folder, length).filter(|snapshot| is_of_journal(snapshot, &path));
        let (mut state, mut seq, offset, mut found) = match snapshot {
            Some(snapshot) => {
                let opened = Opened {
                    format: FORMAT,
                    cloud: snapshot.cloud,
                    start: snapshot.start,
                    seed,
                };
                (
                    State::from_image(snapshot.state),
                    snapshot.seq,
                    snapshot.offset,
                    Some(opened),
                )
            }
            None => (State::default(), 0, 0, None),
        };
        let mut history = History::new(seq);
        let mut last = now;
        let end = if length == 0 {
            0
        } else {
            read(&path, offset, |line| {
                seq = line.seq;
                last = last.max(line.time);
                for change in &line.changes {
                    let before = state.instances.get(&change.id).cloned();
                    history.record(seq, change, before);
                    state.apply(change);
                }
                found = line.opened.or(found.take());
            })?
        };
        if let Some(found) = &found
            && found.format > FORMAT
        {
            return Err(LedgerError::Format { found: found.format });
        }
        let opened = Opened {
            format: FORMAT,
            cloud: found
                .as_ref()
                .map_or_else(|| uuid::Uuid::new_v4().simple().to_string(), |it| it.cloud.clone()),
            start: found.as_ref().map_or(1, |it| it.start + 1),
            seed,
        };
        let mut ledger = Self {
            state,
            history,
            seen_instances: Visibility::default(),
            seen_networks: Visibility::default(),
            journal: Journal::open(&path, end, flush)?,
            seq,
            now: last,
            opened: opened.clone(),
            folder: folder.to_owned(),
            snapshot_offset: offset,
            _lock: lock,
        };
        ledger.write(Some(opened.clone()), None, Vec::new());
        Ok((ledger, opened))
    }

    /// The number of the last line.
    pub(super) fn seq(&self) -> u64 {
        self.seq
    }

    pub(super) fn durability(&self) -> Durability {
        self.journal.durability()
    }

    pub(super) fn wants_snapshot(&self) -> bool {
        self.journal.length() > self.snapshot_offset + SNAPSHOT_EVERY
    }

    /// A snapshot of now, and where it is to be written.
    pub(super) fn snapshot(&mut self) -> (PathBuf, Snapshot) {
        self.snapshot_offset = self.journal.length();
        let snapshot = Snapshot {
            format: FORMAT,
            cloud: self.opened.cloud.clone(),
            start: self.opened.start,
            seq: self.seq,
            offset: self.journal.length(),
            state: self.state.image(),
        };
        (self.folder.clone(), snapshot)
    }

    pub(super) fn close(&self) {
        self.journal.close();
    }

    /// Lets happen what has happened by itself by now, and returns the time, which
    /// never goes back.
    pub(super) fn advance(&mut self, now: Timestamp, settings: &Settings) -> Timestamp {
        self.now = self.now.max(now);
        let now = self.now;
        self.seen_instances.prune(now);
        self.seen_networks.prune(now);
        loop {
            let changes = self.state.due(now);
            if changes.is_empty() {
                return now;
            }
            // Nobody wrote, so that reads show it at once.
            self.carry_out(&changes, None, settings);
            self.write(None, None, changes);
        }
    }

    /// Makes changes that no call made.
    pub(super) fn record_changes(&mut self, changes: Vec<Change>, settings: &Settings) -> u64 {
        self.carry_out(&changes, None, settings);
        self.write(None, None, changes);
        self.seq
    }

    /// Makes the changes of a call and writes both down as one line. Returns the line to
    /// wait for.
    #[allow(clippy::too_many_arguments)]
    pub(super) fn record_call(
        &mut self,
        method: &str,
        key: &str,
        result: &str,
        lost: bool,
        changes: Vec<Change>,
        now: Timestamp,
        settings: &Settings,
    ) -> u64 {
        self.carry_out(&changes, Some(now), settings);
        let call = Call {
            method: method.to_owned(),
            key: key.to_owned(),
            result: result.to_owned(),
            lost,
        };
        self.write(None, Some(call), changes);
        self.seq
    }

    fn carry_out(&mut self, changes: &[Change], written_at: Option<Timestamp>, settings: &Settings) {
        if let Some(now) = written_at {
            self.remember_old_states(changes, now, settings);
        }
        for change in changes {
            let before = self.state.instances.get(&change.id).cloned();
            self.history.record(self.seq + 1, change, before);
            self.state.apply(change);
        }
    }

    fn remember_old_states(&mut self, changes: &[Change], now: Timestamp, settings: &Settings) {
        let window = settings.read_after_write;
        if window.is_zero() {
            return;
        }
        let machine = changes
            .iter()
            .find(|change| change.kind == Kind::Instance && change.action != Action::Retired);
        if let Some(change) = machine {
            let before = self.state.instance_of(&change.key).cloned();
            self.seen_instances.wrote(&change.key, before, now, window);
        }
        let cluster = changes.iter().find(|change| {
            matches!(change.kind, Kind::Network | Kind::LoadBalancer) && change.action != Action::Retired
        });
        if let Some(change) = cluster {
            let before = self.state.network_of(&change.key).map(|network| NetworkView {
                network: Arc::clone(network),
                load_balancer: self.state.load_balancer_of(&change.key).cloned(),
            });
            self.seen_networks.wrote(&change.key, before, now, window);
        }
    }

    fn write(&mut self, opened: Option<Opened>, call: Option<Call>, changes: Vec<Change>) {
        self.seq += 1;
        let line = Line {
            seq: self.seq,
            time: self.now,
            opened,
            call,
            changes,
        };
        self.journal.append(&line);
    }
}

fn lock(folder: &Path) -> Result<File, LedgerError> {
    let path = folder.join("lock");
    let file = File::create(&path).map_err(LedgerError::io("create", &path))?;
    match file.try_lock() {
        Ok(()) => Ok(file),
        Err(std::fs::TryLockError::WouldBlock) => Err(LedgerError::InUse {
            path: folder.to_owned(),
        }),
        Err(std::fs::TryLockError::Error(error)) => Err(LedgerError::io("lock", &path)(error)),
    }
}

/// Whether the snapshot is of this journal and not of one that was there before.
fn is_of_journal(snapshot: &Snapshot, path: &Path) -> bool {
    use std::io::{BufRead as _, BufReader};

    let first = File::open(path).and_then(|file| {
        let mut line = String::new();
        BufReader::new(file).read_line(&mut line)?;
        Ok(line)
    });
    let first: Option<Line> = first.ok().and_then(|line| serde_json::from_str(&line).ok());
    first
        .and_then(|line| line.opened)
        .is_some_and(|opened| opened.cloud == snapshot.cloud)
}
