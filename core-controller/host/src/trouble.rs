//! Why there is no connection to a provider: a state, a reason for the condition, and
//! one sentence.

use crate::snapshot::ProviderState;

/// Why there is no connection.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Trouble {
    /// Nobody answers, for now.
    Unreachable(String),
    /// The endpoint cannot be used as it is.
    Misconfigured(String),
    /// Somebody answers who cannot be used.
    Incompatible(String),
    /// There is no mutual TLS with who answers.
    Tls(TlsReason, String),
}

/// What is wrong with mutual TLS, as far as it has a name of its own.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum TlsReason {
    /// The core's own files are not there, damaged, or do not belong together.
    FilesUnusable,
    /// The provider's certificate has ended.
    ProviderExpired,
    /// The provider's certificate begins later.
    ProviderNotYetValid,
    /// None of the authorities vouches for the provider's certificate.
    ProviderUntrusted,
    /// The provider's certificate is good, for another name.
    ProviderNameMismatch,
    /// The provider's certificate cannot be used for another reason.
    ProviderInvalid,
    /// The provider does not take the core's certificate.
    CoreRefused,
    /// What answers does not speak TLS.
    NotSpoken,
    /// What answers speaks TLS and is asked without.
    Required,
    /// Both speak TLS and do not agree.
    Failed,
}

impl TlsReason {
    fn name(self) -> &'static str {
        match self {
            Self::FilesUnusable => "CertificateFilesUnusable",
            Self::ProviderExpired => "ProviderCertificateExpired",
            Self::ProviderNotYetValid => "ProviderCertificateNotYetValid",
            Self::ProviderUntrusted => "ProviderCertificateUntrusted",
            Self::ProviderNameMismatch => "ProviderNameMismatch",
            Self::ProviderInvalid => "ProviderCertificateInvalid",
            Self::CoreRefused => "CoreCertificateRefused",
            Self::NotSpoken => "TLSNotSpoken",
            Self::Required => "TLSRequired",
            Self::Failed => "TLSFailed",
        }
    }
}

impl Trouble {
    pub(crate) fn message(&self) -> &str {
        match self {
            Self::Unreachable(message)
            | Self::Misconfigured(message)
            | Self::Incompatible(message)
            | Self::Tls(_, message) => message,
        }
    }

    pub(crate) fn state(&self) -> ProviderState {
        match self {
            Self::Unreachable(_) => ProviderState::Unreachable,
            Self::Misconfigured(_) | Self::Tls(..) => ProviderState::Misconfigured,
            Self::Incompatible(_) => ProviderState::Incompatible,
        }
    }

    /// The reason of a condition, in CamelCase.
    pub(crate) fn reason(&self) -> &'static str {
        match self {
            Self::Tls(reason, _) => reason.name(),
            other => other.state().name(),
        }
    }
}
