//! Who asks, and whether they may: credentials, impersonation, role-based access control.
//!
//! The rules and their wording are those of the real server's authenticators and of its RBAC authorizer. Everything
//! here decides; what is decided on comes from the store, and nothing is written.

mod account_token;
mod attributes;
mod authenticate;
mod bootstrap_token;
mod default_policy;
mod escalation;
mod impersonate;
mod policy;
mod rbac;
mod static_token;

use std::collections::BTreeMap;

pub(crate) use account_token::{Bound, Claims, ISSUER, KeyError, Keys, Reference, SigningKey};
pub(crate) use attributes::Attributes;
pub(crate) use authenticate::{Access, Caller, header_warning};
pub(crate) use default_policy::{defaults, reconciled};
pub(crate) use escalation::confirm_no_escalation;
pub(crate) use impersonate::{Refused, wanted};
pub(crate) use policy::{CLUSTER_ROLES, ClusterRole, MissingRole, Rule};
pub(crate) use rbac::{Decision, Rules};
pub(crate) use static_token::StaticTokens;

/// The name under which the server acts for itself and for in-process clients.
pub const ADMIN: &str = "system:admin";
/// The group that may do everything.
pub const MASTERS: &str = "system:masters";
/// The name of whoever shows no credentials.
pub const ANONYMOUS: &str = "system:anonymous";
/// The group of all who showed good credentials.
pub const AUTHENTICATED: &str = "system:authenticated";
/// The group of all who showed none.
pub const UNAUTHENTICATED: &str = "system:unauthenticated";

/// What identifies the credential that was shown, in a user's `extra`.
const CREDENTIAL: &str = "authentication.kubernetes.io/credential-id";

/// Who asks.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct User {
    /// The name.
    pub name: String,
    /// What tells this user from another of the same name; mostly empty.
    pub uid: String,
    /// The groups.
    pub groups: Vec<String>,
    /// What else is known of them.
    pub extra: BTreeMap<String, Vec<String>>,
}

impl User {
    /// An in-process client: an administrator.
    pub fn admin() -> Self {
        Self::authenticated(ADMIN, vec![MASTERS.to_owned()])
    }

    /// Someone without credentials.
    pub fn anonymous() -> Self {
        Self {
            name: ANONYMOUS.to_owned(),
            groups: vec![UNAUTHENTICATED.to_owned()],
            ..Self::default()
        }
    }

    /// Someone with good credentials: they are in the group of all such.
    pub fn authenticated(name: impl Into<String>, mut groups: Vec<String>) -> Self {
        if !groups.iter().any(|group| group == AUTHENTICATED) {
            groups.push(AUTHENTICATED.to_owned());
        }
        Self {
            name: name.into(),
            groups,
            ..Self::default()
        }
    }

    /// From the subject of a verified client certificate: common name and organizations.
    pub fn from_certificate(common_name: String, organizations: Vec<String>) -> Self {
        Self::authenticated(common_name, organizations)
    }

    /// Notes which credential was shown.
    #[must_use]
    pub(crate) fn with_credential(mut self, id: String) -> Self {
        self.extra.insert(CREDENTIAL.to_owned(), vec![id]);
        self
    }

    /// Whether they showed no credentials.
    pub fn is_anonymous(&self) -> bool {
        self.name == ANONYMOUS
    }

    /// Whether they may do everything.
    pub fn is_master(&self) -> bool {
        self.groups.iter().any(|group| group == MASTERS)
    }
}

/// Go's `%q` of a list of texts: `["a" "b"]`.
fn quoted(texts: &[String]) -> String {
    let texts: Vec<String> = texts.iter().map(|text| format!("{text:?}")).collect();
    format!("[{}]", texts.join(" "))
}

/// Several errors as one text, each once.
fn together(errors: &[String]) -> String {
    let mut unique: Vec<&str> = Vec::new();
    for error in errors {
        if !unique.contains(&error.as_str()) {
            unique.push(error);
        }
    }
    match unique.as_slice() {
        [one] => (*one).to_owned(),
        several => format!("[{}]", several.join(", ")),
    }
}
