//! Who asks, and whether they may.

mod rbac;

pub use rbac::{Attributes, authorize};

/// The name under which the server acts for itself and for in-process clients.
pub const ADMIN: &str = "system:admin";
/// The group that may do everything.
pub const MASTERS: &str = "system:masters";
/// The name of whoever shows no credentials.
pub const ANONYMOUS: &str = "system:anonymous";

/// Who asks.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct User {
    /// The name.
    pub name: String,
    /// The groups.
    pub groups: Vec<String>,
}

impl User {
    /// An in-process client: an administrator.
    pub fn admin() -> Self {
        Self {
            name: ADMIN.to_owned(),
            groups: vec![MASTERS.to_owned(), "system:authenticated".to_owned()],
        }
    }

    /// Someone without credentials.
    pub fn anonymous() -> Self {
        Self {
            name: ANONYMOUS.to_owned(),
            groups: vec!["system:unauthenticated".to_owned()],
        }
    }

    /// From the subject of a verified client certificate: common name and organizations.
    pub fn from_certificate(common_name: String, organizations: Vec<String>) -> Self {
        let mut groups = organizations;
        groups.push("system:authenticated".to_owned());
        Self {
            name: common_name,
            groups,
        }
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

/// Paths that everyone may read.
pub fn is_public(path: &str) -> bool {
    let under = |root: &str| path == root || path.strip_prefix(root).is_some_and(|rest| rest.starts_with('/'));
    under("/healthz") || under("/livez") || under("/readyz") || path == "/version" || path == "/version/"
}
