//! Machines and clusters on Amazon EC2, behind the actuator protocol.
//!
//! Where things are: [`client`] speaks to AWS, [`ec2`] says what is said there, [`errors`]
//! what its errors mean; [`config`] is what a user writes; [`machine`] and [`cluster`]
//! decide, without I/O, and [`provider`] acts.

pub mod client;
pub mod cluster;
pub mod config;
pub mod describes;
pub mod ec2;
pub mod errors;
pub mod ids;
pub mod machine;
pub mod provider;
pub mod recent;
pub mod tags;
