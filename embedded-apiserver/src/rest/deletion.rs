//! How to delete: the options of a deletion, and what it makes of an object. Pure.

use jiff::{SignedDuration, Timestamp};
use serde_json::Value;

use super::object::{finalizers, generation, has_grace, is_deleting, metadata_text, now_text};
use super::object::{set_finalizers, set_metadata};
use super::{ApiError, BodyFormat, Request, cause, decode as bodies, strategy};
use crate::builtin;
use crate::registry::{Behaviour, Resource};
use crate::schema::{self, DecodeError, go_quote};

/// Waits for dependents to be orphaned.
pub const ORPHAN_FINALIZER: &str = "orphan";
/// Waits for dependents to be gone.
pub const FOREGROUND_FINALIZER: &str = "foregroundDeletion";

/// What becomes of dependents.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Propagation {
    /// They lose their owner and stay.
    Orphan,
    /// They go afterwards.
    Background,
    /// They go before.
    Foreground,
}

/// How to delete.
#[derive(Clone, Debug, Default)]
pub struct DeleteOptions {
    /// What becomes of dependents; none leaves it to the finalizers that are there.
    pub propagation: Option<Propagation>,
    /// `orphanDependents`, which was there before the policies.
    pub orphan_dependents: Option<bool>,
    /// After how many seconds to go; none leaves it to the object.
    pub grace_period_seconds: Option<i64>,
    /// Only the object with this UID.
    pub uid: Option<String>,
    /// Only the object at this revision.
    pub resource_version: Option<String>,
    /// Do everything but the write.
    pub dry_run: bool,
}

impl DeleteOptions {
    /// The options of a request: those of its body, or without one those of its query.
    pub fn parse(request: &Request) -> Result<Self, ApiError> {
        let (body, dry_run): (Value, Vec<String>);
        if request.body.is_empty() {
            body = query_options(request);
            // The query's dry run has been checked.
            dry_run = if request.options.dry_run {
                vec!["All".to_owned()]
            } else {
                Vec::new()
            };
        } else {
            body = decode(request.format, &request.body)?;
            dry_run = body["dryRun"]
                .as_array()
                .into_iter()
                .flatten()
                .map(|value| value.as_str().unwrap_or_default().to_owned())
                .collect();
        }
        let policy = body["propagationPolicy"].as_str();
        let orphan = body["orphanDependents"].as_bool();
        let mut causes = Vec::new();
        let mut wrong = |reason: &str, field: &str, message: String| causes.push(cause(reason, field, message));
        if let (Some(policy), Some(_)) = (policy, orphan) {
            let problem = "orphanDependents and deletionPropagation cannot be both set";
            let message = format!("Invalid value: {}: {problem}", go_quote(policy));
            wrong("FieldValueInvalid", "propagationPolicy", message);
        }
        let propagation = match (policy, orphan) {
            (Some("Orphan"), _) | (None, Some(true)) => Some(Propagation::Orphan),
            (Some("Background"), _) | (None, Some(false)) => Some(Propagation::Background),
            (Some("Foreground"), _) => Some(Propagation::Foreground),
            (Some(other), _) => {
                let known = "supported values: \"Foreground\", \"Background\", \"Orphan\", \"nil\"";
                let message = format!("Unsupported value: {}: {known}", go_quote(other));
                wrong("FieldValueNotSupported", "propagationPolicy", message);
                None
            }
            (None, None) => None,
        };
        if dry_run.iter().any(|value| value != "All") {
            let shown: Vec<String> = dry_run.iter().map(|value| go_quote(value)).collect();
            let message = format!("Unsupported value: [{}]: supported values: \"All\"", shown.join(","));
            wrong("FieldValueNotSupported", "dryRun", message);
        }
        if !causes.is_empty() {
            return Err(ApiError::invalid_options("DeleteOptions", &causes));
        }
        let precondition = |field: &str| body["preconditions"][field].as_str().map(str::to_owned);
        Ok(Self {
            propagation,
            orphan_dependents: orphan,
            grace_period_seconds: body["gracePeriodSeconds"].as_i64(),
            uid: precondition("uid"),
            resource_version: precondition("resourceVersion"),
            dry_run: !dry_run.is_empty(),
        })
    }

    /// What holds an object back that has these finalizers.
    fn finalizers(&self, object: &Value) -> Vec<String> {
        let mut names: Vec<String> = finalizers(object).into_iter().map(str::to_owned).collect();
        let Some(propagation) = self.propagation else {
            return names;
        };
        let wanted = match propagation {
            Propagation::Orphan => Some(ORPHAN_FINALIZER),
            Propagation::Foreground => Some(FOREGROUND_FINALIZER),
            Propagation::Background => None,
        };
        names
            .retain(|name| (name != ORPHAN_FINALIZER && name != FOREGROUND_FINALIZER) || Some(name.as_str()) == wanted);
        if let Some(wanted) = wanted
            && !names.iter().any(|name| name == wanted)
        {
            names.push(wanted.to_owned());
        }
        names
    }
}

