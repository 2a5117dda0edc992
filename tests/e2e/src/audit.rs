//! The judgement over a simulated cloud: what a provider's audit command says, from what is
//! on disk, so it also works on the state of a provider that was killed.

use std::collections::BTreeMap;
use std::path::Path;
use std::process::Stdio;

use anyhow::{Context as _, ensure};
use serde::Deserialize;
use tokio::process::Command;

use crate::provider::ProviderCommand;

/// What the simulated cloud holds and how it came to be.
#[derive(Debug, Clone, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Audit {
    /// Live instances, by idempotency key.
    pub instances: BTreeMap<String, Vec<serde_json::Value>>,
    /// Keys with more than one live instance, or for which more than one was ever made.
    pub duplicates: Vec<serde_json::Value>,
    /// Artefacts whose owner is gone.
    pub orphans: Vec<serde_json::Value>,
}

impl Audit {
    /// Audits the state folder of a provider.
    pub async fn of(provider: &ProviderCommand, state_dir: &Path) -> anyhow::Result<Self> {
        let name = &provider.name;
        let (program, arguments) = provider
            .audit
            .split_first()
            .with_context(|| format!("the provider {name} has no audit"))?;
        let output = Command::new(program)
            .args(arguments)
            .arg(state_dir)
            .stdin(Stdio::null())
            .kill_on_drop(true)
            .output()
            .await
            .with_context(|| format!("failed to run the audit of {name}"))?;
        // Exit code 1 says that there are duplicates or orphans; the report names them.
        serde_json::from_slice(&output.stdout).with_context(|| {
            format!(
                "the audit of {name} printed no report:\n{}{}",
                String::from_utf8_lossy(&output.stdout),
                String::from_utf8_lossy(&output.stderr)
            )
        })
    }

    /// Nothing was made twice and nothing was left behind.
    pub fn clean(&self) -> anyhow::Result<()> {
        ensure!(
            self.duplicates.is_empty(),
            "there are duplicates: {:#?}",
            self.duplicates
        );
        ensure!(self.orphans.is_empty(), "there are orphans: {:#?}", self.orphans);
        Ok(())
    }

    /// The live instances are exactly those with these keys, one each.
    pub fn exactly(&self, keys: &[String]) -> anyhow::Result<()> {
        let mut expected = keys.to_vec();
        expected.sort();
        let found: Vec<String> = self.instances.keys().cloned().collect();
        ensure!(
            found == expected,
            "the cloud has instances for {found:?}, the Machines are {expected:?}"
        );
        for (key, instances) in &self.instances {
            ensure!(instances.len() == 1, "key {key} has {} instances", instances.len());
        }
        Ok(())
    }
}
