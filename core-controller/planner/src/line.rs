//! Whether a provider can be called at all, and from when on its reads count.
//! Not for: single calls, which have gates of their own.

use jiff::Timestamp;

use crate::observation::{Observation, plus};
use crate::provider::Snapshot;

/// Whether a provider can be called.
pub(crate) enum Line<'a> {
    /// It can.
    Usable(&'a Snapshot),
    /// It cannot: reason and sentence.
    Closed(&'static str, String),
}

/// Whether the provider of this name can be called, and what to say where it cannot.
pub(crate) fn line<'a>(name: &str, provider: Option<&'a Snapshot>) -> Line<'a> {
    match provider {
        None => Line::Closed(
            "ProviderNotFound",
            format!("there is no provider {name:?}; start it, create a Provider object for it, or correct the name"),
        ),
        Some(provider) if provider.link.is_usable() => Line::Usable(provider),
        Some(_) => Line::Closed(
            "ProviderUnavailable",
            format!("the provider {name:?} cannot be called now; the Provider {name} says why"),
        ),
    }
}

/// From when on ABSENT counts: nobody has changed anything for the read-after-write
/// window. What others have sent, they sent before this process led.
pub(crate) fn settled<Status>(
    observation: &Observation<Status>,
    witnessed_birth: bool,
    leading_since: Timestamp,
    provider: &Snapshot,
) -> Timestamp {
    let others = (!witnessed_birth).then_some(leading_since);
    observation
        .last_mutation
        .max(others)
        .map_or(Timestamp::MIN, |since| plus(since, provider.timings.read_after_write))
}