fn query_options(request: &Request) -> Value {
    let options = &request.options;
    let mut found = serde_json::Map::new();
    if let Some(policy) = &options.propagation_policy {
        found.insert("propagationPolicy".to_owned(), policy.as_str().into());
    }
    if let Some(orphan) = options.orphan_dependents {
        found.insert("orphanDependents".to_owned(), orphan.into());
    }
    if let Some(seconds) = options.grace_period_seconds {
        found.insert("gracePeriodSeconds".to_owned(), seconds.into());
    }
    found.into()
}

/// Decodes `DeleteOptions`. The real server classifies none of these errors.
fn decode(format: BodyFormat, body: &[u8]) -> Result<Value, ApiError> {
    const NO_KIND: &str = "couldn't get version/kind; json parse error";
    let decoded = match format {
        BodyFormat::Yaml => schema::decode_strict_yaml(body),
        _ => schema::decode_typed(body),
    };
    let (options, _) = decoded.map_err(|error| {
        ApiError::unclassified(match error {
            DecodeError::Yaml(why) | DecodeError::Number(why) => why,
            other => format!("{NO_KIND}: {other}"),
        })
    })?;
    if options.is_null() {
        return Ok(options);
    }
    if let Some(why) = bodies::no_type(&options) {
        return Err(ApiError::unclassified(format!("{NO_KIND}: {why}")));
    }
    let text = |field: &str| options[field].as_str().unwrap_or_default();
    if text("apiVersion").matches('/').count() > 1 {
        let why = format!("unexpected GroupVersion string: {}", text("apiVersion"));
        return Err(ApiError::unclassified(why));
    }
    if !matches!(text("kind"), "" | "DeleteOptions") {
        return Err(ApiError::unclassified(format!(
            "no kind {:?} is registered for version {:?} in scheme \"pkg/runtime/scheme.go:110\"",
            text("kind"),
            text("apiVersion")
        )));
    }
    builtin::check_types("meta.DeleteOptions", &options)
        .map_err(|why| ApiError::unclassified(bodies::as_written(body, &why)))?;
    Ok(options)
}

/// What a deletion makes of an object.
#[derive(Debug, PartialEq)]
pub enum Marked {
    /// It goes.
    Remove,
    /// It is written so, and waits.
    Wait(Value),
    /// It is written so, and goes.
    Last(Value),
    /// It waits already.
    Unchanged,
}

/// Marks an object as the real server does (`registry/rest/delete.go` and `registry/generic/registry/store.go` there).
pub fn mark(resource: &Resource, live: &Value, options: &DeleteOptions, now: Timestamp) -> Marked {
    let mut object = live.clone();
    let names = options.finalizers(live);
    // Namespaces and definitions are marked in ways of their own: their end is the server's work.
    let own_way = matches!(
        resource.behaviour,
        Behaviour::Namespace | Behaviour::CustomResourceDefinition
    );
    if own_way && (strategy::holds_back_deletion(resource, live) || !names.is_empty()) {
        if is_deleting(live) {
            return Marked::Unchanged;
        }
        set_finalizers(&mut object, &names);
        set_metadata(&mut object, "deletionTimestamp", Some(now_text(now).into()));
        strategy::prepare_delete(resource, &mut object, &now_text(now));
        return Marked::Wait(object);
    }
    let graceful = if resource.behaviour == Behaviour::Pod {
        match grace(live, options.grace_period_seconds, now) {
            Grace::Pending => return Marked::Unchanged,
            Grace::None => None,
            Grace::Given { seconds, end } => {
                if !is_deleting(live) && generation(live) > 0 {
                    set_metadata(&mut object, "generation", Some((generation(live) + 1).into()));
                }
                set_metadata(&mut object, "deletionTimestamp", Some(now_text(end).into()));
                set_metadata(&mut object, "deletionGracePeriodSeconds", Some(seconds.into()));
                Some(seconds)
            }
        }
    } else {
        None
    };
    set_finalizers(&mut object, &names);
    match graceful {
        Some(0) if names.is_empty() => return Marked::Last(object),
        Some(_) => return Marked::Wait(object),
        None => {}
    }
    if names.is_empty() {
        return if finalizers(live).is_empty() {
            Marked::Remove
        } else {
            Marked::Last(object)
        };
    }
    if !is_deleting(live) {
        if generation(live) > 0 {
            set_metadata(&mut object, "generation", Some((generation(live) + 1).into()));
        }
        set_metadata(&mut object, "deletionTimestamp", Some(now_text(now).into()));
    }
    set_metadata(&mut object, "deletionGracePeriodSeconds", Some(0.into()));
    if object == *live {
        return Marked::Unchanged;
    }
    Marked::Wait(object)
}

