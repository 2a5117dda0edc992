//! The differential test: one list of cases, each a sequence of HTTP requests, sent to the
//! embedded API server and to the real kube-apiserver, and every answer compared.
//!
//! A case is data (`cases/*.yaml`, read by [`case`]); [`run`] plays it against a
//! [`server::Server`] and records what came back; [`normal`] takes out what may differ
//! (uids, times, revisions); [`compare`] names what does differ, and [`differences`] holds
//! the short list of differences that stay, each with its reason.

pub mod case;
pub mod compare;
pub mod differences;
pub mod normal;
pub mod run;
pub mod server;
