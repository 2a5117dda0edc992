//! Reading: one object, and consistent lists in chunks.

use bytes::Bytes;
use serde_json::Value;

use super::continuation::Continuation;
use super::error::cause;
use super::number::parse_revision;
use super::{ApiError, Core, Options, Reply, Request, convert};
use crate::registry::{Resource, Version};
use crate::schema::Cause;
use crate::selector::{FieldSelector, LabelSelector};
use crate::storage::{ObjectName, RevisionError, Start, Stored};

/// A list, its items still apart.
#[derive(Debug)]
pub struct ListReply {
    /// The `apiVersion` of list and items.
    pub api_version: String,
    /// The kind of the list.
    pub kind: String,
    /// The revision.
    pub resource_version: u64,
    /// With what to ask for the rest; empty at the end.
    pub continue_token: String,
    /// How many more there are, where that is known.
    pub remaining: Option<usize>,
    /// The items as JSON.
    pub items: Vec<Bytes>,
}

/// Label and field selector of a request.
#[derive(Clone, Debug)]
pub struct Selection {
    labels: LabelSelector,
    fields: FieldSelector,
    /// A watch on one object.
    name: Option<String>,
}

impl Selection {
    /// Parses and checks the selectors of a request, and the options beside them.
    pub fn parse(request: &Request) -> Result<Self, ApiError> {
        let options = &request.options;
        let refuse = |error: crate::selector::SelectorError| ApiError::bad_request(error.to_string());
        let labels = LabelSelector::parse(&options.label_selector).map_err(refuse)?;
        let mut fields = FieldSelector::parse(&options.field_selector).map_err(refuse)?;
        let causes = option_errors(options);
        if !causes.is_empty() {
            return Err(ApiError::invalid_options("ListOptions", &causes));
        }
        let version = request.served()?;
        fields.rename(|field| request.resource.field_alias(field));
        for field in fields.fields() {
            if !request.resource.supports_field(version, field) {
                return Err(ApiError::bad_request(request.resource.unsupported_field(field)));
            }
        }
        let name = (!request.name.is_empty()).then(|| request.name.clone());
        if let Some(name) = &name
            && !fields.is_empty()
            && fields.exact("metadata.name") != Some(name)
        {
            return Err(ApiError::bad_request(
                "fieldSelector metadata.name doesn't match requested name",
            ));
        }
        Ok(Self { labels, fields, name })
    }

    /// Whether it selects everything.
    pub fn is_everything(&self) -> bool {
        self.labels.is_empty() && self.fields.is_empty() && self.name.is_none()
    }

    /// Whether an object is selected. Only selectors on fields other than name and namespace read the object itself.
    pub fn matches(&self, resource: &Resource, version: &Version, name: &ObjectName, stored: &Stored) -> bool {
        if self.name.as_deref().is_some_and(|wanted| wanted != name.name.as_ref())
            || !self.labels.matches(|key| stored.label(key))
        {
            return false;
        }
        let mut deep = false;
        for requirement in self.fields.requirements() {
            let value = match requirement.field.as_str() {
                "metadata.name" => &name.name,
                "metadata.namespace" => &name.namespace,
                _ => {
                    deep = true;
                    continue;
                }
            };
            if (value.as_ref() == requirement.value) == requirement.negated {
                return false;
            }
        }
        !deep
            || convert::load(resource, &version.name, stored).is_ok_and(|object| self.matches_fields(resource, object))
    }

    fn matches_fields(&self, resource: &Resource, mut object: Value) -> bool {
        // The core event's `source` selects on its component, as a plain text.
        if let Some(component) = object.pointer("/source/component").cloned()
            && object["kind"] == "Event"
        {
            super::object::set_field(&mut object, "source", Some(component));
        }
        self.fields.matches(&object, |field| resource.absent_field(field))
    }
}

/// What is wrong with the options of a list or, with `watch`, of a watch (`ValidateListOptions`).
fn option_errors(options: &Options) -> Vec<Cause> {
    const SUPPORTED: &str = "supported values";
    let mut causes = Vec::new();
    let matching = options.resource_version_match.as_str();
    let forbid = |causes: &mut Vec<Cause>, field: &str, message: &str| {
        causes.push(cause("FieldValueForbidden", field, format!("Forbidden: {message}")));
    };
    let unsupported = |causes: &mut Vec<Cause>, supported: &str| {
        causes.push(cause(
            "FieldValueNotSupported",
            "resourceVersionMatch",
            format!("Unsupported value: {matching:?}: {SUPPORTED}: {supported}"),
        ));
    };
    let field = "resourceVersionMatch";
    let with_continue = "resourceVersionMatch is forbidden when continue is provided";
    if options.watch {
        if options.send_initial_events.is_some() && matching != "NotOlderThan" {
            let message = "sendInitialEvents requires setting resourceVersionMatch to NotOlderThan";
            forbid(&mut causes, field, message);
        }
        if matching.is_empty() {
            return causes;
        }
        if options.send_initial_events.is_none() {
            let message = "resourceVersionMatch is forbidden for watch unless sendInitialEvents is provided";
            forbid(&mut causes, field, message);
        }
        if matching != "NotOlderThan" {
            unsupported(&mut causes, "\"NotOlderThan\"");
        }
        if !options.continue_token.is_empty() {
            forbid(&mut causes, field, with_continue);
        }
        return causes;
    }
    if !matching.is_empty() {
        if options.resource_version.is_empty() {
            let message = "resourceVersionMatch is forbidden unless resourceVersion is provided";
            forbid(&mut causes, field, message);
        }
        if !options.continue_token.is_empty() {
            forbid(&mut causes, field, with_continue);
        }
        if !matches!(matching, "Exact" | "NotOlderThan") {
            unsupported(&mut causes, "\"Exact\", \"NotOlderThan\", \"\"");
        }
        if matching == "Exact" && options.resource_version == "0" {
            let message = "resourceVersionMatch \"exact\" is forbidden for resourceVersion \"0\"";
            forbid(&mut causes, field, message);
        }
    }
    if options.send_initial_events.is_some() {
        let message = "sendInitialEvents is forbidden for list";
        forbid(&mut causes, "sendInitialEvents", message);
    }
    causes
}

