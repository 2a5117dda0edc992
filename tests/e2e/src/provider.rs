//! A provider as the tests start it: what every provider promises clusterctl
//! (`docs/decisions/0004`), and a second command that audits its simulated cloud.

use std::ffi::OsString;
use std::path::Path;

use anyhow::Context as _;

use crate::process::Process;

/// How a provider is started, and how its simulated cloud is audited.
#[derive(Debug, Clone)]
pub struct ProviderCommand {
    /// The provider's name, as `--provider NAME=ENDPOINT` and `spec.provider` have it.
    pub name: String,
    /// Program and arguments. `--listen ENDPOINT` is added, and the environment variable
    /// `ACTUATOR_STATE_DIR` names the folder in which the state is kept.
    pub serve: Vec<OsString>,
    /// Program and arguments of the audit. The state folder is added as the last argument;
    /// what it prints is an [`crate::audit::Audit`] as JSON.
    pub audit: Vec<OsString>,
    /// Further environment variables.
    pub settings: Vec<(String, String)>,
}

impl ProviderCommand {
    /// provider-fake, from this folder of binaries, with its control service.
    pub fn fake(binaries: &Path, settings: &[(&str, &str)]) -> Self {
        let program = binaries.join("provider-fake").into_os_string();
        Self {
            name: "fake".to_owned(),
            serve: vec![program.clone(), "--control".into()],
            audit: vec![program, "audit".into(), "--state-dir".into()],
            settings: settings
                .iter()
                .map(|(name, value)| ((*name).to_owned(), (*value).to_owned()))
                .collect(),
        }
    }

    /// Starts it on what is in the state folder.
    pub fn start(&self, endpoint: &str, state_dir: &Path, log: &Path) -> anyhow::Result<Process> {
        let (program, arguments) = self.serve.split_first().context("the provider has no program")?;
        let mut environment = self.settings.clone();
        environment.push((
            "ACTUATOR_STATE_DIR".to_owned(),
            state_dir.to_string_lossy().into_owned(),
        ));
        let listen = ["--listen".into(), endpoint.into()];
        Process::start(program.as_ref(), arguments.iter().chain(&listen), &environment, log)
    }
}
