//! The loop: take an object from the queue, gather what is known of it, have it
//! planned, carry the plan out.
//!
//! Not for: deciding.

pub mod route;
