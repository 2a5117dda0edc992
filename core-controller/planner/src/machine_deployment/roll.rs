//! How many replicas each MachineSet gets: rolling update, replacement on deletion, proportional scaling.
//!
//! Availability is counted on the machines themselves and on those that would survive, in the order in which a set gives
//! machines up; so a status that is late never costs an available machine. Not for creating, naming or deleting sets.

use jiff::Timestamp;
use outrigger_api::names::{ANNOTATION_DELETE_MACHINE, ANNOTATION_DESIRED_REPLICAS, ANNOTATION_MAX_REPLICAS};
use outrigger_api::{Machine, MachineSet, ResourceExt};

use super::arithmetic::{self, Bounds, Share};
use super::revision;
use crate::machine_set::{Counts, Readiness, is_deleting, order_for_deletion, readiness};

/// One set, what it has, and what it should have.
#[derive(Clone, Debug)]
pub struct Facts<'a> {
    /// The set.
    pub set: &'a MachineSet,
    /// Its machines, counted.
    pub counts: Counts,
    /// The replicas that it should have.
    pub wanted: i32,
    /// Machines that may be there besides.
    possible: i32,
    /// The machines in the order in which they are given up.
    order: Vec<Worth>,
}

/// What losing a machine would cost.
#[derive(Clone, Copy, Debug)]
struct Worth {
    available: bool,
    /// Somebody wants it to go first.
    marked: bool,
}

impl<'a> Facts<'a> {
    /// The facts of one set with its machines.
    pub fn of(
        set: &'a MachineSet,
        machines: &[&Machine],
        possible: i32,
        min_ready_seconds: i32,
        now: Timestamp,
    ) -> Self {
        let mut staying: Vec<&Machine> = machines
            .iter()
            .copied()
            .filter(|machine| !is_deleting(machine))
            .collect();
        order_for_deletion(&mut staying, set.spec.delete_policy, min_ready_seconds, now);
        let order = staying
            .iter()
            .map(|machine| Worth {
                available: readiness(machine, min_ready_seconds, now) == Readiness::Available,
                marked: machine.annotations().contains_key(ANNOTATION_DELETE_MACHINE),
            })
            .collect();
        let counts = Counts::of(machines.iter().copied(), min_ready_seconds, now);
        Self {
            set,
            counts,
            wanted: set.spec.replicas,
            possible,
            order,
        }
    }

    /// The replicas that the set has in its spec.
    pub fn replicas(&self) -> i32 {
        self.set.spec.replicas
    }

    /// How many machines the set may hold at this moment: those that it has, and those that it may be creating.
    pub fn taken(&self) -> i32 {
        self.replicas().max(self.counts.existing + self.possible)
    }

    /// The machines that are left once the set has come down to `replicas`.
    fn survivors(&self, replicas: i32) -> &[Worth] {
        let victims = usize::try_from(self.counts.existing - replicas).unwrap_or(0);
        &self.order[victims.min(self.order.len())..]
    }

    /// How many available machines are left once the set has come down to `replicas`.
    fn available_at(&self, replicas: i32) -> i32 {
        self.survivors(replicas).iter().filter(|worth| worth.available).count() as i32
    }

    /// The same without marked ones: they go before all others whatever they are worth, and who marked them has given them up.
    fn kept_at(&self, replicas: i32) -> i32 {
        self.survivors(replicas)
            .iter()
            .filter(|worth| worth.available && !worth.marked)
            .count() as i32
    }

    /// Lowers what is wanted by as many as `most`, as long as no more than `budget` available machines are lost. Returns by how
    /// many, and how many available machines that costs.
    fn lower(&mut self, most: i32, budget: i32) -> (i32, i32) {
        let (start, before) = (self.wanted, self.kept_at(self.wanted));
        let mut loss = 0;
        while self.wanted > 0 && start - self.wanted < most {
            let next = before - self.kept_at(self.wanted - 1);
            if next > budget {
                break;
            }
            loss = next;
            self.wanted -= 1;
        }
        (start - self.wanted, loss)
    }
}

/// One step of a rolling update. `leaving` machines belong to sets that are being deleted: they still take room, and count for
/// nothing else.
pub fn rolling_update(new: &mut Facts<'_>, olds: &mut [Facts<'_>], desired: i32, bounds: Bounds, leaving: i32) {
    let taken = leaving + new.taken() + olds.iter().map(Facts::taken).sum::<i32>();
    new.wanted = arithmetic::new_set(desired, bounds.surge, new.replicas(), taken);

    let minimum = desired - bounds.unavailable;
    let all = new.replicas() + olds.iter().map(Facts::replicas).sum::<i32>();
    // What the new set has before this step; what it loses if it is above the desired number is gone already.
    let new_available = new.available_at(new.wanted.min(new.replicas()));
    let new_missing = (new.replicas().min(new.wanted) - new_available).max(0);
    let mut may_go = all.min(all - new.replicas() + new.wanted) - minimum - new_missing;
    let mut budget = new_available + olds.iter().map(|old| old.kept_at(old.replicas())).sum::<i32>() - minimum;
    // First what is of no use: machines that are not available, the oldest set first.
    for old in olds.iter_mut() {
        may_go -= old.lower(may_go.max(0), 0).0;
    }
    for old in olds.iter_mut() {
        let (lowered, loss) = old.lower(may_go.max(0), budget.max(0));
        may_go -= lowered;
        budget -= loss;
    }
}

