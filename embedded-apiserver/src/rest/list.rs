//! Reading: one object, and consistent lists in chunks.

use std::sync::Arc;

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use bytes::Bytes;
use serde::{Deserialize, Serialize};
use serde_json::Value;

use super::error::cause;
use super::{ApiError, Core, Reply, Request, convert};
use crate::registry::{Resource, Version};
use crate::selector::{FieldSelector, LabelSelector};
use crate::storage::{ObjectName, RevisionError, Stored};

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
    /// Parses and checks the selectors of a request.
    pub fn parse(request: &Request) -> Result<Self, ApiError> {
        let refuse = |error: crate::selector::SelectorError| ApiError::bad_request(error.to_string());
        let labels = LabelSelector::parse(&request.options.label_selector)
            .map_err(|error| ApiError::bad_request(format!("unable to parse requirement: {error}")))?;
        let fields = FieldSelector::parse(&request.options.field_selector).map_err(refuse)?;
        let version = request.served()?;
        for field in fields.fields() {
            if !request.resource.supports_field(version, field) {
                return Err(refuse(FieldSelector::unsupported(field)));
            }
        }
        let name = (!request.name.is_empty()).then(|| request.name.clone());
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
        !deep || convert::load(resource, &version.name, stored).is_ok_and(|object| self.matches_fields(object))
    }

    fn matches_fields(&self, mut object: Value) -> bool {
        // The core event's `source` selects on its component, as a plain text.
        if let Some(component) = object.pointer("/source/component").cloned()
            && object["kind"] == "Event"
        {
            super::object::set_field(&mut object, "source", Some(component));
        }
        self.fields.matches(&object)
    }
}

/// Where a list goes on, in the client's hands between chunks.
#[derive(Serialize, Deserialize)]
struct Continue {
    v: String,
    rv: u64,
    #[serde(default)]
    ns: String,
    start: String,
}

impl Continue {
    fn encode(&self) -> String {
        URL_SAFE_NO_PAD.encode(serde_json::to_vec(self).unwrap_or_default())
    }

    fn decode(token: &str) -> Result<Self, ApiError> {
        let refuse = |why: &str| ApiError::bad_request(format!("continue key is not valid: {why}"));
        let bytes = URL_SAFE_NO_PAD
            .decode(token.trim_end_matches('='))
            .map_err(|error| refuse(&error.to_string()))?;
        let token: Self = serde_json::from_slice(&bytes).map_err(|error| refuse(&error.to_string()))?;
        if token.v == "meta.k8s.io/v1" {
            Ok(token)
        } else {
            Err(refuse("server does not recognize this encoded version"))
        }
    }
}

/// What the revision parameters of a get or list ask for.
enum AsOf {
    Now,
    NotOlderThan(u64),
    Exactly(u64),
}

fn parse_revision(text: &str) -> Result<u64, ApiError> {
    text.parse().map_err(|_| {
        ApiError::invalid_options(
            "ListOptions",
            &[cause(
                "FieldValueInvalid",
                "resourceVersion",
                format!("Invalid value: {text:?}: strconv.ParseUint: parsing {text:?}: invalid syntax"),
            )],
        )
    })
}

