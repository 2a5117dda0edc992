//! A plan of a MachineDeployment while it is made: which set is which, what happens first, what each set should have.
//!
//! Not for the numbers (see `arithmetic` and `roll`), nor for the words of the status (see `status`).

use std::collections::BTreeMap;
use std::time::Duration;

use jiff::Timestamp;
use outrigger_api::names::{
    ANNOTATION_DESIRED_REPLICAS, ANNOTATION_DISABLE_MACHINE_CREATE, ANNOTATION_MAX_REPLICAS, ANNOTATION_REVISION,
    ANNOTATION_REVISION_UPSTREAM, ANNOTATION_ROLLBACK_TO,
};
use outrigger_api::{MachineSet, OwnerReference, ResourceExt, StrategyType, reference, selector};

use super::arithmetic::{self, Bounds};
use super::roll::{self, Facts};
use super::{Action, Plan, SetPatch, SetView, View, revision, status};
use crate::event::Event;
use crate::machine_set::is_deleting;

/// A plan being made.
pub(super) struct Draft<'a, 'v> {
    view: &'v View<'a>,
    now: Timestamp,
    bounds: Bounds,
    new: Option<Facts<'a>>,
    /// The oldest first.
    olds: Vec<Facts<'a>>,
    /// Machines of sets that are being deleted.
    leaving: i32,
    collisions: Option<i32>,
    creates_set: bool,
    /// Annotations that the new set should have.
    new_annotations: BTreeMap<String, Option<String>>,
    scaled: bool,
    /// Whether an answer or a back-off has to be waited for, so that nothing else is decided.
    waits: bool,
    actions: Vec<Action>,
    events: Vec<Event>,
    look_again: Option<Duration>,
    reason: String,
}

impl<'a, 'v> Draft<'a, 'v> {
    pub(super) fn new(view: &'v View<'a>, now: Timestamp) -> Self {
        let deployment = view.deployment;
        let spec = &deployment.spec;
        let rolling = &spec.strategy.rolling_update;
        let bounds = match spec.strategy.type_ {
            StrategyType::RollingUpdate => Bounds::resolve(&rolling.max_surge, &rolling.max_unavailable, spec.replicas),
            StrategyType::OnDelete => Bounds {
                surge: 0,
                unavailable: 0,
            },
        };
        let mut draft = Self {
            view,
            now,
            bounds,
            new: None,
            olds: Vec::new(),
            leaving: 0,
            collisions: deployment.status.as_ref().and_then(|status| status.collision_count),
            creates_set: false,
            new_annotations: BTreeMap::new(),
            scaled: false,
            waits: false,
            actions: Vec::new(),
            events: Vec::new(),
            look_again: None,
            reason: String::new(),
        };
        draft.sort_sets();
        draft
    }

    /// Finds which sets are the deployment's, which of them is the new one, and which to adopt or release.
    fn sort_sets(&mut self) {
        let deployment = self.view.deployment;
        let uid = deployment.metadata.uid.as_deref().unwrap_or_default();
        let mut ours: Vec<SetView<'a>> = Vec::new();
        for view in self.view.sets {
            let set = view.set;
            let matches = selector::matches(&deployment.spec.selector, set.metadata.labels.as_ref())
                && set.spec.cluster_name == deployment.spec.cluster_name;
            let controller = reference::controller(&set.metadata);
            let controlled = !uid.is_empty() && controller.is_some_and(|owner| owner.uid == uid);
            let deleting = set.metadata.deletion_timestamp.is_some();
            if controlled && deleting {
                self.leaving += view.machines.iter().filter(|machine| !is_deleting(machine)).count() as i32;
            } else if controlled && matches {
                ours.push(*view);
            } else if controlled {
                self.own(
                    set,
                    set.owner_references()
                        .iter()
                        .filter(|owner| owner.uid != uid)
                        .cloned()
                        .collect(),
                );
            } else if controller.is_none()
                && matches
                && !deleting
                && set.metadata.namespace == deployment.metadata.namespace
            {
                let Some(owner) = reference::controller_of(deployment).filter(|owner| !owner.uid.is_empty()) else {
                    continue;
                };
                let others = set
                    .owner_references()
                    .iter()
                    .filter(|other| other.uid != owner.uid)
                    .cloned();
                self.own(set, others.chain([owner.clone()]).collect());
                ours.push(*view);
            }
        }
        let sets: Vec<&MachineSet> = ours.iter().map(|view| view.set).collect();
        let new = revision::find_new(deployment, &sets).and_then(|set| set.metadata.name.clone());
        ours.sort_by_key(|view| {
            (
                view.set.metadata.creation_timestamp.as_ref().map(|time| time.0),
                view.set.name_any(),
            )
        });
        for view in ours {
            let possible = self.view.observation.possible(&view.set.name_any(), self.now);
            let facts = Facts::of(
                view.set,
                view.machines,
                possible,
                deployment.spec.min_ready_seconds,
                self.now,
            );
            if view.set.metadata.name == new {
                self.new = Some(facts);
            } else {
                self.olds.push(facts);
            }
        }
    }

