//! Refusals, worded as the real API server words them, and their `Status` objects.

use serde_json::{Map, Value, json};

use crate::patch::PatchError;
use crate::schema::{Cause, aggregate, go_quote};
use crate::storage::RevisionError;

/// A refusal: what becomes a `Status` object with its HTTP code.
#[derive(Clone, Debug, PartialEq)]
pub struct ApiError {
    /// The HTTP status code.
    pub code: u16,
    /// The machine-readable reason; empty when the real server gives none.
    pub reason: &'static str,
    /// The sentence for people.
    pub message: String,
    /// `Status.details`.
    pub details: Value,
    /// `Status.metadata.continue`, with which an expired list may go on.
    pub continue_token: Option<String>,
    /// `Warning` headers: what there was to say before the request failed.
    pub warnings: Vec<String>,
}

impl std::fmt::Display for ApiError {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        formatter.write_str(&self.message)
    }
}

impl std::error::Error for ApiError {}

/// What a refusal is about: group, resource or kind, and name.
#[derive(Clone, Copy, Debug)]
pub struct Subject<'a> {
    /// The API group; empty for the core group.
    pub group: &'a str,
    /// The plural resource name, or the kind for [`ApiError::invalid`].
    pub kind: &'a str,
    /// The object's name.
    pub name: &'a str,
}

impl Subject<'_> {
    fn qualified(&self) -> String {
        if self.group.is_empty() {
            self.kind.to_owned()
        } else {
            format!("{}.{}", self.kind, self.group)
        }
    }

    fn details(&self) -> Map<String, Value> {
        let mut details = Map::new();
        for (key, value) in [("name", self.name), ("group", self.group), ("kind", self.kind)] {
            if !value.is_empty() {
                details.insert(key.to_owned(), value.into());
            }
        }
        details
    }
}

impl ApiError {
    fn new(code: u16, reason: &'static str, message: impl Into<String>) -> Self {
        Self {
            code,
            reason,
            message: message.into(),
            details: json!({}),
            continue_token: None,
            warnings: Vec::new(),
        }
    }

    fn about(code: u16, reason: &'static str, subject: Subject<'_>, message: String) -> Self {
        Self {
            details: Value::Object(subject.details()),
            ..Self::new(code, reason, message)
        }
    }

    /// 400: the request makes no sense.
    pub fn bad_request(message: impl Into<String>) -> Self {
        Self {
            details: Value::Null,
            ..Self::new(400, "BadRequest", message)
        }
    }

    /// 401: who asks is unknown.
    pub fn unauthorized() -> Self {
        Self {
            details: Value::Null,
            ..Self::new(401, "Unauthorized", "Unauthorized")
        }
    }

    /// 403: with the reason why.
    pub fn forbidden(subject: Subject<'_>, why: &str) -> Self {
        let message = if subject.name.is_empty() {
            format!("{} is forbidden: {why}", subject.qualified())
        } else {
            format!("{} {} is forbidden: {why}", subject.qualified(), go_quote(subject.name))
        };
        Self::about(403, "Forbidden", subject, message)
    }

    /// 403 for a path that is not a resource, with the reason why.
    pub fn forbidden_path(why: &str) -> Self {
        Self::new(403, "Forbidden", format!("forbidden: {why}"))
    }

    /// 404 for an object.
    pub fn not_found(subject: Subject<'_>) -> Self {
        let message = format!("{} {} not found", subject.qualified(), go_quote(subject.name));
        Self::about(404, "NotFound", subject, message)
    }

    /// 404 for a resource that is not served.
    pub fn no_such_resource() -> Self {
        Self::new(404, "NotFound", "the server could not find the requested resource")
    }

    /// 405.
    pub fn method_not_allowed() -> Self {
        Self::new(
            405,
            "MethodNotAllowed",
            "the server does not allow this method on the requested resource",
        )
    }

    /// 405 of a resource that says which verb it does not have.
    pub fn method_not_supported(subject: Subject<'_>, verb: &str) -> Self {
        let message = format!(
            "{verb} is not supported on resources of kind {}",
            go_quote(&subject.qualified())
        );
        Self::about(405, "MethodNotAllowed", subject, message)
    }

    /// 406.
    pub fn not_acceptable(accepted: &str) -> Self {
        Self::not_acceptable_as(format!("only the following media types are accepted: {accepted}"))
    }

    /// 406 of a path that has no representation of the kind.
    pub fn not_available(available: &str) -> Self {
        let message = format!("406: Not Acceptable\n\nAvailable representations: {available}");
        Self::new(406, "NotAcceptable", message)
    }

    /// 406 with the reason why.
    pub fn not_acceptable_as(why: impl Into<String>) -> Self {
        Self {
            details: Value::Null,
            ..Self::new(406, "NotAcceptable", why)
        }
    }

    /// 409: the name is taken.
    pub fn already_exists(subject: Subject<'_>) -> Self {
        let message = format!("{} {} already exists", subject.qualified(), go_quote(subject.name));
        Self::about(409, "AlreadyExists", subject, message)
    }

    /// 409: the object has changed.
    pub fn modified(subject: Subject<'_>) -> Self {
        Self::conflict(
            subject,
            "the object has been modified; please apply your changes to the latest version and try again",
        )
    }

    /// 409 with the reason why.
    pub fn conflict(subject: Subject<'_>, why: &str) -> Self {
        let message = format!(
            "Operation cannot be fulfilled on {} {}: {why}",
            subject.qualified(),
            go_quote(subject.name)
        );
        Self::about(409, "Conflict", subject, message)
    }

