//! Writes to the API server: one method per kind of write, each of which checks the
//! lead first, is bounded in time and number, is counted, and folds the API server's
//! answer into the index at once.
//!
//! Not for: deciding what to write.

use std::sync::Arc;
use std::time::Duration;

use kube::api::{DeleteParams, Patch, PatchParams, PostParams, Preconditions, PropagationPolicy};
use kube::core::Status;
use serde_json::Value;
use tokio::sync::Semaphore;

use crate::crds::FIELD_MANAGER;
use crate::index::{Index, Reconciled};
use crate::lease::{Leadership, NotLeading};
use crate::names::Name;
use crate::reconcile::route::{Routed, Router};
use crate::telemetry::{Metrics, Verb};

/// How long a write may take until its outcome is unknown.
const DEADLINE: Duration = Duration::from_secs(30);
/// How often a create of unknown outcome is tried again under the same name at once.
const CREATE_ATTEMPTS: u32 = 4;

/// Why a write was not accepted.
#[derive(Debug, thiserror::Error)]
pub enum WriteError {
    /// Nothing was sent.
    #[error(transparent)]
    NotLeading(#[from] NotLeading),
    /// The object is not as it was when the write was planned.
    #[error("{0} has changed meanwhile")]
    Conflict(String),
    /// The object is gone.
    #[error("{0} is gone")]
    Gone(String),
    /// The API server refuses the write.
    #[error("the API server refuses to {verb} {what}: {message}")]
    Refused {
        /// The verb.
        verb: &'static str,
        /// Kind and name.
        what: String,
        /// The API server's words.
        message: String,
        /// The reason of the API server's Status.
        reason: String,
    },
    /// The API server is busy.
    #[error("the API server is busy, {what} is written later")]
    Busy {
        /// Kind and name.
        what: String,
        /// Not before this long.
        after: Duration,
    },
    /// Nobody knows whether the write happened.
    #[error("it is not known whether {what} was written: {message}")]
    Unknown {
        /// Kind and name.
        what: String,
        /// What went wrong.
        message: String,
    },
}

impl WriteError {
    /// Whether the object only has to be planned again, because it moved on.
    pub fn is_conflict(&self) -> bool {
        matches!(self, Self::Conflict(_) | Self::Gone(_))
    }
}

/// What a patch is tied to.
#[derive(Debug, Clone, Copy)]
pub enum Tie<'a> {
    /// The object with this UID, whatever its version.
    Uid(&'a str),
    /// The object at exactly this version.
    Version(&'a str),
}

/// Writes. Clones share everything.
#[derive(Clone)]
pub struct Writer {
    client: kube::Client,
    leadership: Leadership,
    metrics: Arc<Metrics>,
    index: Arc<Index>,
    router: Router,
    slots: Arc<Semaphore>,
}

impl std::fmt::Debug for Writer {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Writer").finish_non_exhaustive()
    }
}

impl Writer {
    /// A writer that has at most `concurrency` writes under way.
    pub fn new(
        client: kube::Client,
        leadership: Leadership,
        metrics: Arc<Metrics>,
        index: Arc<Index>,
        router: Router,
        concurrency: usize,
    ) -> Self {
        Self {
            client,
            leadership,
            metrics,
            index,
            router,
            slots: Arc::new(Semaphore::new(concurrency.max(1))),
        }
    }

    /// Creates an object under the name it has. A create of unknown outcome is tried
    /// again under the same name until the answer is definite; an object that is there
    /// with our controller reference is the one that we made.
    pub async fn create<K: Reconciled + Routed>(&self, object: &K) -> Result<(), WriteError> {
        let name = Name::of(object);
        let api = K::api(self.client.clone(), &name.namespace);
        let mut attempt = 0;
        loop {
            attempt += 1;
            let params = PostParams {
                field_manager: Some(FIELD_MANAGER.to_owned()),
                ..PostParams::default()
            };
            let result = self
                .send::<K, _>(Verb::Create, K::RESOURCE, &name, api.create(&params, object))
                .await;
            match result {
                Ok(created) => {
                    self.fold(created, true);
                    return Ok(());
                }
                Err(WriteError::Refused { reason, .. }) if reason == "AlreadyExists" => {
                    return self.adopt_existing(&api, object, &name).await;
                }
                Err(WriteError::Unknown { .. }) if attempt < CREATE_ATTEMPTS => {
                    tokio::time::sleep(Duration::from_millis(200) * attempt).await;
                }
                Err(error) => return Err(error),
            }
        }
    }

