//! What provider code answers.

use std::time::Duration;

use actuator_proto::limits::MAX_PAGE_BYTES;
use actuator_proto::v1;
use prost::Message;

/// How far a deletion is.
#[derive(Debug, Clone, PartialEq)]
pub enum Deletion {
    /// No artefact with this key is left, disks and addresses included. Also the answer
    /// for what was never there.
    Gone,
    /// Accepted; ask again.
    InProgress {
        /// What it waits for, for people.
        message: String,
        /// Ask again after this long; `None` leaves it to the core.
        poll_after: Option<Duration>,
        /// What is left.
        remaining: Vec<v1::Artefact>,
    },
}

impl Deletion {
    /// Accepted; waits for `message`.
    pub fn in_progress(message: impl Into<String>) -> Self {
        Self::InProgress {
            message: message.into(),
            poll_after: None,
            remaining: Vec::new(),
        }
    }
}

/// Whether a resource is there.
#[derive(Debug, Clone, PartialEq)]
pub enum Existence<S> {
    /// Nothing with this key is in the cloud, and the provider is sure.
    Absent,
    /// It is there.
    Present(S),
    /// It is being deleted and is not gone yet.
    Terminating(S),
}

/// One page of a list.
#[derive(Debug, Clone, PartialEq)]
pub struct Page<T> {
    /// At most as many as asked for, at most 1 MiB.
    pub items: Vec<T>,
    /// For the next page; `None` on the last.
    pub next_page_token: Option<String>,
}

/// Fills a page until it is full, by number or by bytes.
#[derive(Debug)]
pub struct PageBuilder<T> {
    items: Vec<T>,
    size: usize,
    bytes: usize,
}

impl<T: Message> PageBuilder<T> {
    /// An empty page of at most `size` items.
    pub fn new(size: usize) -> Self {
        Self {
            items: Vec::new(),
            size,
            bytes: 0,
        }
    }

    /// Puts the item on the page, or gives it back when the page is full: it is then
    /// the first of the next page. An empty page takes any item.
    pub fn push(&mut self, item: T) -> Result<(), T> {
        // Beside the item itself: its tag and its length, and room for the page token.
        const OVERHEAD: usize = 8;
        const TOKEN: usize = 1024;
        let bytes = item.encoded_len() + OVERHEAD;
        let full = self.items.len() >= self.size || self.bytes + bytes > MAX_PAGE_BYTES - TOKEN;
        if full && !self.items.is_empty() {
            return Err(item);
        }
        self.bytes += bytes;
        self.items.push(item);
        Ok(())
    }

    /// The page.
    pub fn finish(self, next_page_token: Option<String>) -> Page<T> {
        Page {
            items: self.items,
            next_page_token,
        }
    }
}

/// Whether a provider can work.
#[derive(Debug, Clone, PartialEq)]
pub struct Probe {
    /// The verdict.
    pub readiness: v1::Readiness,
    /// What it rests on.
    pub checks: Vec<v1::ProbeCheck>,
}

impl Probe {
    /// It can.
    pub fn ready() -> Self {
        Self {
            readiness: v1::Readiness::Ready,
            checks: Vec::new(),
        }
    }

    /// One more thing that was looked at; an unhealthy one makes a ready provider
    /// degraded.
    #[must_use]
    pub fn with_check(mut self, name: impl Into<String>, healthy: bool, message: impl Into<String>) -> Self {
        if !healthy && self.readiness == v1::Readiness::Ready {
            self.readiness = v1::Readiness::Degraded;
        }
        self.checks.push(v1::ProbeCheck {
            name: name.into(),
            healthy,
            message: message.into(),
        });
        self
    }
}

/// One thing found in a config.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Diagnostic {
    /// How bad it is.
    pub severity: v1::Severity,
    /// Where, as a JSON pointer (RFC 6901); empty for the whole.
    pub pointer: String,
    /// What is wrong and what is allowed, for people.
    pub message: String,
    /// Whether this change cannot be made in place.
    pub requires_replacement: bool,
}

impl Diagnostic {
    /// The config will be refused.
    pub fn error(pointer: impl Into<String>, message: impl Into<String>) -> Self {
        Self {
            severity: v1::Severity::Error,
            pointer: pointer.into(),
            message: message.into(),
            requires_replacement: false,
        }
    }

    /// It will work, and probably not as meant.
    pub fn warning(pointer: impl Into<String>, message: impl Into<String>) -> Self {
        Self {
            severity: v1::Severity::Warning,
            ..Self::error(pointer, message)
        }
    }

    /// A change that cannot be made in place: allowed, and the machine is replaced.
    pub fn replacement(pointer: impl Into<String>, message: impl Into<String>) -> Self {
        Self {
            requires_replacement: true,
            ..Self::warning(pointer, message)
        }
    }

    /// Whether the config is refused for it.
    pub fn is_error(&self) -> bool {
        self.severity != v1::Severity::Warning
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn item(bytes: usize) -> v1::ListedMachine {
        v1::ListedMachine {
            idempotency_key: "k".repeat(bytes),
            ..Default::default()
        }
    }

    #[test]
    fn a_page_is_full_by_number_or_by_bytes() {
        let mut page = PageBuilder::new(2);
        assert!(page.push(item(1)).is_ok());
        assert!(page.push(item(1)).is_ok());
        assert!(page.push(item(1)).is_err());

        let mut page = PageBuilder::new(500);
        let mut pushed = 0;
        while page.push(item(10_000)).is_ok() {
            pushed += 1;
        }
        let page = page.finish(Some("next".into()));
        assert_eq!(page.items.len(), pushed);
        let response = v1::ListMachinesResponse {
            machines: page.items,
            next_page_token: "t".repeat(256),
        };
        assert!(response.encoded_len() <= MAX_PAGE_BYTES);
        assert!(response.encoded_len() > MAX_PAGE_BYTES - 20_000);
    }

    #[test]
    fn an_unhealthy_check_degrades() {
        assert_eq!(
            Probe::ready().with_check("ledger", true, "").readiness,
            v1::Readiness::Ready
        );
        assert_eq!(
            Probe::ready().with_check("ledger", false, "full").readiness,
            v1::Readiness::Degraded
        );
    }
}
