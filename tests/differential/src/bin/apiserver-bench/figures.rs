//! What is measured, in which order, and the table of it.

use std::time::{Duration, Instant};

use bytes::Bytes;
use comfy_table::Table;
use comfy_table::presets::ASCII_MARKDOWN;
use http::Method;
use http_body_util::BodyExt as _;
use tokio::sync::mpsc;
use tokio::task::JoinSet;

use crate::client::Connection;
use crate::subject::{Subject, Usage};

const COLLECTION: &str = "/api/v1/namespaces/default/configmaps";
const FAN_OUT_COLLECTION: &str = "/api/v1/namespaces/kube-public/configmaps";
/// How many watchers see each write.
const WATCHERS: usize = 100;
/// How many writes are followed to their watchers.
const FAN_OUT_WRITES: usize = 200;
/// How many objects there are when the collection is listed.
const LISTED: usize = 10_000;
const LISTS: usize = 15;

/// How many requests are sent.
#[derive(Clone, Copy, Debug)]
pub struct Sizes {
    creates: [(usize, usize); 3],
    gets: [(usize, usize); 3],
}

impl Sizes {
    /// The creates of one and of sixteen clients fill the collection to ten thousand objects, those of sixty-four to
    /// `objects`.
    pub fn new(objects: usize) -> Self {
        Self {
            creates: [(1, 2000), (16, LISTED - 2000), (64, objects.saturating_sub(LISTED))],
            gets: [(1, 5000), (16, 20_000), (64, 20_000)],
        }
    }
}

/// What was measured of one server.
#[derive(Debug, Default)]
pub struct Figures {
    ready: Duration,
    fan_out: Vec<Duration>,
    creates: Vec<(usize, f64)>,
    create_processor: Duration,
    gets: Vec<(usize, f64)>,
    list: Duration,
    resident: Vec<(usize, Usage)>,
}

/// Measures a fresh server.
pub async fn measure(subject: &Subject, sizes: Sizes) -> anyhow::Result<Figures> {
    let mut figures = Figures {
        ready: subject.ready,
        ..Figures::default()
    };
    figures.resident.push((0, subject.usage()?));
    figures.fan_out = fan_out(subject).await?;
    let mut total = 0;
    for (clients, count) in sizes.creates {
        let before = subject.usage()?.processor_seconds;
        let seconds = creates(subject, clients, count).await?;
        figures.creates.push((clients, count as f64 / seconds));
        figures.create_processor =
            Duration::from_secs_f64((subject.usage()?.processor_seconds - before) / count as f64);
        total += count;
        if total == LISTED {
            figures.resident.push((total, settled(subject).await?));
            figures.list = list(subject).await?;
            for (clients, count) in sizes.gets {
                figures.gets.push((clients, gets(subject, clients, count).await?));
            }
        }
    }
    figures.resident.push((total, settled(subject).await?));
    Ok(figures)
}

/// What is used once the last request is over for a while: what was only needed for requests may be given back.
async fn settled(subject: &Subject) -> anyhow::Result<Usage> {
    tokio::time::sleep(Duration::from_secs(3)).await;
    subject.usage()
}

/// Has each client do its share, one request after the other, and answers how many seconds it took.
async fn together<F, R>(subject: &Subject, clients: usize, count: usize, each: F) -> anyhow::Result<f64>
where
    F: Fn(Connection, std::ops::Range<usize>) -> R,
    R: Future<Output = anyhow::Result<()>> + Send + 'static,
{
    let connections = subject.target.connect_many(clients).await?;
    let started = Instant::now();
    let mut tasks = JoinSet::new();
    for (client, connection) in connections.into_iter().enumerate() {
        let share = (count * client / clients)..(count * (client + 1) / clients);
        tasks.spawn(each(connection, share));
    }
    while let Some(done) = tasks.join_next().await {
        done??;
    }
    Ok(started.elapsed().as_secs_f64())
}

fn object(name: &str) -> Bytes {
    format!(
        r#"{{"apiVersion":"v1","kind":"ConfigMap","metadata":{{"name":"{name}","labels":{{"app":"bench"}}}},"data":{{"key":"value"}}}}"#
    )
    .into()
}

async fn creates(subject: &Subject, clients: usize, count: usize) -> anyhow::Result<f64> {
    together(subject, clients, count, |mut connection, share| async move {
        for at in share {
            let body = object(&format!("by-{clients}-{at}"));
            connection.call(Method::POST, COLLECTION, body).await?;
        }
        Ok(())
    })
    .await
}

async fn gets(subject: &Subject, clients: usize, count: usize) -> anyhow::Result<f64> {
    let seconds = together(subject, clients, count, |mut connection, share| async move {
        for at in share {
            let path = format!("{COLLECTION}/by-1-{}", at % 2000);
            connection.call(Method::GET, &path, Bytes::new()).await?;
        }
        Ok(())
    })
    .await?;
    Ok(count as f64 / seconds)
}

/// The middle of several lists of the whole collection.
async fn list(subject: &Subject) -> anyhow::Result<Duration> {
    let mut connection = subject.target.connect().await?;
    let mut times = Vec::with_capacity(LISTS);
    for _ in 0..LISTS {
        let started = Instant::now();
        let length = connection.call(Method::GET, COLLECTION, Bytes::new()).await?;
        times.push(started.elapsed());
        anyhow::ensure!(length > LISTED * 100, "the list is too short to be whole");
    }
    times.sort_unstable();
    Ok(times.get(LISTS / 2).copied().unwrap_or_default())
}