    async fn adopt_existing<K: Reconciled + Routed>(
        &self,
        api: &kube::Api<K>,
        object: &K,
        name: &Name,
    ) -> Result<(), WriteError> {
        let what = describe::<K>(name);
        let found = tokio::time::timeout(DEADLINE, api.get_opt(&name.name)).await;
        let found = match found {
            Ok(Ok(Some(found))) => found,
            Ok(Ok(None)) => return Err(WriteError::Conflict(what)),
            Ok(Err(error)) => {
                return Err(WriteError::Unknown {
                    what,
                    message: error.to_string(),
                });
            }
            Err(_) => {
                return Err(WriteError::Unknown {
                    what,
                    message: "no answer in time".to_owned(),
                });
            }
        };
        let owner =
            |object: &K| outrigger_api::reference::controller(object.meta()).map(|reference| reference.uid.clone());
        if owner(object).is_some() && owner(object) == owner(&found) {
            self.fold(found, true);
            Ok(())
        } else {
            // Who looks for another name has to know of it.
            self.fold(found, false);
            Err(WriteError::Refused {
                verb: "create",
                what,
                message: "an object of that name is there already and is not ours".to_owned(),
                reason: "AlreadyExists".to_owned(),
            })
        }
    }

    /// Changes the object by a merge patch that carries its own preconditions.
    pub async fn patch_as_is<K: Reconciled + Routed>(&self, name: &Name, patch: Value) -> Result<(), WriteError> {
        let api = K::api(self.client.clone(), &name.namespace);
        let patch = Patch::Merge(patch);
        let params = patch_params();
        let sent = api.patch(&name.name, &params, &patch);
        let answer = self.send::<K, _>(Verb::Patch, K::RESOURCE, name, sent).await?;
        self.fold(answer, false);
        Ok(())
    }

    /// Changes the object by a merge patch.
    pub async fn patch<K: Reconciled + Routed>(
        &self,
        name: &Name,
        tie: Tie<'_>,
        patch: Value,
    ) -> Result<(), WriteError> {
        self.patch_as_is::<K>(name, tied(patch, tie)).await
    }

    /// Changes the status by a merge patch on the status subresource.
    pub async fn patch_status<K: Reconciled + Routed>(
        &self,
        name: &Name,
        tie: Tie<'_>,
        patch: Value,
    ) -> Result<(), WriteError> {
        let api = K::api(self.client.clone(), &name.namespace);
        let patch = Patch::Merge(tied(patch, tie));
        let params = patch_params();
        let sent = api.patch_status(&name.name, &params, &patch);
        let answer = self.send::<K, _>(Verb::Patch, K::STATUS, name, sent).await?;
        self.fold(answer, false);
        Ok(())
    }

    /// Deletes the object with this UID, at this version if one is given; one that is gone
    /// is as good.
    pub async fn delete<K: Reconciled + Routed>(
        &self,
        name: &Name,
        uid: &str,
        version: Option<&str>,
    ) -> Result<(), WriteError> {
        let api = K::api(self.client.clone(), &name.namespace);
        let params = DeleteParams {
            propagation_policy: Some(PropagationPolicy::Background),
            preconditions: Some(Preconditions {
                uid: Some(uid.to_owned()),
                resource_version: version.map(str::to_owned),
            }),
            ..DeleteParams::default()
        };
        let sent = api.delete(&name.name, &params);
        match self.send::<K, _>(Verb::Delete, K::RESOURCE, name, sent).await {
            // The object, on its way out; or else a Status: it is gone.
            Ok(answer) => {
                match answer.left() {
                    Some(object) if object.meta().deletion_timestamp.is_some() => {
                        self.fold(object, false);
                    }
                    Some(_) | None => self.forget::<K>(name, uid),
                }
                Ok(())
            }
            Err(WriteError::Gone(_)) => Ok(()),
            // Without a version, a conflict means that another object has the name now.
            Err(WriteError::Conflict(_)) if version.is_none() => Ok(()),
            Err(error) => Err(error),
        }
    }

    fn forget<K: Reconciled + Routed>(&self, name: &Name, uid: &str) {
        let change = K::table(&self.index).write().remove_own(name, uid);
        if let Some(change) = change {
            self.router.changed(&change);
        }
    }

    fn fold<K: Reconciled + Routed>(&self, object: K, created: bool) {
        let change = K::table(&self.index).write().apply_own(object, created);
        if let Some(change) = change {
            self.router.changed(&change);
        }
    }

