//! Pure decisions: what was observed in, what to do out. One module per kind.
//! Not for: clocks, clients, gRPC or threads; the crate depends on none of them.

pub mod event;
