//! Configs that only the provider understands: from the bytes that a user wrote to the
//! provider's own type, with everything that is wrong named by a JSON pointer.

mod document;
mod reader;
mod schema;

use std::fmt;
use std::sync::Arc;

use actuator_proto::errors::ActuatorError;
use actuator_proto::v1::ErrorReason;
use schemars::JsonSchema;
use serde::de::DeserializeOwned;

use crate::answer::Diagnostic;

pub use reader::UnusableSchema;
pub(crate) use reader::{ConfigReader, Unread, unsupported_version};

/// A config type: one kind, in its current version.
///
/// Unknown and duplicate keys are refused whether or not the type says
/// `deny_unknown_fields`.
pub trait Config: DeserializeOwned + JsonSchema + Clone + fmt::Debug + Send + Sync + 'static {
    /// The kind, in CamelCase, for example `AWSMachineConfig`.
    const KIND: &'static str;
    /// The version of the schema, for example `v1`.
    const VERSION: &'static str;

    /// The former versions that are still understood, best first.
    fn older_versions() -> Vec<OlderVersion<Self>> {
        Vec::new()
    }
}

/// How a document of one version becomes the current type.
pub(crate) type Read<C> = Arc<dyn Fn(&serde_json::Value) -> Result<C, Diagnostic> + Send + Sync>;

/// A former version of a config kind, with its own type and the way to the current one.
pub struct OlderVersion<C> {
    pub(crate) version: &'static str,
    pub(crate) schema: fn() -> schemars::Schema,
    pub(crate) read: Read<C>,
}

impl<C: Config> OlderVersion<C> {
    /// A former version that was written as `T`.
    pub fn new<T>(version: &'static str, upgrade: fn(T) -> C) -> Self
    where
        T: DeserializeOwned + JsonSchema + 'static,
    {
        Self {
            version,
            schema: || schemars::schema_for!(T),
            read: Arc::new(move |value| document::decode::<T>(value).map(upgrade)),
        }
    }
}

impl<C> fmt::Debug for OlderVersion<C> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("OlderVersion")
            .field("version", &self.version)
            .finish_non_exhaustive()
    }
}

/// A config where the resource is there already: Delete and Exists must work without
/// it, and one that can no longer be read must not stand in their way.
///
/// Where the config says in which region or project to look, use
/// [`ConfigHint::require`]: looking elsewhere and answering "absent" would leak the
/// resource.
#[derive(Debug, Clone, PartialEq)]
pub enum ConfigHint<C> {
    /// None was sent.
    Missing,
    /// One was sent and fits its type.
    Known(C),
    /// One was sent that this provider cannot read, and why.
    Unreadable(Vec<Diagnostic>),
}

impl<C> ConfigHint<C> {
    /// The config if there is one that can be read.
    pub fn get(&self) -> Option<&C> {
        match self {
            Self::Known(config) => Some(config),
            Self::Missing | Self::Unreadable(_) => None,
        }
    }

    /// The config, or `INVALID_CONFIG` saying what is wrong with it.
    pub fn require(&self) -> Result<&C, ActuatorError> {
        match self {
            Self::Known(config) => Ok(config),
            Self::Missing => Err(ActuatorError::new(
                ErrorReason::InvalidConfig,
                "the config is needed to find the resource, and none was sent",
            )
            .with_field("config", "missing")),
            Self::Unreadable(diagnostics) => Err(invalid(diagnostics)),
        }
    }
}

/// `INVALID_CONFIG` with the errors among these diagnostics.
pub(crate) fn invalid(diagnostics: &[Diagnostic]) -> ActuatorError {
    let errors: Vec<&Diagnostic> = diagnostics.iter().filter(|diagnostic| diagnostic.is_error()).collect();
    let message = match errors.as_slice() {
        [] => "the config is invalid".to_owned(),
        [only] => located(only),
        [first, rest @ ..] => format!("{} (and {} more)", located(first), rest.len()),
    };
    errors.into_iter().fold(
        ActuatorError::new(ErrorReason::InvalidConfig, message),
        |error, found| error.with_field(found.pointer.clone(), found.message.clone()),
    )
}

fn located(diagnostic: &Diagnostic) -> String {
    match diagnostic.pointer.as_str() {
        "" => diagnostic.message.clone(),
        pointer => format!("{pointer}: {}", diagnostic.message),
    }
}