    async fn send<K: Reconciled, T>(
        &self,
        verb: Verb,
        resource: &'static str,
        name: &Name,
        sent: impl Future<Output = kube::Result<T>>,
    ) -> Result<T, WriteError> {
        let Ok(_slot) = self.slots.acquire().await else {
            return Err(WriteError::Unknown {
                what: describe::<K>(name),
                message: "the process is ending".to_owned(),
            });
        };
        // Asked as late as possible: the wait for a slot may have been long.
        self.leadership.check()?;
        let result = tokio::time::timeout(DEADLINE, sent).await;
        self.metrics.count_write(verb, resource, matches!(result, Ok(Ok(_))));
        match result {
            Ok(Ok(answer)) => Ok(answer),
            Ok(Err(error)) => Err(classify::<K>(verb, name, error)),
            Err(_) => Err(WriteError::Unknown {
                what: describe::<K>(name),
                message: format!("no answer within {} s", DEADLINE.as_secs()),
            }),
        }
    }
}

fn patch_params() -> PatchParams {
    PatchParams {
        field_manager: Some(FIELD_MANAGER.to_owned()),
        ..PatchParams::default()
    }
}

fn describe<K: Reconciled>(name: &Name) -> String {
    format!("{} {name}", K::KIND)
}

/// Adds the precondition to a patch: a UID or version that differs is a conflict.
fn tied(mut patch: Value, tie: Tie<'_>) -> Value {
    let (field, value) = match tie {
        Tie::Uid(uid) => ("uid", uid),
        Tie::Version(version) => ("resourceVersion", version),
    };
    if !patch["metadata"].is_object() {
        patch["metadata"] = Value::Object(serde_json::Map::new());
    }
    patch["metadata"][field] = value.into();
    patch
}

fn classify<K: Reconciled>(verb: Verb, name: &Name, error: kube::Error) -> WriteError {
    let what = describe::<K>(name);
    match error {
        kube::Error::Api(status) => classify_status(verb, what, *status),
        // The request was never sent.
        kube::Error::BuildRequest(error) => WriteError::Refused {
            verb: verb.as_str(),
            what,
            message: error.to_string(),
            reason: "BadRequest".to_owned(),
        },
        error => WriteError::Unknown {
            what,
            message: error.to_string(),
        },
    }
}

fn classify_status(verb: Verb, what: String, status: Status) -> WriteError {
    let after = status
        .details
        .as_ref()
        .map_or(1, |details| details.retry_after_seconds.max(1));
    // A patch that names another UID is an invalid change of an immutable field.
    let other_uid = status
        .details
        .as_ref()
        .is_some_and(|details| details.causes.iter().any(|cause| cause.field == "metadata.uid"));
    match status.code {
        422 if other_uid => WriteError::Conflict(what),
        409 if status.reason != "AlreadyExists" => WriteError::Conflict(what),
        404 if verb != Verb::Create => WriteError::Gone(what),
        429 => WriteError::Busy {
            what,
            after: Duration::from_secs(u64::from(after)),
        },
        400..=499 => WriteError::Refused {
            verb: verb.as_str(),
            what,
            message: status.message,
            reason: status.reason,
        },
        _ => WriteError::Unknown {
            what,
            message: status.message,
        },
    }
}

#[cfg(test)]
mod tests {
    use outrigger_api::Machine;

    use super::*;

    fn status(code: u16, reason: &str) -> kube::Error {
        kube::Error::Api(Box::new(Status {
            code,
            reason: reason.to_owned(),
            ..Status::default()
        }))
    }

    #[test]
    fn answers_are_told_apart() {
        let name = Name::new("default", "a");
        let of = |verb, code, reason| classify::<Machine>(verb, &name, status(code, reason));
        assert!(matches!(of(Verb::Patch, 409, "Conflict"), WriteError::Conflict(_)));
        assert!(matches!(
            of(Verb::Create, 409, "AlreadyExists"),
            WriteError::Refused { .. }
        ));
        assert!(matches!(of(Verb::Patch, 404, "NotFound"), WriteError::Gone(_)));
        assert!(matches!(of(Verb::Create, 404, "NotFound"), WriteError::Refused { .. }));
        assert!(matches!(
            of(Verb::Patch, 429, "TooManyRequests"),
            WriteError::Busy { .. }
        ));
        assert!(matches!(
            of(Verb::Patch, 500, "InternalError"),
            WriteError::Unknown { .. }
        ));
        assert!(matches!(of(Verb::Patch, 422, "Invalid"), WriteError::Refused { .. }));
    }

    #[test]
    fn patches_carry_their_precondition() {
        let patch = tied(serde_json::json!({"spec": {"providerID": "a"}}), Tie::Uid("1"));
        assert_eq!(patch["metadata"]["uid"], "1");
        let patch = tied(serde_json::json!({"metadata": {"finalizers": []}}), Tie::Version("7"));
        assert_eq!(patch["metadata"]["resourceVersion"], "7");
        assert!(patch["metadata"]["finalizers"].is_array());
    }
}
