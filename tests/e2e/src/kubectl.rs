//! The real kubectl against one kubeconfig.

use std::path::{Path, PathBuf};
use std::process::{Output, Stdio};
use std::time::Duration;

use anyhow::{Context as _, bail};
use tokio::io::AsyncWriteExt as _;
use tokio::process::Command;

/// No single kubectl call of a test takes longer.
const CALL_TIMEOUT: Duration = Duration::from_mins(2);

/// kubectl with a kubeconfig and a cache folder of its own.
#[derive(Debug, Clone)]
pub struct Kubectl {
    kubeconfig: PathBuf,
    cache: PathBuf,
}

impl Kubectl {
    /// For this kubeconfig; `cache` is where kubectl keeps what it discovered.
    pub fn new(kubeconfig: &Path, cache: &Path) -> Self {
        Self {
            kubeconfig: kubeconfig.to_owned(),
            cache: cache.to_owned(),
        }
    }

    /// The command, for what the other functions do not cover.
    pub fn command(&self, arguments: &[&str]) -> Command {
        let mut command = Command::new("kubectl");
        command
            .arg("--kubeconfig")
            .arg(&self.kubeconfig)
            .arg("--cache-dir")
            .arg(&self.cache)
            .args(arguments)
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .kill_on_drop(true);
        command
    }

    async fn output(&self, mut command: Command, input: Option<&str>) -> anyhow::Result<Output> {
        if input.is_some() {
            command.stdin(Stdio::piped());
        }
        let mut child = command
            .spawn()
            .context("failed to start kubectl; `.ci/tools test` installs it")?;
        if let (Some(input), Some(mut stdin)) = (input, child.stdin.take()) {
            stdin.write_all(input.as_bytes()).await?;
        }
        tokio::time::timeout(CALL_TIMEOUT, child.wait_with_output())
            .await
            .with_context(|| format!("kubectl took more than {CALL_TIMEOUT:?}"))?
            .context("kubectl could not be awaited")
    }

    /// Runs it; an error with all that was printed unless it exits with 0. Returns standard output.
    pub async fn run(&self, arguments: &[&str]) -> anyhow::Result<String> {
        self.run_with_input(arguments, None).await
    }

    /// The same with standard input, for `-f -`.
    pub async fn run_with_input(&self, arguments: &[&str], input: Option<&str>) -> anyhow::Result<String> {
        let output = self.output(self.command(arguments), input).await?;
        let (stdout, stderr) = (
            String::from_utf8_lossy(&output.stdout),
            String::from_utf8_lossy(&output.stderr),
        );
        if !output.status.success() {
            bail!(
                "kubectl {} failed with {}:\n{stdout}{stderr}",
                arguments.join(" "),
                output.status
            );
        }
        Ok(stdout.into_owned())
    }

    /// Runs it and expects it to fail; returns standard error.
    pub async fn refused(&self, arguments: &[&str], input: Option<&str>) -> anyhow::Result<String> {
        let output = self.output(self.command(arguments), input).await?;
        if output.status.success() {
            bail!(
                "kubectl {} succeeded and should not:\n{}",
                arguments.join(" "),
                String::from_utf8_lossy(&output.stdout)
            );
        }
        Ok(String::from_utf8_lossy(&output.stderr).into_owned())
    }

    /// `kubectl apply` (client side) of a manifest.
    pub async fn apply(&self, manifest: &str) -> anyhow::Result<String> {
        self.run_with_input(&["apply", "-f", "-"], Some(manifest)).await
    }

    /// `kubectl get … -o json`.
    pub async fn get_json(&self, arguments: &[&str]) -> anyhow::Result<serde_json::Value> {
        let text = self.run(&[&["get", "-o", "json"], arguments].concat()).await?;
        serde_json::from_str(&text).context("kubectl get -o json did not print JSON")
    }
}
