//! What can be seen from outside: one span and one log line for each call ([`calls`]),
//! metrics ([`metrics`]), where spans and lines go ([`setup`]).

pub(crate) mod calls;
pub(crate) mod metrics;
pub(crate) mod setup;
