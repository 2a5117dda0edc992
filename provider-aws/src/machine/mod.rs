//! Decisions about machines, from what was observed to what is to be done. Pure: the
//! provider observes and acts.

pub mod launch;
pub mod plan;
pub mod status;
pub mod user_data;
