//! The error of a call: what the provider or the transport said, and what the caller
//! does about it.

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use actuator_proto::errors::table::code_name;
use actuator_proto::errors::{Classified, Recovery};
use actuator_proto::limits::{MAX_ERROR_MESSAGE_BYTES, bounded_line};
use actuator_proto::v1::{Effect, ErrorReason};
use tonic::{Code, Status};

use crate::backoff::MAX_WAIT;
use crate::disposition::{self, Disposition, Facts, Refusal};
use crate::rpc::Rpc;

/// A failed call.
#[derive(Debug, Clone)]
pub struct CallError {
    /// What the provider, the transport or the host said; bounded and clean.
    pub classified: Box<Classified>,
    /// The provider that was called.
    pub provider: Arc<str>,
    /// What the host knows besides.
    pub facts: Facts,
    /// The connection that it was sent over.
    pub(crate) connection: Option<u64>,
    /// No wait after it is longer than this.
    pub(crate) max_wait: Duration,
}

impl CallError {
    /// What to do. `failures` counts the failures in a row of this operation on this
    /// object, this one included.
    pub fn disposition(&self, failures: u32) -> Disposition {
        self.disposition_with(failures, rand::random())
    }

    /// The same with a random number in 0..1 given.
    pub fn disposition_with(&self, failures: u32, random: f64) -> Disposition {
        disposition::resolve(&self.classified, self.facts, failures, random).at_most(self.max_wait)
    }

    /// The back-off after so many failures in a row, where the disposition gives no time.
    pub fn backoff(&self, failures: u32) -> Duration {
        crate::backoff::backoff(failures, rand::random()).min(self.max_wait)
    }

    /// Whether nothing has changed, for sure: the provider said so, or nothing was sent.
    pub fn changed_nothing(&self) -> bool {
        self.facts.refusal.is_some() || self.classified.effect == Effect::None || !self.facts.rpc.is_mutation()
    }

    /// A word for conditions and metrics: the registered reason, else the code.
    pub fn reason(&self) -> &'static str {
        match (self.facts.refusal, self.classified.reason) {
            (Some(refusal), _) => refusal.name(),
            (None, Some(reason)) => reason.wire_name(),
            (None, None) => code_name(self.classified.code),
        }
    }

    pub(crate) fn from_status(provider: &Arc<str>, rpc: Rpc, status: &Status) -> Self {
        Self {
            classified: Box::new(Classified::from_status(status)),
            provider: provider.clone(),
            facts: Facts {
                rpc,
                refusal: None,
                closed_for: None,
            },
            connection: None,
            max_wait: MAX_WAIT,
        }
    }

    pub(crate) fn refused(
        provider: &Arc<str>,
        rpc: Rpc,
        refusal: Refusal,
        closed_for: Option<Duration>,
        message: &str,
    ) -> Self {
        let (code, recovery) = match refusal {
            Refusal::Unavailable => (Code::Unavailable, Recovery::Break),
            Refusal::Paused => (Code::ResourceExhausted, Recovery::Throttle),
            Refusal::Busy => (Code::ResourceExhausted, Recovery::Retry),
            Refusal::CapabilityMissing => (Code::Unimplemented, Recovery::Fallback),
        };
        Self {
            classified: Box::new(local(code, None, Effect::None, recovery, message)),
            provider: provider.clone(),
            facts: Facts {
                rpc,
                refusal: Some(refusal),
                closed_for,
            },
            connection: None,
            max_wait: MAX_WAIT,
        }
    }

    /// The request is larger than the protocol allows; nothing was sent.
    pub(crate) fn too_large(provider: &Arc<str>, rpc: Rpc, message: &str) -> Self {
        let reason = ErrorReason::LimitExceeded;
        let mut error = Self::local(provider, rpc, Code::InvalidArgument, reason, Recovery::Hold, message);
        error.classified.effect = Effect::None;
        error
    }

    /// The provider answered OK with something that the contract rules out.
    pub(crate) fn defect(provider: &Arc<str>, rpc: Rpc, message: &str) -> Self {
        let recovery = Recovery::ResolveThenRetry { slow_after: Some(5) };
        Self::local(
            provider,
            rpc,
            Code::Internal,
            ErrorReason::ProviderBug,
            recovery,
            message,
        )
    }

    /// What the provider answers contradicts what it answered before.
    pub(crate) fn inconsistent(provider: &Arc<str>, rpc: Rpc, message: &str) -> Self {
        let reason = ErrorReason::StateInconsistent;
        Self::local(provider, rpc, Code::DataLoss, reason, Recovery::Escalate, message)
    }

    fn local(
        provider: &Arc<str>,
        rpc: Rpc,
        code: Code,
        reason: ErrorReason,
        recovery: Recovery,
        message: &str,
    ) -> Self {
        Self {
            classified: Box::new(local(code, Some(reason), Effect::Unknown, recovery, message)),
            provider: provider.clone(),
            facts: Facts {
                rpc,
                refusal: None,
                closed_for: None,
            },
            connection: None,
            max_wait: MAX_WAIT,
        }
    }
}

fn local(code: Code, reason: Option<ErrorReason>, effect: Effect, recovery: Recovery, message: &str) -> Classified {
    Classified {
        code,
        reason,
        reason_text: reason.map(|reason| reason.wire_name().to_owned()).unwrap_or_default(),
        from_provider: false,
        effect,
        provider_id: None,
        message: bounded_line(message, MAX_ERROR_MESSAGE_BYTES),
        cloud_code: None,
        cloud_request_id: None,
        retry_after: None,
        fields: Vec::new(),
        recovery,
    }
}

impl fmt::Display for CallError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let rpc = self.facts.rpc.name();
        write!(f, "{rpc} of provider {}: {}", self.provider, self.reason())?;
        if !self.classified.message.is_empty() {
            write!(f, ": {}", self.classified.message)?;
        }
        if let Some(code) = &self.classified.cloud_code {
            write!(f, " ({code})")?;
        }
        Ok(())
    }
}

impl std::error::Error for CallError {}
