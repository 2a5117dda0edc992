//! A provider that panics and spills secrets when it is told to: for the tests across
//! processes. Not for: learning from it (see `minimal`).

#![allow(clippy::expect_used, clippy::panic, clippy::unnecessary_wraps, clippy::manual_assert)] // a test may panic

#[path = "../tests/support/mod.rs"]
mod support;

use std::process::ExitCode;
use std::sync::Arc;

use provider_sdk::v1::ErrorReason;
use provider_sdk::{ActuatorError, Program, Setup};
use support::{Behaviour, Cloud, SENTINEL, TestProvider};

#[derive(Debug, clap::Args)]
struct Flags {
    /// Panic when this key is created
    #[arg(long)]
    panic_on: Option<String>,
    /// Fail with a secret in every word when this key is created
    #[arg(long)]
    spill_on: Option<String>,
}

fn main() -> ExitCode {
    let program = Program::new("provider-misbehaving", "0.0.1", "A provider for tests")
        .with_examples("Examples:\n  provider-misbehaving --panic-on key");
    provider_sdk::run(program, |flags: Flags| async move {
        let cloud = Arc::new(Cloud::default());
        if let Some(key) = flags.panic_on {
            cloud.behave(&key, Behaviour::Panic);
        }
        if let Some(key) = flags.spill_on {
            let error = ActuatorError::new(ErrorReason::CredentialsInvalid, format!("{SENTINEL} is no token"));
            cloud.behave(&key, Behaviour::Fail(error.with_field(SENTINEL, SENTINEL)));
        }
        Ok::<_, ActuatorError>(Setup::new(TestProvider(cloud)))
    })
}
