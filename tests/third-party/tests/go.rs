//! The provider of `tests/third-party/go`, built by its own script: judged by every rule of the
//! suite, and the provider of a real core.

use std::path::Path;
use std::process::Stdio;

use anyhow::{Context as _, ensure};
use e2e::provider::ProviderCommand;
use third_party::{ThirdParty, job, suite};
use tokio::process::Command;

type Result<T = ()> = anyhow::Result<T>;

/// What its cloud takes, as `conformance.yaml` has it.
const TOKENS: &str = "conformance-token-good,conformance-token-rotated";

async fn harbour(settings: &[(&str, &str)]) -> Result<ThirdParty> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("go");
    let built = Command::new(folder.join("build"))
        .stdin(Stdio::null())
        .kill_on_drop(true)
        .output()
        .await
        .context("failed to run tests/third-party/go/build")?;
    ensure!(
        built.status.success(),
        "tests/third-party/go/build failed; `.ci/tools test` installs what it needs: {}",
        String::from_utf8_lossy(&built.stderr)
    );
    let program = String::from_utf8(built.stdout)?.trim().to_owned();
    let own = |(name, value): &(&str, &str)| ((*name).to_owned(), (*value).to_owned());
    Ok(ThirdParty {
        provider: ProviderCommand {
            name: "harbour".to_owned(),
            serve: vec![program.clone().into()],
            audit: vec![program.into(), "audit".into()],
            settings: settings.iter().map(own).collect(),
        },
        config: folder.join("conformance.yaml"),
        manifest: folder.join("demo.yaml"),
    })
}

#[tokio::test(flavor = "multi_thread")]
async fn the_go_provider_conforms() -> Result {
    let report = suite::judge(&harbour(&[("HARBOUR_TOKENS", TOKENS)]).await?).await?;
    ensure!(report.conforms(), "{report}");
    // It has every part of the protocol, so every part of the suite was at work.
    ensure!(
        report.not_advertised.is_empty(),
        "it does not advertise {:?}",
        report.not_advertised
    );
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn the_go_provider_does_the_main_job() -> Result {
    job::main_job(&harbour(&[]).await?).await
}
