//! One Provider: from what the host knows of a provider to the status of its object.
//! Not for: connecting, or judging what a provider says of machines.

use jiff::Timestamp;
use outrigger_api::names::{CONDITION_REACHABLE, CONDITION_READY};
use outrigger_api::{Provider, ProviderStatus};

mod snapshot;
#[cfg(test)]
mod tests;

pub use snapshot::{Check, ConfigKind, Link, Snapshot, Timings};

use crate::conditions::{self, Assertion};
use crate::event::Event;

/// What was observed of one provider.
#[derive(Debug, Clone, Copy)]
pub struct View<'a> {
    /// The object.
    pub provider: &'a Provider,
    /// What the host knows; `None`: it has not taken the endpoint up yet.
    pub snapshot: Option<&'a Snapshot>,
}

/// What to say of one provider.
#[derive(Debug, Clone, PartialEq)]
pub struct Plan {
    /// The full desired status; written only where it differs from the observed one.
    pub status: ProviderStatus,
    /// What happened.
    pub events: Vec<Event>,
    /// How things stand, in words.
    pub reason: String,
}

/// What to say of the provider, judged at `now`.
pub fn plan(view: &View<'_>, now: Timestamp) -> Plan {
    let before = view.provider.status.clone().unwrap_or_default();
    let unchanged = |reason: &str| Plan {
        status: before.clone(),
        events: Vec::new(),
        reason: reason.to_owned(),
    };
    let Some(snapshot) = view.snapshot else {
        return unchanged("the provider host has not taken the endpoint up yet");
    };
    // After a restart of the core each provider is connecting for a moment: what was
    // known stays until something else is known.
    if snapshot.link == Link::Connecting && !before.conditions.is_empty() {
        return unchanged("connecting");
    }
    let (reachable, ready) = verdicts(snapshot);
    let reason = ready.message.clone();
    let mut status = before.clone();
    status.observed_generation = view.provider.metadata.generation;
    if !snapshot.instance_id.is_empty() {
        identity(&mut status, snapshot);
    }
    let generation = status.observed_generation;
    let events = events(&before, &reachable, snapshot);
    conditions::set(&mut status.conditions, ready, generation, now);
    conditions::set(&mut status.conditions, reachable, generation, now);
    Plan { status, events, reason }
}

/// What the provider said of itself. It stays when the provider goes away: it was true
/// and helps to find it.
fn identity(status: &mut ProviderStatus, snapshot: &Snapshot) {
    let some = |text: &str| Some(text.to_owned()).filter(|text| !text.is_empty());
    status.name = some(&snapshot.name);
    status.version = some(&snapshot.version);
    status.instance_id = some(&snapshot.instance_id);
    status.protocol = some(&snapshot.protocol);
    status.protocols = sorted(&snapshot.protocols, MAX_PROTOCOLS);
    status.capabilities = sorted(&snapshot.capabilities, MAX_LISTED);
    status.credential_keys = sorted(&snapshot.credential_keys, MAX_LISTED);
    let mut kinds: Vec<outrigger_api::ConfigKind> = snapshot
        .config_kinds
        .iter()
        .filter(|kind| !kind.kind.is_empty())
        .map(|kind| outrigger_api::ConfigKind {
            kind: kind.kind.clone(),
            target: some(&kind.target),
            versions: versions(&kind.schema_versions),
        })
        .collect();
    kinds.sort_by(|a, b| a.kind.cmp(&b.kind));
    kinds.dedup_by(|a, b| a.kind == b.kind);
    kinds.truncate(MAX_LISTED);
    status.config_kinds = kinds;
}

/// As many as the API takes: a status that is refused as a whole would say nothing, not
/// even that the provider is there.
const MAX_LISTED: usize = 64;
const MAX_PROTOCOLS: usize = 32;
const MAX_VERSIONS: usize = 32;
/// The longest version that `providerSpec.version` takes.
const MAX_VERSION_BYTES: usize = 63;

/// The API's lists are sets: sorted, each item once.
fn sorted(texts: &[String], most: usize) -> Vec<String> {
    let mut texts = texts.to_vec();
    texts.sort();
    texts.dedup();
    texts.truncate(most);
    texts
}

