//! Mutations: which may start, which joins, waits or is refused ([`order`], pure), what
//! is remembered about keys that are at rest ([`memory`], pure and bounded), and the
//! tasks that run them ([`executor`]).

pub(crate) mod executor;
pub(crate) mod memory;
pub(crate) mod order;
