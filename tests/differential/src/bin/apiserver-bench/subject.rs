//! The servers that are measured, each in processes of its own, and what the system says of those processes.

use std::path::Path;
use std::process::Stdio;
use std::time::{Duration, Instant};

use anyhow::Context as _;
use differential::server::Real;
use embedded_apiserver::ApiServer;
use http::Method;
use tokio::io::{AsyncBufReadExt as _, BufReader};
use tokio::process::{Child, ChildStdin, Command};
use tokio_util::sync::CancellationToken;

use crate::client::Target;

/// A server that runs.
pub struct Subject {
    /// How to reach it.
    pub target: Target,
    /// From the start of its first process until it answered `/readyz`.
    pub ready: Duration,
    processes: Vec<(String, u32)>,
    server: Server,
}

enum Server {
    Embedded(Box<Embedded>),
    Real(Box<Real>),
}

struct Embedded {
    child: Child,
    // It ends with its input.
    input: ChildStdin,
    _folder: tempfile::TempDir,
}

/// What the system says of processes.
#[derive(Clone, Debug, Default)]
pub struct Usage {
    /// Resident bytes by process.
    pub resident: Vec<(String, u64)>,
    /// Processor seconds of all of them so far.
    pub processor_seconds: f64,
}

impl Subject {
    /// The embedded server, as a process of its own.
    pub async fn embedded(durable: bool) -> anyhow::Result<Self> {
        let folder = tempfile::tempdir()?;
        let mut command = Command::new(std::env::current_exe()?);
        command.arg("serve").arg(folder.path());
        if !durable {
            command.arg("--memory");
        }
        let started = Instant::now();
        let mut child = command
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .kill_on_drop(true)
            .spawn()
            .context("failed to start the embedded server")?;
        let input = child.stdin.take().context("the server has no input")?;
        let output = child.stdout.take().context("the server has no output")?;
        let path = BufReader::new(output)
            .lines()
            .next_line()
            .await?
            .context("the embedded server ended before it was ready")?;
        let target = Target::from_kubeconfig(&std::fs::read_to_string(path)?)?;
        let mut connection = target.connect().await?;
        connection.call(Method::GET, "/readyz", bytes::Bytes::new()).await?;
        let ready = started.elapsed();
        let id = child.id().context("the embedded server has ended")?;
        Ok(Self {
            target,
            ready,
            processes: vec![("embedded".to_owned(), id)],
            server: Server::Embedded(Box::new(Embedded {
                child,
                input,
                _folder: folder,
            })),
        })
    }

    /// The real server and its etcd. Certificates are made before the first of them starts, and do not count.
    pub async fn real(durable: bool) -> anyhow::Result<Self> {
        let real = Real::start_own(durable).await?;
        let script = real.id().context("the script that started the real server has ended")?;
        let mut processes = children(script)?;
        let ready = processes
            .iter()
            .find(|(name, _)| name == "etcd")
            .map(|(_, id)| age(*id))
            .context("etcd does not run")??;
        // The controllers are of no part in what is measured.
        processes.retain(|(name, _)| matches!(name.as_str(), "etcd" | "kube-apiserver"));
        let target = Target::from_kubeconfig(&std::fs::read_to_string(&real.kubeconfig)?)?;
        Ok(Self {
            target,
            ready,
            processes,
            server: Server::Real(Box::new(real)),
        })
    }

    /// What its processes use now.
    pub fn usage(&self) -> anyhow::Result<Usage> {
        let mut usage = Usage::default();
        for (name, id) in &self.processes {
            let status =
                std::fs::read_to_string(format!("/proc/{id}/status")).with_context(|| format!("{name} has ended"))?;
            let kilobytes: u64 = status
                .lines()
                .find_map(|line| line.strip_prefix("VmRSS:")?.split_whitespace().next()?.parse().ok())
                .unwrap_or(0);
            usage.resident.push((name.clone(), kilobytes * 1024));
            let stat = stat(*id)?;
            // Fields 14 and 15 of the line: user and system time.
            usage.processor_seconds += (number(&stat, 14) + number(&stat, 15)) / TICKS;
        }
        Ok(usage)
    }

    /// Stops it.
    pub async fn stop(self) -> anyhow::Result<()> {
        match self.server {
            Server::Embedded(embedded) => {
                let Embedded {
                    mut child,
                    input,
                    _folder,
                } = *embedded;
                drop(input);
                child.wait().await?;
                Ok(())
            }
            Server::Real(real) => real.stop().await,
        }
    }
}

/// What `/proc` counts times in, a second.
const TICKS: f64 = 100.0;

/// The fields of `/proc/ID/stat` from the third on.
fn stat(id: u32) -> anyhow::Result<Vec<String>> {
    let stat = std::fs::read_to_string(format!("/proc/{id}/stat")).context("the process has ended")?;
    let fields = stat.rsplit_once(')').map_or("", |(_, rest)| rest);
    Ok(fields.split_whitespace().map(str::to_owned).collect())
}

fn number(stat: &[String], field: usize) -> f64 {
    stat.get(field - 3).and_then(|text| text.parse().ok()).unwrap_or(0.0)
}

/// How long ago a process was started.
fn age(id: u32) -> anyhow::Result<Duration> {
    let uptime = std::fs::read_to_string("/proc/uptime")?;
    let uptime: f64 = uptime.split_whitespace().next().unwrap_or_default().parse()?;
    Ok(Duration::from_secs_f64(
        (uptime - number(&stat(id)?, 22) / TICKS).max(0.0),
    ))
}

/// The processes that a process started, with their names.
fn children(id: u32) -> anyhow::Result<Vec<(String, u32)>> {
    let ids = std::fs::read_to_string(format!("/proc/{id}/task/{id}/children"))?;
    let ids = ids.split_whitespace().filter_map(|id| id.parse().ok());
    Ok(ids
        .filter_map(|id: u32| {
            let name = std::fs::read_to_string(format!("/proc/{id}/comm")).ok()?;
            Some((name.trim().to_owned(), id))
        })
        .collect())
}

/// The embedded server's process: serves, says where its kubeconfig is, and ends with its input.
pub async fn serve(folder: &Path, memory: bool) -> anyhow::Result<()> {
    let builder = ApiServer::builder();
    let builder = if memory {
        builder.in_memory()
    } else {
        builder.data_file(folder.join("objects"))
    };
    let server = builder.build().await?;
    let shutdown = CancellationToken::new();
    let running = server
        .serve(([127, 0, 0, 1], 0).into(), &folder.join("identity"), shutdown.clone())
        .await?;
    crate::say(&running.kubeconfig_path().display().to_string());
    let ended = shutdown.clone();
    std::thread::spawn(move || {
        let _ = std::io::copy(&mut std::io::stdin(), &mut std::io::sink());
        ended.cancel();
    });
    shutdown.cancelled().await;
    running.ended().await;
    Ok(())
}
