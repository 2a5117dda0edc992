//! From an opaque config of the wire to the provider's type: envelope, document,
//! schema, type, each with its own error.
//!
//! Not for: what a config means to the cloud (the provider's own validation).

use std::borrow::Cow;
use std::sync::Arc;

use actuator_proto::digest::sha256;
use actuator_proto::errors::ActuatorError;
use actuator_proto::limits::{MAX_CONFIG_BYTES, MAX_DIAGNOSTICS, MAX_PAGE_BYTES};
use actuator_proto::v1::{self, ErrorReason};
use jsonschema::error::{TypeKind, ValidationErrorKind};
use jsonschema::{ValidationError, Validator};

use super::document::{self, escape};
use super::{Config, ConfigHint, Read, invalid, schema};
use crate::answer::Diagnostic;

/// Reads the configs of one kind, in every version that is understood.
pub(crate) struct ConfigReader<C> {
    versions: Vec<Version<C>>,
}

struct Version<C> {
    name: &'static str,
    schema: Vec<u8>,
    schema_sha256: Vec<u8>,
    validator: Validator,
    read: Read<C>,
}

/// A schema that cannot be used; a defect of the provider.
#[derive(Debug, thiserror::Error)]
#[error("the schema of {kind} {version} cannot be used: {reason}")]
pub struct UnusableSchema {
    kind: &'static str,
    version: &'static str,
    reason: String,
}

/// Why a config is not read: the request is wrong, or the document is.
pub(crate) enum Unread {
    /// The envelope breaks the protocol.
    Refused(ActuatorError),
    /// The document does not fit.
    Invalid(Vec<Diagnostic>),
}

impl From<Unread> for ActuatorError {
    fn from(unread: Unread) -> Self {
        match unread {
            Unread::Refused(error) => error,
            Unread::Invalid(diagnostics) => invalid(&diagnostics),
        }
    }
}

impl<C: Config> ConfigReader<C> {
    pub(crate) fn new() -> Result<Self, UnusableSchema> {
        let current = (
            C::VERSION,
            schemars::schema_for!(C),
            Arc::new(document::decode::<C>) as Read<C>,
        );
        let older = C::older_versions()
            .into_iter()
            .map(|older| (older.version, (older.schema)(), older.read));
        let versions = std::iter::once(current)
            .chain(older)
            .map(|(name, schema, read)| Version::new(C::KIND, name, schema, read))
            .collect::<Result<_, _>>()?;
        Ok(Self { versions })
    }

    /// The versions that are understood, best first.
    pub(crate) fn versions(&self) -> impl Iterator<Item = &'static str> {
        self.versions.iter().map(|version| version.name)
    }

    /// The schema of a version as it is handed out, and its SHA-256.
    pub(crate) fn schema(&self, version: &str) -> Option<(&[u8], &[u8])> {
        self.versions
            .iter()
            .find(|known| known.name == version)
            .map(|known| (known.schema.as_slice(), known.schema_sha256.as_slice()))
    }

    /// Reads a config. `field` is where it stands in the request. None at all is read
    /// as `{}` of the current version.
    pub(crate) fn read(&self, config: Option<&v1::OpaqueConfig>, field: &str) -> Result<C, Unread> {
        let (version, json) = match config {
            None => (self.versions.first(), b"{}".as_slice()),
            Some(config) => {
                check_envelope(config, field).map_err(Unread::Refused)?;
                (
                    Some(self.version_of(config, field).map_err(Unread::Refused)?),
                    config.json.as_slice(),
                )
            }
        };
        let Some(version) = version else {
            return Err(Unread::Invalid(Vec::new()));
        };
        version.read(json).map_err(Unread::Invalid)
    }

    /// Reads a config that only helps: one that cannot be read is told as such. A broken
    /// envelope is refused all the same.
    pub(crate) fn hint(&self, config: Option<&v1::OpaqueConfig>, field: &str) -> Result<ConfigHint<C>, ActuatorError> {
        let Some(sent) = config else {
            return Ok(ConfigHint::Missing);
        };
        check_envelope(sent, field)?;
        Ok(match self.read(config, field) {
            Ok(config) => ConfigHint::Known(config),
            Err(Unread::Invalid(diagnostics)) => ConfigHint::Unreadable(diagnostics),
            Err(Unread::Refused(error)) => ConfigHint::Unreadable(vec![Diagnostic::error("", error.message())]),
        })
    }

    fn version_of(&self, config: &v1::OpaqueConfig, field: &str) -> Result<&Version<C>, ActuatorError> {
        if config.kind != C::KIND {
            return Err(ActuatorError::invalid_field(
                format!("{field}.kind"),
                format!("the kind must be {:?} here", C::KIND),
            ));
        }
        self.versions
            .iter()
            .find(|version| version.name == config.schema_version)
            .ok_or_else(|| unsupported_version(C::KIND, self.versions(), &format!("{field}.schema_version")))
    }
}

/// `UNSUPPORTED_SCHEMA_VERSION` naming the versions that there are.
pub(crate) fn unsupported_version<'a>(
    kind: &str,
    versions: impl Iterator<Item = &'a str>,
    field: &str,
) -> ActuatorError {
    let known: Vec<&str> = versions.collect();
    let words = format!(
        "this version of {kind} is not understood; use one of {}",
        known.join(", ")
    );
    ActuatorError::new(ErrorReason::UnsupportedSchemaVersion, format!("{field}: {words}")).with_field(field, words)
}

