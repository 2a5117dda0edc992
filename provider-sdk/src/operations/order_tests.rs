//! The rules one by one, and then any history at all.

use proptest::prelude::*;

use super::*;

const FREE: Room = Room {
    to_run: true,
    to_wait: true,
    waiting: 0,
};

fn intent(verb: Verb, generation: i64, digest: u8) -> Intent {
    Intent {
        verb,
        generation,
        fingerprint: Fingerprint::of(&[&[digest]]),
    }
}

#[derive(Default)]
struct Key {
    order: KeyOrder,
    memory: KeyMemory,
    next: u64,
}

impl Key {
    fn admit_in(&mut self, intent: &Intent, room: Room) -> (OperationId, Verdict) {
        self.next += 1;
        let id = OperationId(self.next);
        (id, self.order.admit(&mut self.memory, id, intent, room))
    }

    fn admit(&mut self, intent: &Intent) -> (OperationId, Verdict) {
        self.admit_in(intent, FREE)
    }
}

#[test]
fn the_same_request_joins_and_another_waits() {
    let mut key = Key::default();
    let create = intent(Verb::Create, 1, 1);
    let (first, verdict) = key.admit(&create);
    assert_eq!(verdict, Verdict::Start);
    assert_eq!(key.admit(&create).1, Verdict::Join(first));
    assert_eq!(key.admit(&intent(Verb::Create, 1, 2)).1, Verdict::Wait);
    assert_eq!(key.admit(&intent(Verb::Update, 2, 2)).1, Verdict::Wait);
    let full = Room {
        waiting: MAX_WAITING,
        ..FREE
    };
    let update = intent(Verb::Update, 2, 2);
    assert_eq!(key.admit_in(&update, full).1, Verdict::Refuse(Refusal::Pending));
    let late = Room { to_wait: false, ..FREE };
    assert_eq!(key.admit_in(&update, late).1, Verdict::Refuse(Refusal::Pending));
    assert_eq!(key.order.finish(first), None);
    assert_eq!(key.admit(&update).1, Verdict::Start);
}

#[test]
fn delete_wins_over_a_running_create() {
    let mut key = Key::default();
    let create = intent(Verb::Create, 1, 1);
    let (creating, _) = key.admit(&create);
    let delete = intent(Verb::Delete, 2, 0);
    let (deleting, verdict) = key.admit(&delete);
    assert_eq!(verdict, Verdict::Queue);
    assert_eq!(key.admit(&delete).1, Verdict::Join(deleting));
    // Even one that is the same as what still runs, or newer than the Delete.
    let same = intent(Verb::Create, 2, 1);
    assert_eq!(key.admit(&same).1, Verdict::Refuse(Refusal::Deleted));
    assert_eq!(key.order.finish(creating), Some(deleting));
    assert_eq!(
        key.admit(&intent(Verb::Create, 3, 1)).1,
        Verdict::Refuse(Refusal::Deleted)
    );
    assert_eq!(key.order.finish(deleting), None);
    assert!(key.order.is_idle());
    assert_eq!(
        key.admit(&intent(Verb::Create, 3, 1)).1,
        Verdict::Refuse(Refusal::Deleted)
    );
    assert_eq!(key.admit(&intent(Verb::Delete, 3, 0)).1, Verdict::Start);
}

#[test]
fn generations_never_go_back() {
    let mut key = Key::default();
    let (id, _) = key.admit(&intent(Verb::Create, 5, 1));
    key.order.finish(id);
    let stale = Verdict::Refuse(Refusal::StaleGeneration { seen: 5 });
    assert_eq!(key.admit(&intent(Verb::Update, 4, 1)).1, stale);
    assert_eq!(key.admit(&intent(Verb::Delete, 4, 0)).1, stale);
    assert_eq!(key.admit(&intent(Verb::Update, 5, 1)).1, Verdict::Start);
}

#[test]
fn what_is_refused_leaves_no_trace() {
    let mut key = Key::default();
    let full = Room { to_run: false, ..FREE };
    let refused = Verdict::Refuse(Refusal::TooMany);
    assert_eq!(key.admit_in(&intent(Verb::Delete, 9, 0), full).1, refused);
    assert_eq!(key.memory, KeyMemory::default());
    let (creating, verdict) = key.admit(&intent(Verb::Create, 1, 1));
    assert_eq!(verdict, Verdict::Start);
    assert_eq!(key.admit_in(&intent(Verb::Delete, 2, 0), full).1, refused);
    // Joining needs no room.
    assert_eq!(
        key.admit_in(&intent(Verb::Create, 1, 1), full).1,
        Verdict::Join(creating)
    );
}