    fn own(&mut self, set: &MachineSet, owner_references: Vec<OwnerReference>) {
        self.actions.push(Action::OwnSet {
            name: set.name_any(),
            uid: set.metadata.uid.clone().unwrap_or_default(),
            resource_version: set.metadata.resource_version.clone(),
            owner_references,
        });
    }

    /// Decides what to do.
    pub(super) fn decide(&mut self) {
        let view = self.view;
        let spec = &view.deployment.spec;
        if view.deployment.metadata.deletion_timestamp.is_some() {
            self.actions.clear();
            "the deployment is being deleted: its sets go with it".clone_into(&mut self.reason);
            return;
        }
        if !self.actions.is_empty() {
            // An adopted set is planned for once it is ours: its resource version is about to change.
            "adopting or releasing sets first".clone_into(&mut self.reason);
            return;
        }
        if let Some(left) = view.observation.not_before.and_then(|time| self.until(time)) {
            let why = view
                .observation
                .failure
                .as_ref()
                .map_or("the last request failed", |(_, message)| message.as_str());
            self.reason = format!("waiting after a failure: {why}");
            self.look_again = Some(left);
            self.waits = true;
            return;
        }
        let known = |name: &Option<String>| view.sets.iter().any(|view| view.set.metadata.name == *name);
        if let Some(set) = view
            .observation
            .unanswered
            .as_ref()
            .filter(|set| !known(&set.metadata.name))
        {
            // Since then the deployment may have become smaller, or have another template.
            let mut set = set.clone();
            let useful = revision::plain(&set.spec.template) == revision::plain(&spec.template);
            set.spec.replicas = if useful { self.room().min(set.spec.replicas) } else { 0 };
            self.reason = format!("asking again whether MachineSet {} was created", set.name_any());
            self.actions.push(Action::CreateSet(set));
            self.waits = true;
            return;
        }
        if self.roll_back() {
            return;
        }
        let observed = view.deployment.status.as_ref().map_or(0, |status| status.replicas);
        let by_hand = spec.strategy.type_ == StrategyType::OnDelete;
        let event = roll::is_scaled(self.new.iter().chain(&self.olds), spec.replicas);
        if spec.paused || (event && !by_hand) {
            self.scaled = true;
            roll::scale(
                self.new.as_mut(),
                &mut self.olds,
                spec.replicas,
                self.bounds,
                self.leaving,
                observed,
            );
            self.reason = if spec.paused {
                "spec.paused is set: scaling only".to_owned()
            } else {
                format!("scaling to {} machines", spec.replicas)
            };
            return;
        }
        if self.new.is_none() {
            self.create_set();
            if by_hand {
                roll::on_delete(None, &mut self.olds, spec.replicas, self.leaving);
            }
            return;
        }
        self.count_revisions();
        let Some(new) = self.new.as_mut() else { return };
        if by_hand {
            self.scaled = event;
            roll::on_delete(Some(new), &mut self.olds, spec.replicas, self.leaving);
            "each machine is replaced when somebody deletes it".clone_into(&mut self.reason);
        } else {
            roll::rolling_update(new, &mut self.olds, spec.replicas, self.bounds, self.leaving);
            self.reason = format!(
                "{} of {} machines are as the template says, {} of them available",
                new.counts.existing, spec.replicas, new.counts.available
            );
        }
        if status::is_complete(self.new.as_ref(), &self.olds, self.leaving, spec.replicas) {
            self.forget_history();
        }
    }

    fn until(&self, time: Timestamp) -> Option<Duration> {
        let left = time.as_millisecond() - self.now.as_millisecond();
        u64::try_from(left)
            .ok()
            .filter(|left| *left > 0)
            .map(Duration::from_millis)
    }

    fn revisions(&self) -> impl Iterator<Item = i64> {
        self.olds.iter().map(|old| revision::revision(old.set))
    }