fn check_envelope(config: &v1::OpaqueConfig, field: &str) -> Result<(), ActuatorError> {
    let bytes = config.json.len();
    if bytes > MAX_CONFIG_BYTES {
        let words = format!("the config has {bytes} bytes; at most {MAX_CONFIG_BYTES} are allowed");
        return Err(
            ActuatorError::new(ErrorReason::LimitExceeded, format!("{field}.json: {words}"))
                .with_field(format!("{field}.json"), words),
        );
    }
    if config.sha256 != sha256(&config.json) {
        return Err(ActuatorError::invalid_field(
            format!("{field}.sha256"),
            "must be the SHA-256 of json, 32 bytes",
        ));
    }
    Ok(())
}

impl<C> Version<C> {
    fn new(
        kind: &'static str,
        name: &'static str,
        schema: schemars::Schema,
        read: Read<C>,
    ) -> Result<Self, UnusableSchema> {
        let unusable = |reason: String| UnusableSchema {
            kind,
            version: name,
            reason,
        };
        let closed = schema::close(schema);
        let validator = jsonschema::draft202012::options()
            .build(&closed)
            .map_err(|error| unusable(error.to_string()))?;
        let schema = serde_json::to_vec(&closed).map_err(|error| unusable(error.to_string()))?;
        if schema.len() > MAX_PAGE_BYTES {
            return Err(unusable(format!(
                "it has {} bytes; at most 1 MiB are allowed",
                schema.len()
            )));
        }
        Ok(Self {
            name,
            schema_sha256: sha256(&schema),
            schema,
            validator,
            read,
        })
    }

    fn read(&self, json: &[u8]) -> Result<C, Vec<Diagnostic>> {
        let value = document::parse(json)?;
        let mut found = Vec::new();
        for error in self.validator.iter_errors(&value) {
            describe(&error, &mut found);
            if found.len() >= MAX_DIAGNOSTICS {
                found.truncate(MAX_DIAGNOSTICS);
                break;
            }
        }
        if !found.is_empty() {
            return Err(found);
        }
        (self.read)(&value).map_err(|diagnostic| vec![diagnostic])
    }
}

/// One diagnostic for each thing that an error of the schema is about. No value of the
/// document is repeated: it may hold what should not be seen.
fn describe(error: &ValidationError<'_>, found: &mut Vec<Diagnostic>) {
    let at = error.instance_path().as_str();
    match error.kind() {
        ValidationErrorKind::AdditionalProperties { unexpected }
        | ValidationErrorKind::UnevaluatedProperties { unexpected } => {
            found.extend(unexpected.iter().map(|key| {
                Diagnostic::error(
                    format!("{at}/{}", escape(key)),
                    "the key is not known here; remove it or correct its name",
                )
            }));
        }
        ValidationErrorKind::Required { property } => {
            let key = property
                .as_str()
                .map_or_else(|| Cow::Owned(property.to_string()), Cow::Borrowed);
            found.push(Diagnostic::error(
                format!("{at}/{}", escape(&key)),
                "the key is required and missing",
            ));
        }
        ValidationErrorKind::AnyOf { context } | ValidationErrorKind::OneOfNotValid { context } => {
            match likely_branch(context, at) {
                Some(branch) => branch.iter().for_each(|error| describe(error, found)),
                None => found.push(Diagnostic::error(
                    at,
                    "the value has none of the forms that are allowed here",
                )),
            }
        }
        ValidationErrorKind::FalseSchema => found.push(Diagnostic::error(at, "nothing is allowed here")),
        ValidationErrorKind::Type { kind } => {
            let allowed = match kind {
                TypeKind::Single(only) => only.to_string(),
                TypeKind::Multiple(types) => {
                    let names: Vec<String> = types.iter().map(|one| one.to_string()).collect();
                    names.join(" or ")
                }
            };
            found.push(Diagnostic::error(at, format!("must be of type {allowed}")));
        }
        // A number is shown as it was read: whoever sees other digits than he wrote knows why.
        _ if error.instance().is_number() => found.push(Diagnostic::error(at, error.to_string())),
        // Anything else may be a secret that was put into the wrong place.
        _ => found.push(Diagnostic::error(at, error.masked().to_string())),
    }
}

/// Of the forms that a value may have, the one that was meant: the only one whose type
/// and constants fit and, where that leaves several, whose own keys are there.
fn likely_branch<'a>(
    context: &'a [Vec<ValidationError<'static>>],
    at: &str,
) -> Option<&'a Vec<ValidationError<'static>>> {
    let here = |error: &ValidationError<'_>| error.instance_path().as_str() == at;
    let fits = |errors: &&Vec<ValidationError<'static>>| {
        !errors.iter().any(|error| match error.kind() {
            ValidationErrorKind::Type { .. } => here(error),
            ValidationErrorKind::Constant { .. } | ValidationErrorKind::Enum { .. } => true,
            _ => false,
        })
    };
    let has_its_keys = |errors: &&Vec<ValidationError<'static>>| {
        !errors
            .iter()
            .any(|error| here(error) && matches!(error.kind(), ValidationErrorKind::Required { .. }))
    };
    only(context.iter().filter(fits)).or_else(|| only(context.iter().filter(fits).filter(has_its_keys)))
}

fn only<T>(mut items: impl Iterator<Item = T>) -> Option<T> {
    let first = items.next()?;
    items.next().is_none().then_some(first)
}

#[cfg(test)]
#[path = "reader_tests.rs"]
mod tests;