/// What the revision parameters of a list ask for.
enum AsOf {
    Now,
    NotOlderThan(u64),
    Exactly(u64),
}

fn as_of(options: &Options) -> Result<AsOf, ApiError> {
    if options.resource_version.is_empty() {
        return Ok(AsOf::Now);
    }
    let revision = parse_revision(&options.resource_version)
        .map_err(|error| ApiError::bad_request(format!("invalid resource version: {error}")))?;
    Ok(match options.resource_version_match.as_str() {
        "Exact" => AsOf::Exactly(revision),
        // Without a match rule, a limited list at a revision is that very revision.
        "" if options.limit > 0 && revision > 0 => AsOf::Exactly(revision),
        _ => AsOf::NotOlderThan(revision),
    })
}

/// Reads one object.
pub fn get(core: &Core, request: &Request) -> Result<Reply, ApiError> {
    let revision = &request.options.resource_version;
    if !revision.is_empty() {
        let requested = parse_revision(revision).map_err(ApiError::unclassified)?;
        let current = core.store.revision();
        if requested > current {
            return Err(RevisionError::Future { requested, current }.into());
        }
    }
    let stored = core
        .store
        .get(&request.key(&request.name))
        .ok_or_else(|| ApiError::not_found(request.subject(&request.name)))?;
    Ok(Reply::Object {
        code: 200,
        bytes: convert::bytes(&request.resource, &request.version, &stored)?,
    })
}

/// Reads a collection.
pub fn list(core: &Core, request: &Request) -> Result<ListReply, ApiError> {
    let selection = Selection::parse(request)?;
    let options = &request.options;
    let namespace = (!request.namespace.is_empty()).then_some(request.namespace.as_str());
    let (at, start) = if options.continue_token.is_empty() {
        let at = match as_of(options)? {
            AsOf::Now => None,
            AsOf::Exactly(revision) => Some(revision),
            AsOf::NotOlderThan(requested) => {
                let current = core.store.revision();
                if requested > current {
                    return Err(RevisionError::Future { requested, current }.into());
                }
                None
            }
        };
        (at, None)
    } else {
        if !options.resource_version.is_empty() && options.resource_version != "0" {
            return Err(ApiError::bad_request(
                "specifying resource version is not allowed when using continue",
            ));
        }
        let token = Continuation::decode(&options.continue_token, namespace, request.resource.namespaced)?;
        (token.revision, Some(token.start))
    };
    // Any revision is good for "0": the real server answers that from its cache, whole.
    let whole = options.limit == 0 || (options.resource_version == "0" && start.is_none());
    let limit = if whole { usize::MAX } else { options.limit };
    let everything = selection.is_everything();
    // With a selector, how many are needed is only known when enough were selected.
    let wanted = if everything { limit } else { usize::MAX };
    let snapshot = core
        .store
        .list(&request.resource.storage, namespace, start.as_ref(), at, wanted)
        .map_err(|error| expired(error, start.as_ref(), namespace))?;
    let version = request.served()?;
    let mut items = Vec::with_capacity(snapshot.objects.len().min(limit));
    let mut last: Option<&ObjectName> = None;
    let mut more = snapshot.remaining > 0;
    for (place, (name, stored)) in snapshot.objects.iter().enumerate() {
        if !everything && !selection.matches(&request.resource, version, name, stored) {
            continue;
        }
        items.push(convert::bytes(&request.resource, &request.version, stored)?);
        last = Some(name);
        if items.len() == limit {
            // Whether any of the others is selected is not looked up.
            more = more || place + 1 < snapshot.objects.len();
            break;
        }
    }
    let continue_token = match last {
        Some(last) if more => Continuation::after(last, Some(snapshot.revision)).encode(namespace),
        _ => String::new(),
    };
    Ok(ListReply {
        api_version: request.api_version(),
        kind: request.resource.list_kind.clone(),
        resource_version: snapshot.revision,
        remaining: (more && everything).then_some(snapshot.remaining),
        continue_token,
        items,
    })
}

/// What a list says whose revision cannot be had.
fn expired(error: RevisionError, start: Option<&Start>, namespace: Option<&str>) -> ApiError {
    match (error, start) {
        (RevisionError::Future { .. }, _) => error.into(),
        (RevisionError::Expired { .. }, None) => {
            ApiError::expired("The resourceVersion for the provided list is too old.")
        }
        (RevisionError::Expired { .. }, Some(start)) => {
            let token = Continuation {
                revision: None,
                start: start.clone(),
            };
            ApiError {
                continue_token: Some(token.encode(namespace)),
                ..ApiError::expired(EXPIRED_CONTINUE)
            }
        }
    }
}

const EXPIRED_CONTINUE: &str = "The provided continue parameter is too old to display a consistent list result. You can start a new list without the continue parameter, or use the continue token in this response to retrieve the remainder of the results. Continuing with the provided token results in an inconsistent list - objects that were created, modified, or deleted between the time the first chunk was returned and now may show up in the list.";
