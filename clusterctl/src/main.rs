//! `clusterctl`: a management plane from nothing, and views of what it does. Not
//! for: decisions about machines, which are the core's.

mod apply;
mod cli;
mod client;
mod describe;
mod up;
mod wait;

use std::process::ExitCode;

use clap::Parser as _;

fn main() -> ExitCode {
    // One crypto provider for the process; a second call would only say that it is there.
    let _ = rustls::crypto::ring::default_provider().install_default();
    // Bad flags end here with exit code 2 and one sentence.
    cli::Cli::parse().run()
}
