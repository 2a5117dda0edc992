//! The host against a scripted provider: a real server on a real socket that answers
//! whatever the test wants.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::match_wild_err_arm,
    clippy::unnecessary_wraps,
    missing_docs,
    clippy::missing_docs_in_private_items
)]

mod answers;
mod calls;
mod endpoints;
mod errors;
mod remote;
mod scripted;
mod sessions;
mod watch;
