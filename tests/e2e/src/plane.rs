//! A whole management plane in a folder of its own: `clusterctl up` with provider-fake,
//! or API server, core and provider as three processes that can be killed one by one.

use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::Context as _;
use kube::config::{KubeConfigOptions, Kubeconfig};
use kube::{Client, Config};
use tempfile::TempDir;

use crate::audit::Audit;
use crate::binaries;
use crate::kubectl::Kubectl;
use crate::process::Process;
use crate::provider::ProviderCommand;

/// How long a process of the plane may take to serve; generous, because machines of CI are slow.
pub const STARTUP: Duration = Duration::from_mins(1);
/// How long a process may take to end in peace.
pub const SHUTDOWN: Duration = Duration::from_secs(30);

/// `clusterctl up` in a folder of its own.
#[derive(Debug)]
pub struct Plane {
    folder: TempDir,
    environment: Vec<(String, String)>,
    flags: Vec<String>,
    clusterctl: Option<Process>,
}

impl Plane {
    /// Starts `clusterctl up --provider fake`; `settings` are environment variables of the
    /// provider, such as `("PROVIDER_FAKE_BOOT_DELAY", "1s")`.
    pub async fn start(settings: &[(&str, &str)]) -> anyhow::Result<Self> {
        Self::start_with(&["--provider", "fake"], settings).await
    }

    /// The same with other flags.
    pub async fn start_with(flags: &[&str], settings: &[(&str, &str)]) -> anyhow::Result<Self> {
        let _ = rustls::crypto::ring::default_provider().install_default();
        let mut plane = Self {
            folder: tempfile::Builder::new().prefix("or").tempdir()?,
            environment: settings
                .iter()
                .map(|(name, value)| ((*name).to_owned(), (*value).to_owned()))
                .collect(),
            flags: flags.iter().map(|flag| (*flag).to_owned()).collect(),
            clusterctl: None,
        };
        plane.up().await?;
        Ok(plane)
    }

    /// Starts `clusterctl up` again on the same folder.
    pub async fn up(&mut self) -> anyhow::Result<()> {
        let mut arguments = vec![
            "up".to_owned(),
            "--data-dir".to_owned(),
            self.data_dir().to_string_lossy().into_owned(),
        ];
        arguments.extend(self.flags.iter().cloned());
        let mut clusterctl = Process::start(
            &binaries()?.join("clusterctl"),
            &arguments,
            &self.environment,
            &self.folder.path().join("clusterctl.log"),
        )?;
        clusterctl.line("ready: ", STARTUP).await?;
        self.clusterctl = Some(clusterctl);
        Ok(())
    }

    /// The folder that the test may use as it likes.
    pub fn folder(&self) -> &Path {
        self.folder.path()
    }

    /// The data folder of clusterctl.
    pub fn data_dir(&self) -> PathBuf {
        self.folder.path().join("d")
    }

    /// The kubeconfig that clusterctl wrote.
    pub fn kubeconfig(&self) -> PathBuf {
        self.data_dir().join("kubeconfig")
    }

    /// The state folder of the simulated cloud.
    pub fn cloud(&self) -> PathBuf {
        self.data_dir().join("providers/fake")
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
        Audit::of(&ProviderCommand::fake(&binaries()?, &[]), &self.cloud()).await
    }

    /// The process itself.
    pub fn clusterctl(&mut self) -> anyhow::Result<&mut Process> {
        self.clusterctl.as_mut().context("clusterctl is not running")
    }

    /// The process id of the provider, from the file that clusterctl keeps.
    pub fn provider_id(&self) -> Option<i32> {
        std::fs::read_to_string(self.cloud().join("pid"))
            .ok()?
            .trim()
            .parse()
            .ok()
    }

    /// Runs `clusterctl` with this plane's kubeconfig; returns standard output.
    pub async fn ctl(&self, arguments: &[&str]) -> anyhow::Result<String> {
        let output = tokio::process::Command::new(binaries()?.join("clusterctl"))
            .args(arguments)
            .env("KUBECONFIG", self.kubeconfig())
            .kill_on_drop(true)
            .output()
            .await?;
        anyhow::ensure!(
            output.status.success(),
            "clusterctl {} failed with {}: {}",
            arguments.join(" "),
            output.status,
            String::from_utf8_lossy(&output.stderr)
        );
        Ok(String::from_utf8_lossy(&output.stdout).into_owned())
    }

    /// Stops in peace, and checks that clusterctl exits with 0.
    pub async fn stop(&mut self) -> anyhow::Result<()> {
        let mut clusterctl = self.clusterctl.take().context("clusterctl is not running")?;
        let status = clusterctl.terminate(SHUTDOWN).await?;
        anyhow::ensure!(
            status.success(),
            "clusterctl ended with {status}:\n{}",
            clusterctl.output()
        );
        Ok(())
    }

    /// `kill -9` of clusterctl; the provider is left behind, as after a crash.
    pub async fn kill(&mut self) -> anyhow::Result<()> {
        self.clusterctl
            .take()
            .context("clusterctl is not running")?
            .kill()
            .await
    }
}

impl Drop for Plane {
    /// A provider that a killed clusterctl left behind must not outlive the test.
    fn drop(&mut self) {
        if let Some(mut clusterctl) = self.clusterctl.take()
            && clusterctl.is_running()
        {
            // Dropping kills clusterctl; its provider is ended below.
            drop(clusterctl);
        }
        if let Some(pid) = self.provider_id() {
            let command_line = std::fs::read(format!("/proc/{pid}/cmdline")).unwrap_or_default();
            if String::from_utf8_lossy(&command_line).contains(&*self.folder.path().to_string_lossy()) {
                let _ = nix::sys::signal::kill(nix::unistd::Pid::from_raw(pid), nix::sys::signal::Signal::SIGKILL);
            }
        }
    }
}

/// A client for a kubeconfig.
pub async fn client(kubeconfig: &Path) -> anyhow::Result<Client> {
    let kubeconfig = Kubeconfig::read_from(kubeconfig)?;
    let config = Config::from_custom_kubeconfig(kubeconfig, &KubeConfigOptions::default()).await?;
    Ok(Client::try_from(config)?)
}
