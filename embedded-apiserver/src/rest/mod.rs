//! The verbs: what a request does to the stored objects. It knows nothing of HTTP but media types of patches.

mod bookmark;
mod continuation;
mod convert;
mod decode;
mod delete;
mod deletion;
mod error;
mod evict;
mod list;
mod metadata;
pub mod number;
mod object;
mod options;
mod patch;
mod prepare;
mod review;
mod role;
mod scale;
mod strategy;
mod token;
mod validate;
mod watch;
mod write;

use std::collections::HashSet;
use std::sync::Arc;

use bytes::Bytes;
use jiff::Timestamp;
use serde_json::Value;

pub(crate) use crate::builtin::formats::qualified_name;
pub use decode::unrecognized;
pub use error::{ApiError, Subject, cause};
pub use list::ListReply;
pub use object::{metadata_text, now_text};
pub use patch::FOR_CUSTOM as CUSTOM_PATCHES;
pub use watch::{Watch, WatchEvent, WatchKind};

pub(crate) use delete::delete_key;
pub(crate) use deletion::{DeleteOptions, Propagation};
pub(crate) use write::{rewrite, settle_definition, tend};

use crate::access::{Access, User};
use crate::lifecycle::Queue;
use crate::registry::{Registry, Resource, Version};
use crate::storage::{Key, Store};

/// What all requests share.
#[derive(Debug)]
pub struct Core {
    /// The objects.
    pub store: Store,
    /// The served resources.
    pub registry: Registry,
    /// Work for the life cycle of objects: garbage collection, namespaces, definitions.
    pub queue: Arc<Queue>,
    /// Who may do what.
    pub access: Arc<Access>,
}

/// How the body of a request is written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum BodyFormat {
    /// JSON.
    Json,
    /// YAML.
    Yaml,
    /// An RFC 6902 patch.
    JsonPatch,
    /// An RFC 7386 patch.
    MergePatch,
    /// A strategic merge patch.
    StrategicMergePatch,
    /// An applied configuration, in YAML or JSON.
    Apply,
    /// Kubernetes protobuf; it is made JSON before the verbs see it.
    Protobuf,
}

impl BodyFormat {
    /// Whether the body changes an object instead of being one.
    pub fn is_patch(self) -> bool {
        matches!(
            self,
            Self::JsonPatch | Self::MergePatch | Self::StrategicMergePatch | Self::Apply
        )
    }
}

/// What to do about unknown and duplicate fields.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
pub enum FieldValidation {
    /// Drop them silently.
    Ignore,
    /// Drop them and warn.
    #[default]
    Warn,
    /// Refuse the request.
    Strict,
}

impl FieldValidation {
    /// By its name.
    pub fn named(name: &str) -> Self {
        match name {
            "Ignore" => Self::Ignore,
            "Strict" => Self::Strict,
            _ => Self::Warn,
        }
    }
}

/// The query parameters of a request, read.
#[derive(Clone, Debug, Default)]
pub struct Options {
    /// `dryRun`: do everything but the write.
    pub dry_run: bool,
    /// The values of `dryRun`; the only one there is is `All`.
    pub dry_run_values: Vec<String>,
    /// `fieldManager`.
    pub field_manager: Option<String>,
    /// `fieldValidation`, as it was given.
    pub field_validation: String,
    /// `force`, for applies.
    pub force: Option<bool>,
    /// `labelSelector`.
    pub label_selector: String,
    /// `fieldSelector`.
    pub field_selector: String,
    /// `limit`; 0 is none.
    pub limit: usize,
    /// `continue`.
    pub continue_token: String,
    /// `resourceVersion`.
    pub resource_version: String,
    /// `resourceVersionMatch`.
    pub resource_version_match: String,
    /// `watch`.
    pub watch: bool,
    /// `allowWatchBookmarks`.
    pub bookmarks: bool,
    /// `sendInitialEvents`.
    pub send_initial_events: Option<bool>,
    /// `timeoutSeconds`.
    pub timeout_seconds: Option<i64>,
    /// `propagationPolicy`.
    pub propagation_policy: Option<String>,
    /// `orphanDependents`.
    pub orphan_dependents: Option<bool>,
    /// `gracePeriodSeconds`.
    pub grace_period_seconds: Option<i64>,
}

