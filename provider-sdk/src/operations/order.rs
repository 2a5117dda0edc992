//! The order of mutations of one key, as a pure state machine: at most one runs, the
//! same request joins it, Delete wins, generations never go back.
//!
//! What it knows of a key at rest lives in bounded memory and may be forgotten; the
//! durable part is the provider's own look-up by key.

use actuator_proto::digest::sha256;

/// How many requests may wait for one key.
pub(crate) const MAX_WAITING: usize = 4;

/// What a mutation does.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(crate) enum Verb {
    Create,
    Update,
    Delete,
    SetMembers,
}

/// What makes two requests the same: verb, generation, digest, owner. Attempts,
/// credentials and bootstrap data do not count.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Fingerprint(Vec<u8>);

impl Fingerprint {
    pub(crate) fn of(parts: &[&[u8]]) -> Self {
        let mut bytes = Vec::new();
        for part in parts {
            bytes.extend_from_slice(&(part.len() as u64).to_be_bytes());
            bytes.extend_from_slice(part);
        }
        Self(sha256(&bytes))
    }
}

/// A mutation that asks to run.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Intent {
    pub(crate) verb: Verb,
    pub(crate) generation: i64,
    pub(crate) fingerprint: Fingerprint,
}

/// Names one run of a mutation.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(crate) struct OperationId(pub(crate) u64);

/// What remains of a key when nothing runs.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) struct KeyMemory {
    /// The highest generation seen.
    pub(crate) generation: i64,
    /// A Delete was accepted: no Create starts any more.
    pub(crate) deleted: bool,
}

/// What becomes of a mutation.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Verdict {
    /// It runs now.
    Start,
    /// It is accepted and runs as soon as what runs now has ended.
    Queue,
    /// It is what runs, or what is queued, already.
    Join(OperationId),
    /// It may ask again when something has ended.
    Wait,
    /// It does not run.
    Refuse(Refusal),
}

/// Why a mutation does not run; nothing was done.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Refusal {
    /// A higher generation has been seen.
    StaleGeneration { seen: i64 },
    /// A Delete of this key was accepted before this Create.
    Deleted,
    /// Another mutation of this key runs.
    Pending,
    /// Too many mutations run, of all keys.
    TooMany,
}

/// How much a mutation may ask for.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Room {
    /// Whether one more mutation may run.
    pub(crate) to_run: bool,
    /// Whether the request may still wait.
    pub(crate) to_wait: bool,
    /// How many wait for this key now.
    pub(crate) waiting: usize,
}

/// The mutations of one key that run or are queued.
#[derive(Debug, Default)]
pub(crate) struct KeyOrder {
    running: Option<(OperationId, Intent)>,
    queued_delete: Option<(OperationId, Intent)>,
}

impl KeyOrder {
    /// Whether nothing runs.
    pub(crate) fn is_idle(&self) -> bool {
        self.running.is_none()
    }

    /// Whether this mutation may start or be queued if there is room.
    pub(crate) fn may_accept(&self, intent: &Intent) -> bool {
        self.running.is_none() || (intent.verb == Verb::Delete && self.queued_delete.is_none())
    }

    /// Decides about a mutation. `id` becomes its name if it starts or is queued.
    pub(crate) fn admit(&mut self, memory: &mut KeyMemory, id: OperationId, intent: &Intent, room: Room) -> Verdict {
        if intent.generation < memory.generation {
            return Verdict::Refuse(Refusal::StaleGeneration {
                seen: memory.generation,
            });
        }
        if intent.verb == Verb::Create && memory.deleted {
            return Verdict::Refuse(Refusal::Deleted);
        }
        let verdict = self.place(id, intent, room);
        if !matches!(verdict, Verdict::Refuse(_)) {
            memory.generation = intent.generation;
        }
        // A Delete that only waits is not accepted yet.
        if intent.verb == Verb::Delete && matches!(verdict, Verdict::Start | Verdict::Queue | Verdict::Join(_)) {
            memory.deleted = true;
        }
        verdict
    }

    fn place(&mut self, id: OperationId, intent: &Intent, room: Room) -> Verdict {
        let Some((running, current)) = &self.running else {
            if !room.to_run {
                return Verdict::Refuse(Refusal::TooMany);
            }
            self.running = Some((id, intent.clone()));
            return Verdict::Start;
        };
        if current == intent {
            return Verdict::Join(*running);
        }
        match &self.queued_delete {
            Some((queued, delete)) if delete == intent => return Verdict::Join(*queued),
            None if intent.verb == Verb::Delete && current.verb != Verb::Delete => {
                if !room.to_run {
                    return Verdict::Refuse(Refusal::TooMany);
                }
                self.queued_delete = Some((id, intent.clone()));
                return Verdict::Queue;
            }
            _ => {}
        }
        if room.to_wait && room.waiting < MAX_WAITING {
            Verdict::Wait
        } else {
            Verdict::Refuse(Refusal::Pending)
        }
    }

    /// What ran has ended; gives the queued Delete, which runs now.
    pub(crate) fn finish(&mut self, id: OperationId) -> Option<OperationId> {
        if self.running.as_ref().is_some_and(|(running, _)| *running == id) {
            self.running = self.queued_delete.take();
            return self.running.as_ref().map(|(next, _)| *next);
        }
        None
    }
}

#[cfg(test)]
#[path = "order_tests.rs"]
mod tests;