fn as_of(request: &Request) -> Result<AsOf, ApiError> {
    let options = &request.options;
    let forbid = |message: &str| {
        Err(ApiError::invalid_options(
            "ListOptions",
            &[cause(
                "FieldValueForbidden",
                "resourceVersionMatch",
                format!("Forbidden: {message}"),
            )],
        ))
    };
    if options.send_initial_events.is_some() {
        return Err(ApiError::invalid_options(
            "ListOptions",
            &[cause(
                "FieldValueForbidden",
                "sendInitialEvents",
                "Forbidden: sendInitialEvents is forbidden for list",
            )],
        ));
    }
    let matching = options.resource_version_match.as_str();
    if !matching.is_empty() {
        if options.resource_version.is_empty() {
            return forbid("resourceVersionMatch is forbidden unless resourceVersion is provided");
        }
        if !options.continue_token.is_empty() {
            return forbid("resourceVersionMatch is forbidden when continue is provided");
        }
        if !matches!(matching, "Exact" | "NotOlderThan") {
            return Err(ApiError::invalid_options(
                "ListOptions",
                &[cause(
                    "FieldValueNotSupported",
                    "resourceVersionMatch",
                    format!("Unsupported value: {matching:?}: supported values: \"Exact\", \"NotOlderThan\""),
                )],
            ));
        }
    }
    if options.resource_version.is_empty() {
        return Ok(AsOf::Now);
    }
    let revision = parse_revision(&options.resource_version)?;
    match matching {
        "Exact" if revision == 0 => forbid("resourceVersionMatch \"exact\" is forbidden for resourceVersion \"0\""),
        "Exact" => Ok(AsOf::Exactly(revision)),
        // Without a match rule, a limited list at a revision is that very revision.
        "" if options.limit > 0 && revision > 0 => Ok(AsOf::Exactly(revision)),
        _ => Ok(AsOf::NotOlderThan(revision)),
    }
}

/// Reads one object.
pub fn get(core: &Core, request: &Request) -> Result<Reply, ApiError> {
    let revision = &request.options.resource_version;
    if !revision.is_empty() {
        let requested = parse_revision(revision)?;
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
        let at = match as_of(request)? {
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
        let token = Continue::decode(&options.continue_token)?;
        // Revision 0 is what an expired list goes on with: inconsistent, but it ends.
        (
            (token.rv > 0).then_some(token.rv),
            Some(ObjectName::new(&token.ns, &token.start)),
        )
    };
    let limit = if options.limit == 0 { usize::MAX } else { options.limit };
    let everything = selection.is_everything();
    // With a selector, how many are needed is only known when enough were selected.
    let wanted = if everything { limit } else { usize::MAX };
    let snapshot = core
        .store
        .list(&request.resource.storage, namespace, start.as_ref(), at, wanted)
        .map_err(|error| {
            let mut error_out = ApiError::from(error);
            if let (RevisionError::Expired { .. }, Some(start)) = (error, &start) {
                EXPIRED_CONTINUE.clone_into(&mut error_out.message);
                let token = Continue {
                    v: "meta.k8s.io/v1".to_owned(),
                    rv: 0,
                    ns: start.namespace.to_string(),
                    start: start.name.to_string(),
                };
                error_out.continue_token = Some(token.encode());
            }
            error_out
        })?;
    let version = request.served()?;
    let mut items = Vec::with_capacity(snapshot.objects.len().min(limit));
    let mut last: Option<&ObjectName> = None;
    let mut more = snapshot.remaining > 0;
    let selected = snapshot
        .objects
        .iter()
        .filter(|(name, stored)| everything || selection.matches(&request.resource, version, name, stored));
    for (name, stored) in selected {
        if items.len() == limit {
            more = true;
            break;
        }
        items.push(convert::bytes(&request.resource, &request.version, stored)?);
        last = Some(name);
    }
    let continue_token = match last {
        Some(last) if more => Continue {
            v: "meta.k8s.io/v1".to_owned(),
            rv: snapshot.revision,
            ns: last.namespace.to_string(),
            start: last.name.to_string(),
        }
        .encode(),
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

const EXPIRED_CONTINUE: &str = "The provided continue parameter is too old to display a consistent list result. You can start a new list without the continue parameter, or use the continue token in this response to retrieve the remainder of the results. Continuing with the provided token results in an inconsistent list - objects that were created, modified, or deleted between the time the first chunk was returned and now may show up in the list.";

/// The selected keys of a collection, for deletions.
pub fn selected(core: &Core, request: &Request) -> Result<Vec<(ObjectName, Arc<Stored>)>, ApiError> {
    let selection = Selection::parse(request)?;
    let namespace = (!request.namespace.is_empty()).then_some(request.namespace.as_str());
    let snapshot = core.store.list_all(&request.resource.storage, namespace);
    let version = request.served()?;
    let objects = snapshot.into_iter();
    Ok(objects
        .filter(|(name, stored)| selection.matches(&request.resource, version, name, stored))
        .collect())
}
