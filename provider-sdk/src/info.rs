//! What a provider says about itself, once.

use std::time::Duration;

use actuator_proto::{limits, v1};

/// What a provider is.
#[derive(Debug, Clone)]
pub struct ProviderInfo {
    /// A DNS label such as `aws`; at most 63 bytes, the same in every version.
    pub name: String,
    /// The version of this build; at most 256 bytes.
    pub version: String,
    /// What each `provider_id` of a machine begins with, for example `aws:///`.
    pub provider_id_prefix: String,
    /// What the provider can bear.
    pub limits: Limits,
    /// How long things take.
    pub timings: Timings,
    /// The entries of the credentials Secret that are read. Those that are not optional
    /// are checked before the provider is called.
    pub credential_keys: Vec<CredentialKey>,
    /// The formats of bootstrap data that are passed on; others are refused.
    pub bootstrap_formats: Vec<v1::BootstrapFormat>,
}

impl ProviderInfo {
    /// A provider that takes every bootstrap format and no credentials, with the limits
    /// and timings of the protocol.
    #[must_use]
    pub fn new(name: impl Into<String>, version: impl Into<String>, provider_id_prefix: impl Into<String>) -> Self {
        Self {
            name: name.into(),
            version: version.into(),
            provider_id_prefix: provider_id_prefix.into(),
            limits: Limits::default(),
            timings: Timings::default(),
            credential_keys: Vec::new(),
            bootstrap_formats: vec![
                v1::BootstrapFormat::CloudConfig,
                v1::BootstrapFormat::Ignition,
                v1::BootstrapFormat::Raw,
            ],
        }
    }
}

/// What a provider can bear.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Limits {
    /// The most mutations at a time. More are refused with `TOO_MANY_IN_FLIGHT`.
    pub max_concurrent_mutations: usize,
    /// The largest bootstrap data, in bytes, at most 1 MiB.
    pub max_bootstrap_bytes: usize,
    /// The largest page of a list, at most 500.
    pub max_page_size: usize,
    /// The longest machine name that the cloud takes, in bytes; `None`: no bound known.
    pub max_name_length: Option<usize>,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            max_concurrent_mutations: 256,
            max_bootstrap_bytes: limits::MAX_BOOTSTRAP_BYTES,
            max_page_size: limits::MAX_PAGE_ITEMS,
            max_name_length: None,
        }
    }
}

/// How long things take with this provider; `None` leaves the protocol's own.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Timings {
    /// A mutation should be given this long.
    pub mutation_deadline: Option<Duration>,
    /// Exists should be given this long.
    pub exists_deadline: Option<Duration>,
    /// After a change, reads may show the old state for this long.
    pub read_after_write: Option<Duration>,
    /// How often to ask for a resource that is changing.
    pub poll_interval: Option<Duration>,
}

/// An entry of the credentials Secret.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CredentialKey {
    /// The name of the entry.
    pub name: String,
    /// Whether the provider can do without it.
    pub optional: bool,
    /// For people: what it is and where to get it.
    pub description: String,
}

impl CredentialKey {
    /// An entry without which no call is made.
    pub fn required(name: impl Into<String>, description: impl Into<String>) -> Self {
        Self {
            name: name.into(),
            optional: false,
            description: description.into(),
        }
    }

    /// An entry that may be missing.
    pub fn optional(name: impl Into<String>, description: impl Into<String>) -> Self {
        Self {
            optional: true,
            ..Self::required(name, description)
        }
    }
}
