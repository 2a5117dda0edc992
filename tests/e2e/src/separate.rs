//! A management plane as three processes of their own: an API server, the core and the
//! provider, so that each can be killed at any moment and started again.

use std::path::{Path, PathBuf};

use kube::Client;
use tempfile::TempDir;

use crate::audit::Audit;
use crate::binaries;
use crate::kubectl::Kubectl;
use crate::plane::{STARTUP, client};
use crate::process::Process;
use crate::provider::ProviderCommand;

/// API server, core and provider as processes of their own.
#[derive(Debug)]
pub struct Separate {
    folder: TempDir,
    binaries: PathBuf,
    commanded: ProviderCommand,
    core_flags: Vec<String>,
    api_server: Option<Process>,
    core: Option<Process>,
    provider: Option<Process>,
}

impl Separate {
    /// Starts the API server alone, for provider-fake; `settings` are environment variables of the provider.
    pub async fn start(settings: &[(&str, &str)]) -> anyhow::Result<Self> {
        Self::start_from(&binaries()?, settings).await
    }

    /// The same with the binaries of another folder.
    pub async fn start_from(binaries: &Path, settings: &[(&str, &str)]) -> anyhow::Result<Self> {
        Self::start_with(binaries, ProviderCommand::fake(binaries, settings)).await
    }

    /// The same for any provider.
    pub async fn start_with(binaries: &Path, provider: ProviderCommand) -> anyhow::Result<Self> {
        let _ = rustls::crypto::ring::default_provider().install_default();
        let folder = tempfile::Builder::new().prefix("or").tempdir()?;
        let mut api_server = Process::start(
            &binaries.join("clusterctl"),
            [
                "up",
                "--without-core",
                "--data-dir",
                &*folder.path().join("d").to_string_lossy(),
            ],
            &[],
            &folder.path().join("api-server.log"),
        )?;
        api_server.line("ready: ", STARTUP).await?;
        Ok(Self {
            folder,
            binaries: binaries.to_owned(),
            commanded: provider,
            core_flags: Vec::new(),
            api_server: Some(api_server),
            core: None,
            provider: None,
        })
    }

    /// Flags that the core is started with from now on.
    pub fn set_core_flags(&mut self, flags: &[&str]) {
        self.core_flags = flags.iter().map(|flag| (*flag).to_owned()).collect();
    }

    /// Starts the core, or starts it again.
    pub fn start_core(&mut self) -> anyhow::Result<()> {
        let kubeconfig = self.kubeconfig();
        let mut arguments = vec![
            "--kubeconfig".to_owned(),
            kubeconfig.to_string_lossy().into_owned(),
            "--provider".to_owned(),
            format!("{}={}", self.commanded.name, self.endpoint()),
            "--identity".to_owned(),
            "e2e".to_owned(),
        ];
        arguments.extend(self.core_flags.iter().cloned());
        self.core = Some(Process::start(
            &self.binaries.join("core-controller"),
            &arguments,
            &[],
            &self.folder.path().join("core.log"),
        )?);
        Ok(())
    }

    /// Starts the provider, or starts it again.
    pub fn start_provider(&mut self) -> anyhow::Result<()> {
        self.provider = Some(self.commanded.start(
            &self.endpoint(),
            &self.cloud(),
            &self.folder.path().join("provider.log"),
        )?);
        Ok(())
    }

    /// `kill -9` of the core.
    pub async fn kill_core(&mut self) -> anyhow::Result<()> {
        match self.core.take() {
            Some(mut core) => core.kill().await,
            None => Ok(()),
        }
    }

    /// `kill -9` of the provider.
    pub async fn kill_provider(&mut self) -> anyhow::Result<()> {
        match self.provider.take() {
            Some(mut provider) => provider.kill().await,
            None => Ok(()),
        }
    }

    /// The core's process, while it runs.
    pub fn core(&mut self) -> Option<&mut Process> {
        self.core.as_mut()
    }

    /// The provider's process, while it runs.
    pub fn provider(&mut self) -> Option<&mut Process> {
        self.provider.as_mut()
    }

    /// The API server's process.
    pub fn api_server(&mut self) -> Option<&mut Process> {
        self.api_server.as_mut()
    }

    /// Where the provider listens.
    pub fn endpoint(&self) -> String {
        format!("unix://{}", self.folder.path().join("p/actuator.sock").display())
    }

    /// The state folder of the simulated cloud.
    pub fn cloud(&self) -> PathBuf {
        self.folder.path().join("cloud")
    }

    /// The administrator's kubeconfig.
    pub fn kubeconfig(&self) -> PathBuf {
        self.folder.path().join("d/kubeconfig")
    }

    /// kubectl against this plane.
    pub fn kubectl(&self) -> Kubectl {
        Kubectl::new(&self.kubeconfig(), &self.folder.path().join("kubectl-cache"))
    }

    /// A client of this plane.
    pub async fn client(&self) -> anyhow::Result<Client> {
        client(&self.kubeconfig()).await
    }

    /// What the simulated cloud holds.
    pub async fn audit(&self) -> anyhow::Result<Audit> {
        Audit::of(&self.commanded, &self.cloud()).await
    }

    /// The logs of core and provider, for a test that failed.
    pub fn logs(&self) -> String {
        let tail = |name: &str| {
            let text = std::fs::read_to_string(self.folder.path().join(name)).unwrap_or_default();
            let lines: Vec<&str> = text.lines().collect();
            format!("== {name}\n{}\n", lines[lines.len().saturating_sub(60)..].join("\n"))
        };
        tail("core.log") + &tail("provider.log") + &tail("api-server.log")
    }
}
