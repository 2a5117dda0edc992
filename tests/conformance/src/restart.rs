//! Kills the provider and starts it again, by the hook that the config names or the one
//! that a test gives.

use std::fmt;
use std::future::Future;
use std::pin::Pin;
use std::process::Stdio;
use std::sync::Arc;

use anyhow::{Context as _, ensure};

use crate::config;

type Restarting = Pin<Box<dyn Future<Output = anyhow::Result<()>> + Send>>;

/// How the provider is restarted.
#[derive(Clone)]
pub struct Hook(Arc<dyn Fn() -> Restarting + Send + Sync>);

impl fmt::Debug for Hook {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str("a restart hook")
    }
}

impl Hook {
    /// Restarts with a function: it kills the provider without warning, starts it again on
    /// the same state, and ends when that is done.
    pub fn new<F>(restart: impl Fn() -> F + Send + Sync + 'static) -> Self
    where
        F: Future<Output = anyhow::Result<()>> + Send + 'static,
    {
        Self(Arc::new(move || Box::pin(restart())))
    }

    /// Restarts with a command.
    pub fn command(restart: &config::Restart) -> anyhow::Result<Self> {
        let (program, arguments) = restart
            .command
            .split_first()
            .context("restart.command is empty; name a program and its arguments")?;
        let (program, arguments) = (program.clone(), arguments.to_vec());
        Ok(Self::new(move || {
            let mut command = tokio::process::Command::new(&program);
            command.args(&arguments).stdin(Stdio::null()).kill_on_drop(true);
            let program = program.clone();
            async move {
                let status = command
                    .status()
                    .await
                    .with_context(|| format!("failed to run the restart command {program}"))?;
                ensure!(status.success(), "the restart command {program} ended with {status}");
                Ok(())
            }
        }))
    }

    /// Restarts the provider.
    pub async fn restart(&self) -> anyhow::Result<()> {
        (self.0)().await
    }
}
