//! Running a client as a process: bounded in time, ended with the test, and all it printed told
//! when it fails.

use std::process::{Output, Stdio};
use std::time::Duration;

use anyhow::{Context as _, bail};
use tokio::io::AsyncWriteExt as _;
use tokio::process::Command;

/// No single call of a client takes longer.
pub const LONGEST: Duration = Duration::from_mins(8);

/// Runs it to its end.
pub async fn output(mut command: Command, input: Option<&str>) -> anyhow::Result<Output> {
    command
        .stdin(if input.is_some() { Stdio::piped() } else { Stdio::null() })
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .kill_on_drop(true);
    let shown = format!("{:?}", command.as_std());
    let mut child = command.spawn().with_context(|| format!("failed to start {shown}"))?;
    let stdin = child.stdin.take();
    let write = async {
        if let (Some(mut stdin), Some(input)) = (stdin, input) {
            // One that ends without reading all is judged by what it says, not by this.
            let _ = stdin.write_all(input.as_bytes()).await;
        }
    };
    let both = async { tokio::join!(write, child.wait_with_output()).1 };
    tokio::time::timeout(LONGEST, both)
        .await
        .with_context(|| format!("{shown} took more than {LONGEST:?}"))?
        .with_context(|| format!("{shown} could not be awaited"))
}

/// Runs it to its end; an error with all it printed unless it exits with 0. Returns its standard output.
pub async fn good(command: Command, input: Option<&str>) -> anyhow::Result<String> {
    let shown = format!("{:?}", command.as_std());
    let output = output(command, input).await?;
    let (out, err) = (
        String::from_utf8_lossy(&output.stdout),
        String::from_utf8_lossy(&output.stderr),
    );
    if !output.status.success() {
        bail!("{shown} failed with {}:\n{out}{err}", output.status);
    }
    Ok(out.into_owned())
}
