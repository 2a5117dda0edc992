//! What every call carries besides its request.

use std::time::Duration;

use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use crate::credentials::Credentials;

/// What every call carries besides its request.
#[derive(Debug, Clone)]
pub struct CallContext {
    pub(crate) credentials: Credentials,
    pub(crate) deadline: Option<Instant>,
    pub(crate) shutdown: CancellationToken,
}

impl CallContext {
    /// How to reach the cloud as the user. Never store, log or answer them.
    pub fn credentials(&self) -> &Credentials {
        &self.credentials
    }

    /// When the caller stops waiting; `None`: he gave no deadline. A mutation goes on
    /// to a safe point all the same.
    pub fn deadline(&self) -> Option<Instant> {
        self.deadline
    }

    /// How long the caller still waits.
    pub fn remaining(&self) -> Option<Duration> {
        self.deadline
            .map(|deadline| deadline.saturating_duration_since(Instant::now()))
    }

    /// Cancelled when the server is asked to stop: come to a safe point soon.
    pub fn shutdown(&self) -> &CancellationToken {
        &self.shutdown
    }

    /// A context for tests of a provider without a server.
    #[must_use]
    pub fn for_tests(credentials: Credentials) -> Self {
        Self {
            credentials,
            deadline: None,
            shutdown: CancellationToken::new(),
        }
    }
}

/// What every mutation carries besides its request. It has everything of a
/// [`CallContext`] too.
#[derive(Debug, Clone)]
pub struct OperationContext {
    pub(crate) call: CallContext,
    pub(crate) key: String,
    pub(crate) generation: i64,
    pub(crate) fencing_epoch: i64,
    pub(crate) attempt: i32,
}

impl OperationContext {
    /// The idempotency key: 1 to 64 of `[A-Za-z0-9._-]`. It fits an EC2 ClientToken.
    pub fn key(&self) -> &str {
        &self.key
    }

    /// The key as a UUID (version 5), for clouds that take a UUID as their token. The
    /// same key gives the same UUID in every process.
    pub fn key_uuid(&self) -> uuid::Uuid {
        uuid::Uuid::new_v5(&uuid::Uuid::NAMESPACE_OID, self.key.as_bytes())
    }

    /// The generation of the object that the request was made from. Older ones than
    /// the newest seen are refused before they get here.
    pub fn generation(&self) -> i64 {
        self.generation
    }

    /// The fencing epoch of the caller; 0: he does not fence.
    pub fn fencing_epoch(&self) -> i64 {
        self.fencing_epoch
    }

    /// The number of this try, from 1; for logs only.
    pub fn attempt(&self) -> i32 {
        self.attempt
    }

    /// A context for tests of a provider without a server.
    #[must_use]
    pub fn for_tests(key: impl Into<String>, generation: i64, credentials: Credentials) -> Self {
        Self {
            call: CallContext::for_tests(credentials),
            key: key.into(),
            generation,
            fencing_epoch: 0,
            attempt: 1,
        }
    }
}

impl std::ops::Deref for OperationContext {
    type Target = CallContext;

    fn deref(&self) -> &CallContext {
        &self.call
    }
}