#[test]
fn fingerprints_keep_parts_apart() {
    assert_ne!(Fingerprint::of(&[b"ab", b"c"]), Fingerprint::of(&[b"a", b"bc"]));
    assert_eq!(Fingerprint::of(&[b"ab", b"c"]), Fingerprint::of(&[b"ab", b"c"]));
}

#[derive(Debug, Clone)]
enum Event {
    Ask(Verb, i64, u8, bool, bool),
    Finish,
}

fn events() -> impl Strategy<Value = Vec<Event>> {
    let verb = prop::sample::select(vec![Verb::Create, Verb::Update, Verb::Delete, Verb::SetMembers]);
    let ask = (verb, 0i64..5, 0u8..3, prop::bool::weighted(0.9), any::<bool>())
        .prop_map(|(verb, generation, digest, run, wait)| Event::Ask(verb, generation, digest, run, wait));
    prop::collection::vec(prop_oneof![3 => ask, 1 => Just(Event::Finish)], 0..60)
}

proptest! {
    #[test]
    fn no_history_breaks_a_rule(events in events()) {
        let mut key = Key::default();
        // The model: what runs and what is queued, as seen from outside.
        let mut running: Option<(OperationId, Intent)> = None;
        let mut queued: Option<(OperationId, Intent)> = None;
        let mut delete_accepted = false;
        let mut highest = 0;
        for event in events {
            match event {
                Event::Ask(verb, generation, digest, to_run, to_wait) => {
                    let asked = intent(verb, generation, digest);
                    let was_queued = queued.is_some();
                    let (id, verdict) = key.admit_in(&asked, Room { to_run, to_wait, waiting: 0 });
                    match verdict {
                        Verdict::Start => {
                            prop_assert!(running.is_none(), "two run at the same time");
                            prop_assert!(to_run);
                            running = Some((id, asked.clone()));
                        }
                        Verdict::Queue => {
                            prop_assert!(running.is_some() && queued.is_none());
                            prop_assert_eq!(verb, Verb::Delete);
                            queued = Some((id, asked.clone()));
                        }
                        Verdict::Join(joined) => {
                            let target = [&running, &queued].into_iter().flatten().find(|(id, _)| *id == joined);
                            prop_assert_eq!(target.map(|(_, intent)| intent), Some(&asked));
                        }
                        Verdict::Wait => prop_assert!(running.is_some() && to_wait),
                        Verdict::Refuse(Refusal::StaleGeneration { seen }) => {
                            prop_assert_eq!(seen, highest);
                            prop_assert!(generation < highest);
                        }
                        Verdict::Refuse(Refusal::Deleted) => {
                            prop_assert!(delete_accepted);
                            prop_assert_eq!(verb, Verb::Create);
                        }
                        Verdict::Refuse(Refusal::Pending) => prop_assert!(running.is_some() && !to_wait),
                        Verdict::Refuse(Refusal::TooMany) => prop_assert!(!to_run),
                    }
                    let accepted = matches!(verdict, Verdict::Start | Verdict::Queue | Verdict::Join(_));
                    if accepted {
                        prop_assert!(generation >= highest, "a generation went back");
                        prop_assert!(!(verb == Verb::Create && delete_accepted), "a Create after a Delete");
                        delete_accepted |= verb == Verb::Delete;
                    }
                    // With room, a Delete is never turned away because a Create runs.
                    let creating = running.as_ref().is_some_and(|(_, intent)| intent.verb == Verb::Create);
                    if verb == Verb::Delete && to_run && creating && !was_queued {
                        let stale = matches!(verdict, Verdict::Queue | Verdict::Refuse(Refusal::StaleGeneration { .. }));
                        prop_assert!(stale, "a Delete was turned away");
                    }
                    if !matches!(verdict, Verdict::Refuse(_)) {
                        highest = highest.max(generation);
                    }
                }
                Event::Finish => {
                    let Some((id, _)) = running.take() else { continue };
                    let next = key.order.finish(id);
                    running = queued.take();
                    prop_assert_eq!(next, running.as_ref().map(|(id, _)| *id), "the queued Delete runs at once");
                    // Ending twice changes nothing.
                    prop_assert_eq!(key.order.finish(id), None);
                }
            }
            prop_assert_eq!(key.order.is_idle(), running.is_none());
        }
    }
}
