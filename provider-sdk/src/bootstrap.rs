//! Bootstrap data as provider code gets it: never printed.

use std::fmt;

use actuator_proto::{Redacted, v1};
use bytes::Bytes;

/// What a new machine runs at its first boot. A secret: `Debug` prints its size only.
#[derive(Clone)]
pub struct Bootstrap {
    data: Bytes,
    format: v1::BootstrapFormat,
}

impl Bootstrap {
    /// Bootstrap data of this format.
    pub fn new(data: impl Into<Bytes>, format: v1::BootstrapFormat) -> Self {
        Self {
            data: data.into(),
            format,
        }
    }

    /// The data itself, within `Limits::max_bootstrap_bytes`. Never store it in
    /// `provider_state`, log or answer it.
    pub fn data(&self) -> &[u8] {
        &self.data
    }

    /// What kind of data it is: one of `ProviderInfo::bootstrap_formats`, or
    /// unspecified.
    pub fn format(&self) -> v1::BootstrapFormat {
        self.format
    }
}

impl fmt::Debug for Bootstrap {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Bootstrap")
            .field("data", &Redacted)
            .field("bytes", &self.data.len())
            .field("format", &self.format)
            .finish()
    }
}
