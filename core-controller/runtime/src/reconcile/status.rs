//! Writing statuses: only what differs, and while only counts move not too often.
//!
//! Not for: making statuses.

use std::time::Duration;

use serde::Serialize;
use serde_json::{Value, json};

use super::{Again, Reconciler};
use crate::execute::{Tie, WriteError, merge_diff};
use crate::index::Reconciled;
use crate::names::{Key, Name};
use crate::reconcile::route::Routed;

/// How eagerly a status is written.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Pace {
    /// At once.
    AtOnce,
    /// While only counts move, once in a while.
    Coalesced,
}

/// What became of a status.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Written {
    /// It is as it should be.
    Same,
    /// It was written.
    Now,
    /// It is written after this long.
    Later(Duration),
}

impl Written {
    /// When to look again for the status's sake.
    pub fn again(self) -> Again {
        match self {
            Self::Later(after) => Some(after),
            Self::Same | Self::Now => None,
        }
    }
}

impl Reconciler {
    /// Writes the status where it differs.
    pub(super) async fn write_status<K, S>(
        &self,
        object: &K,
        before: Option<&S>,
        after: &S,
        pace: Pace,
    ) -> Result<Written, WriteError>
    where
        K: Reconciled + Routed,
        S: Serialize + PartialEq,
    {
        if before.is_some_and(|before| before == after) {
            return Ok(Written::Same);
        }
        let name = Name::of(object);
        let key = Key::new(K::KIND, name.clone());
        let old = to_json::<K, S>(&name, before)?;
        let new = to_json::<K, S>(&name, Some(after))?;
        let Some(patch) = merge_diff(&old, &new) else {
            return Ok(Written::Same);
        };
        if pace == Pace::Coalesced && only_counts_moved(&old, &new) {
            let pause = self.memory.status_pause(&key, self.options.status_interval);
            if !pause.is_zero() {
                return Ok(Written::Later(pause));
            }
        }
        let uid = object.meta().uid.as_deref().unwrap_or_default();
        self.writer
            .patch_status::<K>(&name, Tie::Uid(uid), json!({ "status": patch }))
            .await?;
        if pace == Pace::Coalesced {
            self.memory.status_written(&key);
        }
        Ok(Written::Now)
    }
}

fn to_json<K: Reconciled, S: Serialize>(name: &Name, status: Option<&S>) -> Result<Value, WriteError> {
    match status {
        None => Ok(json!({})),
        Some(status) => serde_json::to_value(status).map_err(|error| WriteError::Refused {
            verb: "patch",
            what: format!("{} {name}", K::KIND),
            message: format!("the status cannot be written as JSON: {error}"),
            reason: "BadRequest".to_owned(),
        }),
    }
}

/// Whether nothing but counts, and the words about them, differ.
fn only_counts_moved(old: &Value, new: &Value) -> bool {
    let rest = |status: &Value| {
        let mut status = status.clone();
        if let Some(fields) = status.as_object_mut() {
            fields.retain(|name, value| name == "observedGeneration" || !value.is_number());
        }
        for condition in status["conditions"].as_array_mut().into_iter().flatten() {
            if let Some(fields) = condition.as_object_mut() {
                fields.retain(|name, _| matches!(name.as_str(), "type" | "status" | "observedGeneration"));
            }
        }
        status
    };
    rest(old) == rest(new)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn counts_may_wait_and_news_may_not() {
        let status = |replicas: i64, ready: &str, message: &str| {
            json!({
                "observedGeneration": 1, "replicas": replicas, "phase": "x",
                "conditions": [{"type": "Ready", "status": ready, "message": message}],
            })
        };
        assert!(only_counts_moved(
            &status(1, "False", "1 of 3"),
            &status(2, "False", "2 of 3")
        ));
        assert!(!only_counts_moved(
            &status(2, "False", "2 of 3"),
            &status(3, "True", "")
        ));
        let mut other = status(2, "False", "2 of 3");
        other["observedGeneration"] = 2.into();
        assert!(!only_counts_moved(&status(2, "False", "2 of 3"), &other));
        assert!(!only_counts_moved(&json!({}), &status(0, "False", "")));
    }
}