/// The versions that can be asked for, each once, the best first.
fn versions(all: &[String]) -> Vec<String> {
    let mut versions: Vec<String> = Vec::new();
    for version in all {
        if version.len() <= MAX_VERSION_BYTES && !versions.contains(version) && versions.len() < MAX_VERSIONS {
            versions.push(version.clone());
        }
    }
    versions
}

/// Reachable and Ready.
fn verdicts(snapshot: &Snapshot) -> (Assertion, Assertion) {
    let words = |otherwise: String| match snapshot.message.trim().trim_end_matches('.') {
        "" => otherwise,
        message => message.to_owned(),
    };
    let name = &snapshot.name;
    let endpoint = &snapshot.endpoint;
    let reason = match snapshot.reason.as_str() {
        "" => snapshot.link.name(),
        exact => exact,
    };
    let connected = format!("connected over {}", or_none(&snapshot.protocol));
    let reachable = |message: String| match snapshot.warning.as_str() {
        "" => Assertion::holds(CONDITION_REACHABLE, "Connected", message),
        warning => Assertion::holds(
            CONDITION_REACHABLE,
            "FormerConnectionInUse",
            format!("{message}; {warning}"),
        ),
    };
    match snapshot.link {
        Link::Ready => (
            reachable(connected),
            Assertion::holds(CONDITION_READY, reason, "the provider does its work"),
        ),
        Link::Degraded => (
            reachable(connected),
            // It works: what it does badly is in the words.
            Assertion::holds(
                CONDITION_READY,
                reason,
                words(format!(
                    "the provider works badly: {}; look at its log",
                    failing(&snapshot.checks)
                )),
            ),
        ),
        Link::Initializing => (
            reachable(connected),
            Assertion::fails(
                CONDITION_READY,
                reason,
                words(format!("the provider is still starting: {}", failing(&snapshot.checks))),
            ),
        ),
        Link::Connecting => {
            let message = format!("the first connection to {endpoint} is being made");
            (
                Assertion::unknown(CONDITION_REACHABLE, reason, message.clone()),
                Assertion::unknown(CONDITION_READY, reason, message),
            )
        }
        Link::Unreachable => {
            let message = words(format!(
                "the provider {name} does not answer at {endpoint}; start it, or correct spec.endpoint"
            ));
            (
                Assertion::fails(CONDITION_REACHABLE, reason, message.clone()),
                Assertion::fails(CONDITION_READY, reason, message),
            )
        }
        Link::Incompatible => {
            let message = words(format!(
                "the provider {name} serves {} and no version that the core speaks; update the older of the two",
                or_none(&snapshot.protocols.join(", "))
            ));
            (
                reachable("it answers".to_owned()),
                Assertion::fails(CONDITION_READY, reason, message),
            )
        }
        Link::Misconfigured => {
            let message = words(format!("the endpoint {endpoint} cannot be used as it is; correct it"));
            (
                Assertion::fails(CONDITION_REACHABLE, reason, message.clone()),
                Assertion::fails(CONDITION_READY, reason, message),
            )
        }
    }
}

fn or_none(text: &str) -> &str {
    if text.is_empty() { "no protocol" } else { text }
}

/// The checks that are not well, by name, in a fixed order.
fn failing(checks: &[Check]) -> String {
    let mut names: Vec<&str> = checks
        .iter()
        .filter(|check| !check.healthy)
        .map(|check| check.name.as_str())
        .collect();
    names.sort_unstable();
    names.dedup();
    match names.as_slice() {
        [] => "it does not say why".to_owned(),
        names => format!("the checks {} fail", names.join(", ")),
    }
}

/// One event when it goes away, one when it comes back: never one per try.
fn events(before: &ProviderStatus, reachable: &Assertion, snapshot: &Snapshot) -> Vec<Event> {
    let was = conditions::get(&before.conditions, CONDITION_REACHABLE).map(|condition| condition.status.as_str());
    match (was, reachable.status) {
        (Some("True"), "False") => vec![Event::warning(
            "ProviderUnavailable",
            "Connect",
            reachable.message.clone(),
        )],
        (Some("False"), "True") => vec![Event::normal(
            "ProviderAvailable",
            "Connect",
            format!("the provider {} is connected", snapshot.name),
        )],
        _ => Vec::new(),
    }
}
