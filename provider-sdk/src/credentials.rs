//! Credentials as provider code gets them: never printed, read by name, and a missing
//! or malformed entry is an error that names it.

use std::collections::BTreeMap;
use std::fmt;
use std::sync::Arc;

use actuator_proto::errors::ActuatorError;
use actuator_proto::v1::{self, ErrorReason};

use crate::info::CredentialKey;

/// What the provider needs to reach its cloud as the user. `Debug` prints the names of
/// the entries and nothing of their values.
#[derive(Clone, Default)]
pub struct Credentials(Source);

#[derive(Clone, Default)]
enum Source {
    #[default]
    None,
    Ambient,
    Data(Arc<BTreeMap<String, Vec<u8>>>),
}

impl Credentials {
    /// No credentials at all.
    pub fn none() -> Self {
        Self(Source::None)
    }

    /// Those of the provider's own process.
    pub fn ambient() -> Self {
        Self(Source::Ambient)
    }

    /// The entries of a Secret.
    pub fn from_entries(entries: impl IntoIterator<Item = (String, Vec<u8>)>) -> Self {
        Self(Source::Data(Arc::new(entries.into_iter().collect())))
    }

    pub(crate) fn from_wire(credentials: Option<v1::Credentials>) -> Self {
        match credentials.and_then(|credentials| credentials.source) {
            None => Self::none(),
            Some(v1::credentials::Source::Ambient(_)) => Self::ambient(),
            Some(v1::credentials::Source::Data(data)) => Self::from_entries(data.entries),
        }
    }

    /// Whether the provider is to use what its own process was given: an instance
    /// profile, a workload identity, the environment.
    pub fn is_ambient(&self) -> bool {
        matches!(self.0, Source::Ambient)
    }

    /// Whether none were sent.
    pub fn is_none(&self) -> bool {
        matches!(self.0, Source::None)
    }

    /// The names of the entries.
    pub fn names(&self) -> impl Iterator<Item = &str> {
        self.entries().into_iter().flatten().map(|(name, _)| name.as_str())
    }

    /// The entry of this name. `CREDENTIALS_INVALID` when it is missing or empty.
    pub fn bytes(&self, name: &str) -> Result<&[u8], ActuatorError> {
        self.optional_bytes(name).ok_or_else(|| self.missing(name))
    }

    /// The entry of this name if it is there and not empty.
    pub fn optional_bytes(&self, name: &str) -> Option<&[u8]> {
        self.entries()?
            .get(name)
            .map(Vec::as_slice)
            .filter(|value| !value.is_empty())
    }

    /// The entry of this name as text, without white space around it (Secrets made from
    /// files end in a newline). `CREDENTIALS_INVALID` when it is missing, empty or not
    /// UTF-8.
    pub fn text(&self, name: &str) -> Result<&str, ActuatorError> {
        self.optional_text(name)?.ok_or_else(|| self.missing(name))
    }

    /// The same where the entry may be missing. `CREDENTIALS_INVALID` when it is there
    /// and not UTF-8.
    pub fn optional_text(&self, name: &str) -> Result<Option<&str>, ActuatorError> {
        let Some(bytes) = self.optional_bytes(name) else {
            return Ok(None);
        };
        let text = std::str::from_utf8(bytes).map_err(|_| {
            ActuatorError::new(
                ErrorReason::CredentialsInvalid,
                format!("the entry {name:?} of the credentials is not UTF-8 text; correct it in the Secret"),
            )
        })?;
        Ok(Some(text.trim()).filter(|text| !text.is_empty()))
    }

    /// Checks that each entry that is not optional is there. Ambient credentials pass.
    pub(crate) fn require(&self, keys: &[CredentialKey]) -> Result<(), ActuatorError> {
        if self.is_ambient() {
            return Ok(());
        }
        keys.iter()
            .filter(|key| !key.optional)
            .try_for_each(|key| self.bytes(&key.name).map(|_| ()))
    }

    fn entries(&self) -> Option<&BTreeMap<String, Vec<u8>>> {
        match &self.0 {
            Source::Data(entries) => Some(entries),
            Source::None | Source::Ambient => None,
        }
    }

    fn missing(&self, name: &str) -> ActuatorError {
        let message = match &self.0 {
            Source::None => {
                format!("no credentials were sent, and the entry {name:?} is needed; name a Secret that has it")
            }
            Source::Ambient => format!(
                "the credentials are those of the provider's own process, and the entry {name:?} is needed; name a Secret that has it"
            ),
            Source::Data(_) => {
                format!("the credentials have no entry {name:?} or it is empty; add it to the Secret")
            }
        };
        ActuatorError::new(ErrorReason::CredentialsInvalid, message)
    }
}

impl fmt::Debug for Credentials {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.0 {
            Source::None => f.write_str("Credentials(none)"),
            Source::Ambient => f.write_str("Credentials(ambient)"),
            Source::Data(entries) => f
                .debug_map()
                .entries(entries.keys().map(|name| (name, actuator_proto::Redacted)))
                .finish(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn credentials() -> Credentials {
        Credentials::from_entries([
            ("token".to_owned(), b"s3cr3t-sentinel\n".to_vec()),
            ("blob".to_owned(), vec![0xff, 0xfe]),
            ("empty".to_owned(), Vec::new()),
        ])
    }

    #[test]
    fn debug_shows_names_only() {
        let printed = format!("{:?} {:#?}", credentials(), credentials());
        assert!(!printed.contains("s3cr3t"), "{printed}");
        assert!(printed.contains("\"token\": [redacted]"), "{printed}");
    }

    #[test]
    fn entries_are_read_by_name() -> Result<(), ActuatorError> {
        assert_eq!(credentials().text("token")?, "s3cr3t-sentinel");
        assert_eq!(credentials().bytes("blob")?, [0xff, 0xfe]);
        assert_eq!(credentials().optional_text("absent")?, None);
        Ok(())
    }

    #[test]
    fn a_missing_entry_is_named() {
        for (credentials, name) in [
            (credentials(), "absent"),
            (credentials(), "empty"),
            (credentials(), "blob"),
            (Credentials::none(), "token"),
            (Credentials::ambient(), "token"),
        ] {
            let error = credentials.text(name).expect_err("an error");
            assert_eq!(error.reason(), ErrorReason::CredentialsInvalid);
            assert!(error.message().contains(&format!("{name:?}")), "{error}");
        }
    }

    #[test]
    fn only_what_is_not_optional_is_required() {
        let keys = [
            CredentialKey::required("token", ""),
            CredentialKey::optional("absent", ""),
        ];
        assert!(credentials().require(&keys).is_ok());
        assert!(Credentials::ambient().require(&keys).is_ok());
        assert!(Credentials::none().require(&keys).is_err());
        assert!(Credentials::none().require(&keys[1..]).is_ok());
    }
}