/// From sending a write until each of the watchers has read its event, one write after the other.
async fn fan_out(subject: &Subject) -> anyhow::Result<Vec<Duration>> {
    let (sender, mut seen) = mpsc::channel(WATCHERS);
    let mut watchers = JoinSet::new();
    for mut connection in subject.target.connect_many(WATCHERS).await? {
        let mut body = connection
            .watch(&format!("{FAN_OUT_COLLECTION}?watch=true&resourceVersion=0"))
            .await?;
        let sender = sender.clone();
        watchers.spawn(async move {
            // The connection ends when its sender is dropped.
            let _connection = connection;
            while let Some(Ok(frame)) = body.frame().await {
                let now = Instant::now();
                let events = frame
                    .data_ref()
                    .map_or(0, |data| data.split(|byte| *byte == b'\n').count() - 1);
                for _ in 0..events {
                    if sender.send(now).await.is_err() {
                        return;
                    }
                }
            }
        });
    }
    let mut writer = subject.target.connect().await?;
    let mut delays = Vec::with_capacity(WATCHERS * FAN_OUT_WRITES);
    for at in 0..FAN_OUT_WRITES {
        let body = object(&format!("fan-out-{at}"));
        let started = Instant::now();
        writer.call(Method::POST, FAN_OUT_COLLECTION, body).await?;
        for _ in 0..WATCHERS {
            let then = tokio::time::timeout(Duration::from_secs(30), seen.recv()).await?;
            if let Some(then) = then {
                delays.push(then.saturating_duration_since(started));
            }
        }
    }
    delays.sort_unstable();
    Ok(delays)
}

fn percentile(sorted: &[Duration], percent: usize) -> Duration {
    sorted
        .get(sorted.len().saturating_sub(1) * percent / 100)
        .copied()
        .unwrap_or_default()
}

fn milliseconds(duration: Duration) -> f64 {
    duration.as_secs_f64() * 1000.0
}

fn mebibytes(usage: &Usage) -> f64 {
    usage.resident.iter().map(|(_, bytes)| *bytes as f64).sum::<f64>() / f64::from(1 << 20)
}

/// One line of the table; `more_is_better` says what the ratio means.
struct Row {
    name: String,
    value: f64,
    note: String,
    more_is_better: bool,
}

fn rows(figures: &Figures) -> Vec<Row> {
    let row = |name: String, value: f64, more_is_better: bool| Row {
        name,
        value,
        note: String::new(),
        more_is_better,
    };
    let mut rows = Vec::new();
    for (clients, rate) in &figures.creates {
        rows.push(row(
            format!("creates per second, {}", clients_text(*clients)),
            *rate,
            true,
        ));
    }
    rows.push(row(
        "processor time of a create with 64 clients, µs".to_owned(),
        figures.create_processor.as_secs_f64() * 1e6,
        false,
    ));
    for (clients, rate) in &figures.gets {
        rows.push(row(format!("gets per second, {}", clients_text(*clients)), *rate, true));
    }
    rows.push(row(
        "list of 10,000 objects, ms".to_owned(),
        milliseconds(figures.list),
        false,
    ));
    for percent in [50, 99] {
        rows.push(row(
            format!("write to event, {WATCHERS} watchers, p{percent}, ms"),
            milliseconds(percentile(&figures.fan_out, percent)),
            false,
        ));
    }
    for (count, usage) in &figures.resident {
        let parts: Vec<String> = usage
            .resident
            .iter()
            .map(|(name, bytes)| format!("{name} {:.0}", *bytes as f64 / f64::from(1 << 20)))
            .collect();
        rows.push(Row {
            name: format!("resident memory at {count} objects, MiB"),
            value: mebibytes(usage),
            note: if parts.len() > 1 {
                format!(" ({})", parts.join(", "))
            } else {
                String::new()
            },
            more_is_better: false,
        });
    }
    rows.push(row("start to ready, ms".to_owned(), milliseconds(figures.ready), false));
    rows
}

fn clients_text(clients: usize) -> String {
    match clients {
        1 => "1 client".to_owned(),
        many => format!("{many} clients"),
    }
}

fn shown(value: f64) -> String {
    if value >= 100.0 {
        format!("{value:.0}")
    } else if value >= 10.0 {
        format!("{value:.1}")
    } else {
        format!("{value:.2}")
    }
}

/// The figures side by side. The last column says how many times better the embedded server is.
pub fn table(ours: &Figures, theirs: Option<&Figures>) -> Table {
    let mut table = Table::new();
    table.load_style(ASCII_MARKDOWN);
    let Some(theirs) = theirs else {
        table.set_header(["", "embedded"]);
        for row in rows(ours) {
            table.add_row([row.name, shown(row.value)]);
        }
        return table;
    };
    table.set_header(["", "embedded", "real", "times better"]);
    for (ours, theirs) in rows(ours).into_iter().zip(rows(theirs)) {
        let ratio = if ours.more_is_better {
            ours.value / theirs.value
        } else {
            theirs.value / ours.value
        };
        table.add_row([
            ours.name,
            shown(ours.value) + &ours.note,
            shown(theirs.value) + &theirs.note,
            shown(ratio),
        ]);
    }
    table
}
