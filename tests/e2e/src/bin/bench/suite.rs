//! The conformance suite against provider-fake, with its own binary and its own defaults:
//! how long it takes as a user sees it.

use std::path::Path;
use std::time::Instant;

use anyhow::{Context as _, ensure};
use comfy_table::Table;
use e2e::process::Process;
use serde_json::Value;

use crate::new_table;
use crate::unary::connect;

/// What the suite has to know of provider-fake; the same file as its own tests use.
const CONFIG: &str = include_str!("../../../../conformance/providers/fake.yaml");

/// Runs the suite once.
pub async fn measure(binaries: &Path) -> anyhow::Result<Table> {
    let folder = tempfile::Builder::new().prefix("or").tempdir()?;
    let endpoint = format!("unix://{}", folder.path().join("p/actuator.sock").display());
    let _provider = Process::start(
        &binaries.join("provider-fake"),
        [
            "--listen",
            &endpoint,
            "--state-dir",
            &*folder.path().join("s").to_string_lossy(),
            "--require-token=conformance-token-good,conformance-token-rotated",
        ],
        &[],
        &folder.path().join("log"),
    )?;
    connect(&endpoint).await?;
    let config = folder.path().join("fake.yaml");
    std::fs::write(&config, CONFIG)?;
    let report = folder.path().join("report.json");
    let begun = Instant::now();
    let output = tokio::process::Command::new(binaries.join("actuator-conformance"))
        .args(["--endpoint", &endpoint])
        .arg("--config")
        .arg(&config)
        .arg("--json")
        .arg(&report)
        .kill_on_drop(true)
        .output()
        .await
        .context("failed to run actuator-conformance; build it beside the others")?;
    let seconds = begun.elapsed().as_secs_f64();
    ensure!(
        report.is_file(),
        "actuator-conformance wrote no report: {}",
        String::from_utf8_lossy(&output.stderr)
    );
    let report: Value = serde_json::from_slice(&std::fs::read(&report)?)?;
    let outcomes = report["outcomes"].as_array().context("a report without outcomes")?;
    // Words as the report has them.
    let ended = |word: &str| {
        outcomes
            .iter()
            .filter(|outcome| outcome["ended"] == word)
            .count()
            .to_string()
    };
    let mut table = new_table(["rules", "passed", "failed", "skipped", "verdict", "wall time, s"]);
    table.add_row([
        outcomes.len().to_string(),
        ended("passed"),
        ended("failed"),
        ended("skipped"),
        (if output.status.success() {
            "conforms"
        } else {
            "does not conform"
        })
        .to_owned(),
        format!("{seconds:.1}"),
    ]);
    Ok(table)
}