/// A request to a resource.
#[derive(Clone, Debug)]
pub struct Request {
    /// Who asks.
    pub user: User,
    /// The resource.
    pub resource: Arc<Resource>,
    /// The version that the client speaks; a served one.
    pub version: String,
    /// The namespace; empty for cluster scope and for all namespaces.
    pub namespace: String,
    /// The object; empty for the collection.
    pub name: String,
    /// The subresource; empty for the object itself.
    pub subresource: String,
    /// The query parameters.
    pub options: Options,
    /// The body.
    pub body: Bytes,
    /// How the body is written.
    pub format: BodyFormat,
    /// The client's name for itself, the default field manager.
    pub user_agent: String,
    /// The time of the request.
    pub now: Timestamp,
}

impl Request {
    /// The version's definition.
    pub fn served(&self) -> Result<&Version, ApiError> {
        self.resource
            .served(&self.version)
            .ok_or_else(ApiError::no_such_resource)
    }

    /// The `apiVersion` of the request's version.
    pub fn api_version(&self) -> String {
        self.resource.api_version(&self.version)
    }

    /// The key of the object with this name in the request's namespace.
    pub fn key(&self, name: &str) -> Key {
        Key::new(&self.resource.storage, &self.namespace, name)
    }

    /// What errors about an object are about.
    pub fn subject<'a>(&'a self, name: &'a str) -> Subject<'a> {
        Subject {
            group: &self.resource.group,
            kind: &self.resource.plural,
            name,
        }
    }

    /// What validation errors are about: the kind instead of the resource.
    pub fn kind_subject<'a>(&'a self, name: &'a str) -> Subject<'a> {
        Subject {
            // Events are validated as those of the core group.
            group: match self.resource.behaviour {
                crate::registry::Behaviour::EventView => "",
                _ => &self.resource.group,
            },
            kind: &self.resource.kind,
            name,
        }
    }

    /// Who is recorded as the manager of the fields.
    pub fn manager(&self) -> String {
        match &self.options.field_manager {
            Some(manager) if !manager.is_empty() => manager.clone(),
            _ => {
                let name = self.user_agent.split('/').next().unwrap_or_default();
                let name: String = name.chars().filter(|letter| !letter.is_control()).take(128).collect();
                if name.is_empty() { "unknown".to_owned() } else { name }
            }
        }
    }
}

/// An answer.
#[derive(Debug)]
pub struct Answer {
    /// What is answered.
    pub reply: Reply,
    /// `Warning` headers.
    pub warnings: Vec<String>,
}

/// What is answered.
#[derive(Debug)]
pub enum Reply {
    /// An object, as JSON in the request's version.
    Object {
        /// The HTTP status code.
        code: u16,
        /// The JSON.
        bytes: Bytes,
    },
    /// Something that is no object of the resource: a `Status`, a `Scale`, a review.
    Value {
        /// The HTTP status code.
        code: u16,
        /// The value.
        value: Value,
    },
    /// The scale of an object.
    Scale(Value),
    /// A list.
    List(ListReply),
    /// A stream of events.
    Watch(Box<Watch>),
}

/// What a request does.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Verb {
    /// Read one object.
    Get,
    /// Read a collection.
    List,
    /// Follow a collection or an object.
    Watch,
    /// Make an object.
    Create,
    /// Replace an object.
    Update,
    /// Change an object.
    Patch,
    /// Remove an object.
    Delete,
    /// Remove all selected objects.
    DeleteCollection,
}

