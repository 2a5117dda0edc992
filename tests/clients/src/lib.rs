//! Clients as people use them, unmodified, against the embedded API server: kubectl beside the
//! real kube-apiserver, so that what it prints can be compared, and the clients of other
//! languages and helm, whose own programs are in the folders beside this one.
//!
//! [`tools`] finds what `.ci/tools test` installed, [`process`] runs it, [`stage`] is the server
//! it runs against; [`script`] and [`text`] are kubectl's cases and how their output is compared.

pub mod process;
pub mod script;
pub mod stage;
pub mod text;
pub mod tools;