    /// Replaces the template by that of an earlier revision if the annotation asks for it; whether it did.
    fn roll_back(&mut self) -> bool {
        let deployment = self.view.deployment;
        let Some(text) = deployment.annotations().get(ANNOTATION_ROLLBACK_TO) else {
            return false;
        };
        let sets: Vec<&MachineSet> = self.new.iter().chain(&self.olds).map(|facts| facts.set).collect();
        let newest = self.new.as_ref().map_or(i64::MAX, |new| revision::revision(new.set));
        let found = text
            .parse()
            .ok()
            .and_then(|to: i64| revision::find_rollback(&sets, to, newest));
        let rollback = found.map(|set| (revision::revision(set), Box::new(revision::plain(&set.spec.template))));
        match &rollback {
            Some((revision, _)) => self.reason = format!("rolling back to revision {revision}"),
            None => {
                self.reason = format!("cannot roll back to revision \"{text}\": no MachineSet has it");
                self.events.push(Event::warning(
                    "RollbackRevisionNotFound",
                    "Rollback",
                    self.reason.clone(),
                ));
            }
        }
        let annotations = BTreeMap::from([(ANNOTATION_ROLLBACK_TO.to_owned(), None)]);
        self.actions.push(Action::PatchDeployment { annotations, rollback });
        true
    }

    /// How many machines a set that is yet to be made may have.
    fn room(&self) -> i32 {
        let spec = &self.view.deployment.spec;
        let taken = self.leaving + self.olds.iter().map(Facts::taken).sum::<i32>();
        match spec.strategy.type_ {
            StrategyType::RollingUpdate => arithmetic::new_set(spec.replicas, self.bounds.surge, 0, taken),
            StrategyType::OnDelete => (spec.replicas - taken).max(0),
        }
    }

    /// Makes a set for a template that has none, as large as there is room.
    fn create_set(&mut self) {
        let deployment = self.view.deployment;
        let spec = &deployment.spec;
        let mut collisions = self.collisions.unwrap_or(0);
        let mut hash = revision::hash(&spec.template, collisions);
        // The name is taken by something that is not ours or has another template: another hash gives another name.
        let taken = |name: &str| {
            self.view.observation.taken_name.as_deref() == Some(name)
                || self
                    .view
                    .sets
                    .iter()
                    .any(|view| view.set.metadata.name.as_deref() == Some(name))
        };
        if taken(&revision::set_name(deployment, &hash)) {
            collisions = collisions.saturating_add(1);
            self.collisions = Some(collisions);
            hash = revision::hash(&spec.template, collisions);
        }
        let room = self.room();
        let new = revision::NewSet {
            hash: &hash,
            replicas: room,
            revision: self.revisions().max().unwrap_or(0).saturating_add(1),
            allowed: spec.replicas.saturating_add(self.bounds.surge),
        };
        let (number, allowed) = (new.revision, new.allowed);
        match revision::new_set(deployment, new) {
            Some(set) => {
                self.reason = format!(
                    "creating MachineSet {} for revision {number} with {room} of {allowed} machines",
                    set.name_any()
                );
                self.creates_set = true;
                self.actions.push(Action::CreateSet(Box::new(set)));
            }
            None => "the deployment has no UID yet".clone_into(&mut self.reason),
        }
    }

    /// Gives the new set the newest revision, and the deployment the same.
    fn count_revisions(&mut self) {
        let Some(new) = self.new.as_ref() else { return };
        let newest = self
            .revisions()
            .max()
            .unwrap_or(0)
            .saturating_add(1)
            .max(revision::revision(new.set));
        self.new_annotations = revision::revision_annotations(new.set, newest);
        let wanted = newest.to_string();
        let known = self.view.deployment.annotations();
        let annotations: BTreeMap<String, Option<String>> = [ANNOTATION_REVISION, ANNOTATION_REVISION_UPSTREAM]
            .into_iter()
            .filter(|key| known.get(*key) != Some(&wanted))
            .map(|key| (key.to_owned(), Some(wanted.clone())))
            .collect();
        if !annotations.is_empty() {
            self.actions.push(Action::PatchDeployment {
                annotations,
                rollback: None,
            });
        }
    }