impl Verb {
    /// As discovery and RBAC name it.
    pub fn name(self) -> &'static str {
        match self {
            Self::Get => "get",
            Self::List => "list",
            Self::Watch => "watch",
            Self::Create => "create",
            Self::Update => "update",
            Self::Patch => "patch",
            Self::Delete => "delete",
            Self::DeleteCollection => "deletecollection",
        }
    }

    /// Whether it changes something.
    pub fn mutates(self) -> bool {
        !matches!(self, Self::Get | Self::List | Self::Watch)
    }
}

/// Refuses subresources that a resource does not have, and verbs that its path does not take.
pub fn check_path(
    verb: Verb,
    resource: &Resource,
    version: &str,
    name: &str,
    subresource: &str,
) -> Result<(), ApiError> {
    let version = resource.served(version).ok_or_else(ApiError::no_such_resource)?;
    let subject = |name| Subject {
        group: &resource.group,
        kind: &resource.plural,
        name,
    };
    let has_subresource = match subresource {
        "" => true,
        "status" => version.status,
        "scale" => version.scale.is_some(),
        "finalize" => resource.behaviour == crate::registry::Behaviour::Namespace,
        "eviction" => resource.behaviour == crate::registry::Behaviour::Pod,
        "token" => resource.behaviour == crate::registry::Behaviour::ServiceAccount,
        _ => false,
    };
    if !has_subresource {
        return Err(match resource.custom {
            Some(_) => ApiError::not_found(subject(name)),
            None => ApiError::no_such_resource(),
        });
    }
    let supported = match subresource {
        "" => resource.verbs().contains(&verb.name()),
        "eviction" | "token" => verb == Verb::Create,
        "finalize" => verb == Verb::Update,
        _ => matches!(verb, Verb::Get | Verb::Update | Verb::Patch),
    };
    if !supported {
        return Err(match resource.custom {
            Some(_) => ApiError::method_not_supported(subject(""), verb.name()),
            None => ApiError::method_not_allowed(),
        });
    }
    Ok(())
}

/// Carries a request out.
pub async fn carry_out(core: &Arc<Core>, verb: Verb, request: Request) -> Result<Answer, ApiError> {
    let mut warnings = Vec::new();
    let reply = perform(core, verb, request, &mut warnings).await;
    let mut told = HashSet::new();
    warnings.retain(|warning| told.insert(warning.clone()));
    match reply {
        Ok(reply) => Ok(Answer { reply, warnings }),
        Err(mut error) => {
            error.warnings = warnings;
            Err(error)
        }
    }
}

async fn perform(
    core: &Arc<Core>,
    verb: Verb,
    request: Request,
    warnings: &mut Vec<String>,
) -> Result<Reply, ApiError> {
    let version = request.served()?;
    if let Some(warning) = &version.deprecation {
        warnings.push(warning.clone());
    }
    check_path(
        verb,
        &request.resource,
        &request.version,
        &request.name,
        &request.subresource,
    )?;
    options::check(verb, request.format, &request.options)?;
    Ok(match (request.subresource.as_str(), verb) {
        ("scale", Verb::Get) => scale::get(core, &request)?,
        ("scale", _) => scale::change(core, &request, warnings).await?,
        ("eviction", _) => evict::evict(core, &request, warnings).await?,
        ("token", _) => token::create(core, &request, warnings)?,
        (_, Verb::Get) => list::get(core, &request)?,
        (_, Verb::List) => Reply::List(list::list(core, &request)?),
        (_, Verb::Watch) => Reply::Watch(Box::new(watch::start(core, request)?)),
        (_, Verb::Create) if request.resource.behaviour == crate::registry::Behaviour::Review => {
            review::create(core, &request, warnings)?
        }
        (_, Verb::Create) => write::create(core, &request, warnings).await?,
        (_, Verb::Update) => write::update(core, &request, warnings).await?,
        (_, Verb::Patch) => patch::patch(core, &request, warnings).await?,
        (_, Verb::Delete) => delete::delete(core, &request).await?,
        (_, Verb::DeleteCollection) => delete::delete_collection(core, &request).await?,
    })
}
