//! The judgement over the simulated cloud: `provider-fake audit`, from the journal and
//! the ledger on disk, so it also works on the state of a provider that was killed.

use std::collections::BTreeMap;
use std::path::Path;
use std::process::Stdio;

use anyhow::{Context as _, ensure};
use serde::Deserialize;
use tokio::process::Command;

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
    /// Reads the state folder of a provider-fake.
    pub async fn of(state_dir: &Path) -> anyhow::Result<Self> {
        Self::read(&crate::binaries()?, state_dir).await
    }

    /// The same with the binaries of this folder.
    pub async fn read(binaries: &Path, state_dir: &Path) -> anyhow::Result<Self> {
        let output = Command::new(binaries.join("provider-fake"))
            .args(["audit", "--state-dir"])
            .arg(state_dir)
            .stdin(Stdio::null())
            .output()
            .await
            .context("failed to run provider-fake audit")?;
        // Exit code 1 says that there are duplicates or orphans; the report names them.
        serde_json::from_slice(&output.stdout).with_context(|| {
            format!(
                "provider-fake audit printed no report:\n{}{}",
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