    /// 409 of an apply whose fields belong to others.
    pub fn apply_conflict(message: String, causes: Vec<Value>) -> Self {
        Self {
            details: json!({ "causes": causes }),
            ..Self::new(409, "Conflict", message)
        }
    }

    /// 410: the history does not reach back that far.
    pub fn expired(message: impl Into<String>) -> Self {
        Self {
            details: Value::Null,
            ..Self::new(410, "Expired", message)
        }
    }

    /// 413.
    pub fn too_large(limit: usize) -> Self {
        Self {
            details: Value::Null,
            ..Self::new(
                413,
                "RequestEntityTooLarge",
                format!("Request entity too large: limit is {limit}"),
            )
        }
    }

    /// 415.
    pub fn unsupported_media_type(accepted: &str) -> Self {
        Self {
            details: Value::Null,
            ..Self::new(
                415,
                "UnsupportedMediaType",
                format!("the body of the request was in an unknown format - accepted media types include: {accepted}"),
            )
        }
    }

    /// 415 of a path that takes no such patch.
    pub fn unsupported_patch() -> Self {
        Self::new(415, "UnsupportedMediaType", "415: Unsupported Media Type")
    }

    /// 422: the object breaks its schema or its rules.
    pub fn invalid(subject: Subject<'_>, causes: &[Cause]) -> Self {
        let message = format!(
            "{} {} is invalid: {}",
            subject.qualified(),
            go_quote(subject.name),
            aggregate(causes)
        );
        let mut details = subject.details();
        details.insert("causes".to_owned(), causes.iter().map(cause_json).collect());
        Self {
            details: Value::Object(details),
            ..Self::new(422, "Invalid", message)
        }
    }

    /// 422 for the query parameters of a request.
    pub fn invalid_options(kind: &'static str, causes: &[Cause]) -> Self {
        Self::invalid(
            Subject {
                group: "meta.k8s.io",
                kind,
                name: "",
            },
            causes,
        )
    }

    /// 500.
    pub fn internal(message: impl std::fmt::Display) -> Self {
        let message = message.to_string();
        Self {
            details: json!({ "causes": [{ "message": message }] }),
            ..Self::new(500, "InternalError", format!("Internal error occurred: {message}"))
        }
    }

    /// 429: not now; after how many seconds, if that is known.
    pub fn too_many_requests(message: &str, retry_after_seconds: u64, cause: &Cause) -> Self {
        let mut error = Self::new(429, "TooManyRequests", message);
        if retry_after_seconds > 0 {
            error.details = json!({ "retryAfterSeconds": retry_after_seconds });
        }
        error.details["causes"] = json!([{ "reason": cause.reason, "message": cause.message }]);
        error
    }

    /// 500 without a reason, as errors that the real server does not classify.
    pub fn unclassified(message: impl Into<String>) -> Self {
        Self {
            details: Value::Null,
            ..Self::new(500, "", message)
        }
    }

    /// 504: the request took too long to come.
    pub fn timed_out() -> Self {
        Self::new(
            504,
            "Timeout",
            "Timeout: request did not complete within the allotted timeout",
        )
    }

    /// 503: try again.
    pub fn unavailable(message: impl Into<String>) -> Self {
        Self::new(503, "ServiceUnavailable", message)
    }

    /// Adds a cause to the details.
    #[must_use]
    pub fn with_cause(mut self, cause: &Cause) -> Self {
        if let Some(details) = self.details.as_object_mut() {
            let causes = details.entry("causes").or_insert_with(|| json!([]));
            if let Some(causes) = causes.as_array_mut() {
                causes.push(cause_json(cause));
            }
        }
        self
    }

    /// The `Status` object.
    pub fn status(&self) -> Value {
        let metadata = match &self.continue_token {
            Some(token) => json!({ "continue": token }),
            None => json!({}),
        };
        let mut status = json!({
            "kind": "Status",
            "apiVersion": "v1",
            "metadata": metadata,
            "status": "Failure",
            "message": self.message,
            "code": self.code,
        });
        if !self.reason.is_empty() {
            status["reason"] = self.reason.into();
        }
        if !self.details.is_null() {
            status["details"] = self.details.clone();
        }
        status
    }
}

fn cause_json(cause: &Cause) -> Value {
    json!({ "reason": cause.reason, "message": cause.message, "field": cause.field })
}

/// A cause, in short.
pub fn cause(reason: &str, field: &str, message: impl Into<String>) -> Cause {
    Cause {
        reason: reason.to_owned(),
        message: message.into(),
        field: field.to_owned(),
    }
}

impl From<RevisionError> for ApiError {
    fn from(error: RevisionError) -> Self {
        match error {
            RevisionError::Expired { .. } => Self::expired(error.to_string()),
            RevisionError::Future { requested, current } => Self {
                details: json!({
                    "causes": [{ "reason": "ResourceVersionTooLarge", "message": "Too large resource version" }],
                    "retryAfterSeconds": 1,
                }),
                ..Self::new(
                    504,
                    "Timeout",
                    format!("Timeout: Too large resource version: {requested}, current: {current}"),
                )
            },
        }
    }
}

impl From<PatchError> for ApiError {
    fn from(error: PatchError) -> Self {
        let reason = error.reason();
        Self {
            details: if error.code() == 422 { json!({}) } else { Value::Null },
            ..Self::new(error.code(), reason, error.to_string())
        }
    }
}
