//! Objects that nest thousands of levels deep, as JSON may: walking them needs more stack than threads have.
//!
//! Normal requests pay one look at a flag. Once something deep is met, the flag is up for good, and from then on all work
//! is done on large stacks (address space: only what is touched is memory). Whoever still works on a small one at that
//! very moment is refused, never overflown.

use std::pin::Pin;
use std::sync::atomic::{AtomicBool, Ordering};
use std::task::{Context, Poll};

use serde_json::Value;

use crate::schema::{DecodeError, decode_strict};

/// How deeply objects and lists may be nested: as in `encoding/json`.
pub const MAX_DEPTH: usize = 10_000;
/// What every stack carries.
const USUAL_DEPTH: usize = 100;
/// A large stack, in bytes.
const LARGE: usize = 512 << 20;
/// What the deepest object needs, in bytes.
const NEEDED: usize = 256 << 20;

static MET: AtomicBool = AtomicBool::new(false);

/// Whether the present stack carries the deepest object.
fn stack_is_large() -> bool {
    stacker::remaining_stack().is_some_and(|left| left >= NEEDED)
}

/// How deeply an object may be nested for the present stack.
pub fn limit() -> usize {
    if stack_is_large() { MAX_DEPTH } else { USUAL_DEPTH }
}

/// Does the work on a stack that carries everything there may be.
pub fn carry<R>(work: impl FnOnce() -> R) -> R {
    if MET.load(Ordering::Relaxed) {
        stacker::maybe_grow(NEEDED, LARGE, work)
    } else {
        work()
    }
}

/// Looks at JSON, or at YAML, that is about to be read or was made: from now on, deep ones are reckoned with.
pub fn look(text: &[u8]) {
    if !MET.load(Ordering::Relaxed) && (depth_of(text) > USUAL_DEPTH || indentation_of(text) > USUAL_DEPTH) {
        MET.store(true, Ordering::Relaxed);
    }
}

/// How deep the brackets are nested, but for those in strings.
fn depth_of(text: &[u8]) -> usize {
    let (mut depth, mut deepest) = (0_usize, 0);
    let mut bytes = text.iter();
    while let Some(byte) = bytes.next() {
        match byte {
            b'{' | b'[' => {
                depth += 1;
                deepest = deepest.max(depth);
            }
            b'}' | b']' => depth = depth.saturating_sub(1),
            b'"' => {
                while let Some(byte) = bytes.next() {
                    match byte {
                        b'"' => break,
                        b'\\' => drop(bytes.next()),
                        _ => {}
                    }
                }
            }
            _ => {}
        }
    }
    deepest
}

/// The longest run of spaces and dashes: YAML nests by them.
fn indentation_of(text: &[u8]) -> usize {
    let runs = text.split(|byte| !matches!(byte, b' ' | b'-' | b'?' | b':'));
    runs.map(<[u8]>::len).max().unwrap_or(0)
}

/// Reads stored JSON.
pub fn parse(bytes: &[u8]) -> Result<Value, DecodeError> {
    match serde_json::from_slice(bytes) {
        Ok(value) => Ok(value),
        // Nested more deeply than that reader reads.
        Err(_) => {
            look(bytes);
            decode_strict(bytes).map(|(value, _)| value)
        }
    }
}

/// A future that is polled, and dropped, on a stack that carries what it holds.
#[derive(Debug)]
pub struct Carried<F>(Option<Pin<Box<F>>>);

impl<F: Future> Carried<F> {
    /// Wraps a future.
    pub fn new(future: F) -> Self {
        Self(Some(Box::pin(future)))
    }
}

impl<F: Future> Future for Carried<F> {
    type Output = F::Output;

    fn poll(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<F::Output> {
        match &mut self.0 {
            Some(future) => carry(|| future.as_mut().poll(context)),
            None => Poll::Pending,
        }
    }
}

impl<F> Drop for Carried<F> {
    fn drop(&mut self) {
        let future = self.0.take();
        carry(|| drop(future));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn depth_counts_brackets_but_not_those_in_strings() {
        assert_eq!(depth_of(b"1"), 0);
        assert_eq!(depth_of(br#"{"a":[[1],[2]],"b":"[[[[\"[["}"#), 3);
        assert_eq!(depth_of(b"]]]["), 1);
        assert_eq!(indentation_of(b"a:\n  b:\n  - - c"), 6);
    }

    #[test]
    fn the_deepest_objects_are_read_and_dropped_on_large_stacks_only() {
        let deep = |levels: usize| "[".repeat(levels) + &"]".repeat(levels);
        assert!(parse(deep(USUAL_DEPTH).as_bytes()).is_ok());
        let deepest = deep(MAX_DEPTH);
        // The first time, the stack is small still.
        assert_eq!(parse(deepest.as_bytes()), Err(DecodeError::TooDeep));
        carry(|| {
            let value = parse(deepest.as_bytes()).unwrap();
            assert_eq!(value.clone(), value);
            assert_eq!(serde_json::to_string(&value).unwrap(), deepest);
            let error = parse(deep(MAX_DEPTH + 1).as_bytes()).unwrap_err();
            assert_eq!(error.to_string(), "invalid character '[' exceeded max depth");
        });
    }

    #[tokio::test]
    async fn a_future_holds_deep_values_until_it_is_dropped() {
        let deepest = "[".repeat(MAX_DEPTH) + &"]".repeat(MAX_DEPTH);
        look(deepest.as_bytes());
        let mut held = Carried::new(async {
            let value = parse(deepest.as_bytes()).unwrap();
            std::future::pending::<()>().await;
            drop(value);
        });
        assert!(futures::poll!(&mut held).is_pending());
        drop(held);
    }
}
