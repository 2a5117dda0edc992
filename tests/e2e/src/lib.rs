//! What the tests across processes share: the real binaries as child processes in a
//! folder of their own ([`plane`], [`separate`], [`process`]), kubectl ([`kubectl`]), waiting for
//! events instead of sleeping ([`wait`]), a provider of any kind ([`provider`]) and the
//! judgement over its simulated cloud ([`audit`]). Not for: anything that links the code under test.

pub mod audit;
pub mod certificates;
pub mod kubectl;
pub mod manifests;
pub mod plane;
pub mod process;
pub mod provider;
pub mod separate;
pub mod wait;

use std::path::PathBuf;

use anyhow::Context as _;

/// The folder of the binaries under test: `E2E_BINARIES`, or the folder of the profile
/// that the tests themselves were built with.
pub fn binaries() -> anyhow::Result<PathBuf> {
    if let Some(folder) = std::env::var_os("E2E_BINARIES") {
        return Ok(PathBuf::from(folder));
    }
    let own = std::env::current_exe().context("failed to find the running test")?;
    own.ancestors()
        .find(|folder| folder.join("clusterctl").is_file())
        .map(PathBuf::from)
        .with_context(|| {
            format!(
                "no clusterctl above {}; run `make test`, or set E2E_BINARIES",
                own.display()
            )
        })
}