/// How long a pod has.
enum Grace {
    /// It is deleted already, and no sooner than it was said.
    Pending,
    /// Its time is over.
    None,
    /// So long, and until then.
    Given { seconds: i64, end: Timestamp },
}

fn after(start: Timestamp, seconds: i64) -> Timestamp {
    start.checked_add(SignedDuration::from_secs(seconds)).unwrap_or(start)
}

fn grace(pod: &Value, wanted: Option<i64>, now: Timestamp) -> Grace {
    let wanted = wanted.map(|seconds| if seconds < 0 { 1 } else { seconds });
    if is_deleting(pod) {
        if !has_grace(pod) {
            return Grace::None;
        }
        let given = pod["metadata"]["deletionGracePeriodSeconds"]
            .as_i64()
            .unwrap_or_default();
        let Some(seconds) = wanted.filter(|seconds| *seconds < given) else {
            return Grace::Pending;
        };
        let start = metadata_text(pod, "deletionTimestamp")
            .parse()
            .map_or(now, |end| after(end, -given));
        let end = after(start, seconds);
        if end >= now {
            return Grace::Given { seconds, end };
        }
        // Never in the past; and who asked for some time leaves the last word to the kubelet.
        let seconds = seconds.min(1);
        return Grace::Given { seconds, end: now };
    }
    let own = || {
        pod["spec"]["terminationGracePeriodSeconds"]
            .as_i64()
            .unwrap_or_default()
    };
    let placed = pod["spec"]["nodeName"].as_str().is_some_and(|node| !node.is_empty());
    let ended = matches!(pod["status"]["phase"].as_str(), Some("Succeeded" | "Failed"));
    let seconds = if placed && !ended {
        match wanted.unwrap_or_else(own) {
            seconds if seconds < 0 => 1,
            seconds => seconds,
        }
    } else {
        0
    };
    Grace::Given {
        seconds,
        end: after(now, seconds),
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::registry::Registry;

    fn marked(plural: &str, live: &Value, options: &DeleteOptions) -> Marked {
        let registry = Registry::new().snapshot();
        let resource = registry.find("", plural).unwrap();
        mark(resource, live, options, Timestamp::from_second(1_700_000_100).unwrap())
    }

    fn seconds(seconds: i64) -> DeleteOptions {
        DeleteOptions {
            grace_period_seconds: Some(seconds),
            ..DeleteOptions::default()
        }
    }

    fn pod(node: &str) -> Value {
        json!({
            "metadata": { "name": "p", "generation": 1 },
            "spec": { "nodeName": node, "terminationGracePeriodSeconds": 30 },
            "status": { "phase": "Running" },
        })
    }

    #[test]
    fn a_pod_goes_in_its_own_time_only_where_someone_ends_it() {
        let Marked::Wait(waiting) = marked("pods", &pod("n"), &DeleteOptions::default()) else {
            panic!("it has to wait");
        };
        assert_eq!(waiting["metadata"]["deletionGracePeriodSeconds"], 30);
        assert_eq!(waiting["metadata"]["deletionTimestamp"], "2023-11-14T22:15:30Z");
        assert_eq!(waiting["metadata"]["generation"], 2);
        // Later is no shorter, and sooner is.
        assert_eq!(marked("pods", &waiting, &seconds(31)), Marked::Unchanged);
        assert_eq!(marked("pods", &waiting, &DeleteOptions::default()), Marked::Unchanged);
        let Marked::Wait(sooner) = marked("pods", &waiting, &seconds(5)) else {
            panic!("it has to wait still");
        };
        assert_eq!(sooner["metadata"]["deletionTimestamp"], "2023-11-14T22:15:05Z");
        assert_eq!(sooner["metadata"]["generation"], 2);
        assert!(matches!(marked("pods", &waiting, &seconds(0)), Marked::Last(_)));
        assert!(matches!(
            marked("pods", &pod(""), &DeleteOptions::default()),
            Marked::Last(_)
        ));
    }

    #[test]
    fn finalizers_hold_and_policies_replace_each_other() {
        let live = json!({ "metadata": { "name": "a", "finalizers": ["orphan"] } });
        let options = |propagation| DeleteOptions {
            propagation: Some(propagation),
            ..DeleteOptions::default()
        };
        assert!(matches!(
            marked("configmaps", &live, &options(Propagation::Background)),
            Marked::Last(_)
        ));
        let Marked::Wait(waiting) = marked("configmaps", &live, &options(Propagation::Foreground)) else {
            panic!("it has to wait");
        };
        assert_eq!(waiting["metadata"]["finalizers"], json!(["foregroundDeletion"]));
        assert_eq!(waiting["metadata"]["deletionGracePeriodSeconds"], 0);
        assert_eq!(
            marked("configmaps", &waiting, &DeleteOptions::default()),
            Marked::Unchanged
        );
        assert_eq!(
            marked(
                "configmaps",
                &json!({ "metadata": { "name": "a" } }),
                &DeleteOptions::default()
            ),
            Marked::Remove
        );
    }
}
