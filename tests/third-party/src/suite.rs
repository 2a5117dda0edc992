//! The conformance suite against a provider: as a process on a Unix socket, with its log
//! looked through for secrets and with a hook that kills it and starts it again.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, Instant};

use actuator_conformance::report::Report;
use actuator_conformance::restart::Hook;
use actuator_conformance::{Config, Options, run};
use anyhow::{Context as _, ensure};
use e2e::process::Process;
use e2e::provider::ProviderCommand;
use tokio::net::UnixStream;
use tokio::sync::Mutex;

use crate::ThirdParty;

/// How long a provider may take until it listens; an interpreter on a machine of CI is slow.
const STARTUP: Duration = Duration::from_mins(1);
/// As many tests of the suite run at a time.
const PARALLEL: usize = 8;

/// A provider's process that the suite may kill.
struct Subject {
    provider: ProviderCommand,
    folder: PathBuf,
    process: Mutex<Process>,
}

impl Subject {
    async fn start(provider: ProviderCommand, folder: &Path) -> anyhow::Result<Arc<Self>> {
        let process = Mutex::new(Self::process(&provider, folder)?);
        let subject = Arc::new(Self {
            provider,
            folder: folder.to_owned(),
            process,
        });
        subject.listens().await?;
        Ok(subject)
    }

    fn process(provider: &ProviderCommand, folder: &Path) -> anyhow::Result<Process> {
        let endpoint = format!("unix://{}", socket(folder).display());
        provider.start(&endpoint, &folder.join("state"), &log(folder))
    }

    /// `kill -9`, and starts it again on the same state.
    async fn restart(&self) -> anyhow::Result<()> {
        let mut process = self.process.lock().await;
        process.kill().await?;
        *process = Self::process(&self.provider, &self.folder)?;
        Ok(())
    }

    async fn listens(&self) -> anyhow::Result<()> {
        let end = Instant::now() + STARTUP;
        while UnixStream::connect(socket(&self.folder)).await.is_err() {
            let mut process = self.process.lock().await;
            ensure!(
                process.is_running() && Instant::now() < end,
                "the provider {} does not listen:\n{}",
                self.provider.name,
                process.output()
            );
            drop(process);
            // There is nothing to wait on before the socket is there.
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
        Ok(())
    }
}

fn socket(folder: &Path) -> PathBuf {
    folder.join("p/actuator.sock")
}

fn log(folder: &Path) -> PathBuf {
    folder.join("log")
}

/// Judges the provider by every rule, those about crashes and logs included.
pub async fn judge(party: &ThirdParty) -> anyhow::Result<Report> {
    let folder = tempfile::Builder::new().prefix("tp").tempdir()?;
    let mut config = Config::read(&party.config)?;
    let subject = Subject::start(party.provider.clone(), folder.path()).await?;
    config.logs = vec![log(folder.path())];
    let endpoint = format!("unix://{}", socket(folder.path()).display());
    let mut options = Options::new(endpoint.parse().context("the socket is no endpoint")?, config);
    let killed = subject.clone();
    options.restart = Some(Hook::new(move || {
        let subject = killed.clone();
        async move { subject.restart().await }
    }));
    options.faults_required = true;
    options.parallel = PARALLEL;
    options.ledger = Some(folder.path().join("ledger"));
    run(options).await
}