    /// Deletes old sets without machines beyond the history limit, the oldest revision first.
    fn forget_history(&mut self) {
        let limit = usize::try_from(self.view.deployment.spec.revision_history_limit).unwrap_or(0);
        let mut empty: Vec<&Facts<'_>> = self
            .olds
            .iter()
            .filter(|old| old.replicas() == 0 && old.counts.existing == 0 && old.counts.deleting == 0)
            .collect();
        empty.sort_by_key(|old| (revision::revision(old.set), old.set.name_any()));
        let too_many = self.olds.len().saturating_sub(limit).min(empty.len());
        let deletes: Vec<Action> = empty
            .into_iter()
            .take(too_many)
            .map(|old| Action::DeleteSet {
                name: old.set.name_any(),
                uid: old.set.metadata.uid.clone().unwrap_or_default(),
                resource_version: old.set.metadata.resource_version.clone(),
            })
            .collect();
        self.actions.extend(deletes);
    }

    /// What to change on one set.
    fn patch(&self, facts: &Facts<'_>, is_new: bool) -> Option<Action> {
        let (set, spec) = (facts.set, &self.view.deployment.spec);
        let mut patch = SetPatch::default();
        let changes = facts.wanted != facts.replicas();
        if changes {
            patch.replicas = Some((facts.replicas(), facts.wanted));
        }
        if changes || (self.scaled && facts.replicas() > 0) {
            let allowed = spec.replicas.saturating_add(self.bounds.surge);
            for (annotation, number) in [
                (ANNOTATION_DESIRED_REPLICAS, spec.replicas),
                (ANNOTATION_MAX_REPLICAS, allowed),
            ] {
                if revision::number(set, annotation) != Some(number) {
                    patch
                        .annotations
                        .insert(annotation.to_owned(), Some(number.to_string()));
                }
            }
        }
        if is_new {
            patch.annotations.extend(self.new_annotations.clone());
        }
        let by_hand = spec.strategy.type_ == StrategyType::OnDelete && !is_new;
        if by_hand != set.annotations().contains_key(ANNOTATION_DISABLE_MACHINE_CREATE) {
            patch.annotations.insert(
                ANNOTATION_DISABLE_MACHINE_CREATE.to_owned(),
                by_hand.then(|| "true".to_owned()),
            );
        }
        if set.spec.min_ready_seconds != spec.min_ready_seconds {
            patch.min_ready_seconds = Some(spec.min_ready_seconds);
        }
        if set.spec.delete_policy != spec.strategy.rolling_update.delete_policy {
            patch.delete_policy = Some(spec.strategy.rolling_update.delete_policy);
        }
        (patch != SetPatch::default()).then(|| Action::PatchSet {
            name: set.name_any(),
            resource_version: set.metadata.resource_version.clone(),
            patch,
        })
    }

    /// The plan.
    pub(super) fn finish(mut self) -> Plan {
        // While nothing may be decided, nothing was wanted otherwise, and no patch comes of it.
        let decided = self.view.deployment.metadata.deletion_timestamp.is_none()
            && !self.waits
            && !self.actions.iter().any(|action| {
                matches!(
                    action,
                    Action::OwnSet { .. } | Action::PatchDeployment { rollback: Some(_), .. }
                )
            });
        if decided {
            let deleted: Vec<&String> = self
                .actions
                .iter()
                .filter_map(|action| {
                    if let Action::DeleteSet { name, .. } = action {
                        Some(name)
                    } else {
                        None
                    }
                })
                .collect();
            let patches: Vec<Action> = self
                .olds
                .iter()
                .filter(|old| !deleted.contains(&&old.set.name_any()))
                .filter_map(|old| self.patch(old, false))
                .chain(self.new.iter().filter_map(|new| self.patch(new, true)))
                .collect();
            self.actions.extend(patches);
        }
        let input = status::Input {
            new: self.new.as_ref(),
            olds: &self.olds,
            leaving: self.leaving,
            bounds: self.bounds,
            creates_set: self.creates_set,
            collisions: self.collisions,
            unsettled: self.waits || !self.actions.is_empty(),
        };
        let (status, deadline) = status::status(self.view, &input, self.now);
        let available = self
            .new
            .iter()
            .chain(&self.olds)
            .filter_map(|facts| facts.counts.next_available)
            .min();
        let settled = self.view.observation.next_settled(self.now);
        let settled = settled.and_then(|time| self.until(time));
        let look_again = [self.look_again, deadline, available, settled]
            .into_iter()
            .flatten()
            .min();
        Plan {
            status,
            actions: self.actions,
            look_again,
            events: self.events,
            reason: self.reason,
        }
    }
}