/// Replacement by hand: an old set keeps what it has, and the new set gets what the old ones lose.
pub fn on_delete(new: Option<&mut Facts<'_>>, olds: &mut [Facts<'_>], desired: i32, leaving: i32) {
    for old in olds.iter_mut() {
        old.wanted = old.replicas().min(old.counts.existing);
    }
    let mut too_many = olds.iter().map(|old| old.wanted).sum::<i32>() - desired;
    for old in olds.iter_mut() {
        let step = too_many.clamp(0, old.wanted);
        old.wanted -= step;
        too_many -= step;
    }
    let Some(new) = new else { return };
    let target = desired - olds.iter().map(|old| old.wanted).sum::<i32>();
    let taken = leaving + new.taken() + olds.iter().map(Facts::taken).sum::<i32>();
    let room = (desired - taken).max(0);
    new.wanted = if target > new.replicas() {
        new.replicas() + room.min(target - new.replicas())
    } else {
        target
    };
}

/// Whether the deployment was scaled since its sets last were.
pub fn is_scaled<'a>(facts: impl IntoIterator<Item = &'a Facts<'a>>, desired: i32) -> bool {
    facts
        .into_iter()
        .filter(|facts| facts.replicas() > 0)
        .any(|facts| revision::number(facts.set, ANNOTATION_DESIRED_REPLICAS).is_some_and(|then| then != desired))
}

/// Scales what there is: the one set that has machines, or all of them in proportion.
pub fn scale<'a>(
    new: Option<&mut Facts<'a>>,
    olds: &mut [Facts<'a>],
    desired: i32,
    bounds: Bounds,
    leaving: i32,
    observed: i32,
) {
    let allowed = if desired > 0 {
        desired.saturating_add(bounds.surge)
    } else {
        0
    };
    let saturated = new.as_ref().is_some_and(|new| {
        new.replicas() == desired
            && new.counts.available == desired
            && revision::number(new.set, ANNOTATION_DESIRED_REPLICAS) == Some(desired)
    });
    let has_new = new.is_some();
    let mut all: Vec<&mut Facts<'a>> = new.into_iter().chain(olds.iter_mut()).collect();
    if saturated {
        all.iter_mut().skip(usize::from(has_new)).for_each(|old| old.wanted = 0);
        return;
    }
    let active = all.iter().filter(|facts| facts.replicas() > 0).count();
    if active <= 1 {
        let taken = leaving + all.iter().map(|facts| facts.taken()).sum::<i32>();
        // Without a set that has machines it is the new one's turn, or else the youngest's, which comes last.
        let last = all.len().saturating_sub(1);
        let chosen = all
            .iter()
            .position(|facts| facts.replicas() > 0)
            .unwrap_or(if has_new { 0 } else { last });
        if let Some(facts) = all.get_mut(chosen) {
            facts.wanted = arithmetic::new_set(desired, 0, facts.replicas(), taken);
        }
        return;
    }
    let total: i32 = all.iter().map(|facts| facts.replicas()).sum();
    // Machines that were given up and are still there take room until they go.
    let overdue: i32 = leaving + all.iter().map(|facts| facts.taken() - facts.replicas()).sum::<i32>();
    let target = if allowed > total {
        (allowed - overdue).max(total)
    } else {
        allowed
    };
    let grows = target > total;
    all.retain(|facts| facts.replicas() > 0);
    all.sort_by_key(|facts| {
        let born = facts
            .set
            .metadata
            .creation_timestamp
            .as_ref()
            .map_or(0, |time| time.0.as_second());
        (
            -facts.replicas(),
            if grows { -born } else { born },
            facts.set.name_any(),
        )
    });
    let shares: Vec<Share> = all
        .iter()
        .map(|facts| Share {
            replicas: facts.replicas(),
            allowed_then: revision::number(facts.set, ANNOTATION_MAX_REPLICAS),
        })
        .collect();
    for (facts, wanted) in all
        .iter_mut()
        .zip(arithmetic::proportional(&shares, desired, target, observed))
    {
        facts.wanted = wanted;
    }
}
