//! Counters: what the core says of itself, what the system says of a process, what the
//! simulated cloud has in its journal.

use std::collections::BTreeMap;
use std::net::SocketAddr;

use anyhow::Context as _;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;

/// Processor seconds and memory of a process.
#[derive(Debug, Clone, Copy, Default)]
pub struct Usage {
    /// User and system time so far, in seconds.
    pub cpu_seconds: f64,
    /// Resident memory, in bytes.
    pub resident_bytes: u64,
    /// The most resident memory so far, in bytes.
    pub peak_bytes: u64,
}

/// Reads `/proc`.
pub fn usage(pid: u32) -> anyhow::Result<Usage> {
    let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).context("the process has ended")?;
    let fields: Vec<&str> = stat
        .rsplit_once(')')
        .map_or("", |(_, rest)| rest)
        .split_whitespace()
        .collect();
    let ticks = |index: usize| {
        fields
            .get(index)
            .and_then(|field| field.parse::<f64>().ok())
            .unwrap_or(0.0)
    };
    let status = std::fs::read_to_string(format!("/proc/{pid}/status"))?;
    let kilobytes = |name: &str| {
        status
            .lines()
            .find_map(|line| line.strip_prefix(name)?.split_whitespace().next()?.parse::<u64>().ok())
            .unwrap_or(0)
    };
    Ok(Usage {
        // Fields 14 and 15 of the line, in hundredths of a second.
        cpu_seconds: (ticks(11) + ticks(12)) / 100.0,
        resident_bytes: kilobytes("VmRSS:") * 1024,
        peak_bytes: kilobytes("VmHWM:") * 1024,
    })
}

/// Starts the peak anew.
pub fn reset_peak(pid: u32) {
    // Without the right to do so the peak is that of the whole life, which is only larger.
    let _ = std::fs::write(format!("/proc/{pid}/clear_refs"), "5");
}

/// Counters by their name with labels, as the metrics endpoint prints them.
pub type Counters = BTreeMap<String, f64>;

/// Reads the metrics of a core.
pub async fn counters(address: SocketAddr) -> anyhow::Result<Counters> {
    let mut stream = TcpStream::connect(address)
        .await
        .context("the core does not serve its metrics")?;
    stream
        .write_all(b"GET /metrics HTTP/1.0\r\nHost: localhost\r\n\r\n")
        .await?;
    let mut text = String::new();
    stream.read_to_string(&mut text).await?;
    Ok(text
        .lines()
        .filter(|line| !line.starts_with('#'))
        .filter_map(|line| {
            let (name, value) = line.rsplit_once(' ')?;
            Some((name.to_owned(), value.parse().ok()?))
        })
        .collect())
}

/// What a counter family grew by, by the values of two labels; rows that did not grow are left out.
pub fn grown(before: &Counters, after: &Counters, family: &str, labels: [&str; 2]) -> BTreeMap<[String; 2], f64> {
    let mut rows = BTreeMap::new();
    for (name, value) in after.iter().filter(|(name, _)| name.starts_with(family)) {
        let more = value - before.get(name).copied().unwrap_or(0.0);
        if more > 0.0 {
            let key = labels.map(|label| {
                name.split_once(&format!("{label}=\""))
                    .and_then(|(_, rest)| rest.split_once('"'))
                    .map(|(value, _)| value.to_owned())
                    .unwrap_or_default()
            });
            *rows.entry(key).or_default() += more;
        }
    }
    rows
}
