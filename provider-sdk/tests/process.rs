//! A provider as a process: flags, signals, logs, metrics and traces, and that no
//! secret is in any of them.

#![allow(clippy::expect_used, clippy::panic, clippy::unnecessary_wraps, clippy::manual_assert)] // a test may panic

mod support;

use std::io::{Read, Write};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};
use std::sync::Arc;

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use opentelemetry_proto::tonic::collector::trace::v1::trace_service_server::{TraceService, TraceServiceServer};
use opentelemetry_proto::tonic::collector::trace::v1::{ExportTraceServiceRequest, ExportTraceServiceResponse};
use parking_lot::Mutex;
use provider_sdk::proto::digest::sha256;
use provider_sdk::v1;
use provider_sdk::v1::machine_service_client::MachineServiceClient;
use support::*;
use tonic::transport::Channel;
use tonic::{Code, Request, Response, Status};

/// The example of this name, built beside this test; built now if only this test was
/// asked for.
fn example(name: &str) -> PathBuf {
    let own = std::env::current_exe().expect("a path");
    let profile = own.parent().and_then(Path::parent).expect("target/PROFILE/deps");
    let path = profile.join("examples").join(name);
    if !path.exists() {
        let built = Command::new(env!("CARGO"))
            .args([
                "build",
                "--quiet",
                "--package",
                env!("CARGO_PKG_NAME"),
                "--example",
                name,
            ])
            .arg("--target-dir")
            .arg(profile.parent().expect("target"))
            .status();
        assert!(built.expect("cargo runs").success());
    }
    path
}

/// A provider's process; killed when the test ends early.
struct Process(Option<Child>);

impl Process {
    fn start(arguments: &[&str]) -> Self {
        let child = Command::new(example("misbehaving"))
            .args(arguments)
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn();
        Self(Some(child.expect("it starts")))
    }

    fn signal(&self, signal: Signal) {
        let child = self.0.as_ref().expect("it runs");
        kill(Pid::from_raw(child.id() as i32), signal).expect("it runs");
    }

    async fn wait(mut self) -> Output {
        let child = self.0.take().expect("it runs");
        let ended = tokio::task::spawn_blocking(move || child.wait_with_output());
        let output = tokio::time::timeout(LONG, ended).await.expect("it ends");
        output.expect("no panic").expect("its output")
    }

    /// Reads its log up to the line that has these words, and goes on reading behind.
    fn log_until(&mut self, words: &str) -> (String, Arc<Mutex<String>>) {
        let stderr = self.0.as_mut().and_then(|child| child.stderr.take()).expect("piped");
        let mut lines = std::io::BufRead::lines(std::io::BufReader::new(stderr));
        let mut all = String::new();
        let found = loop {
            let line = lines.next().expect("more lines").expect("UTF-8");
            all.push_str(&line);
            all.push('\n');
            if line.contains(words) {
                break line;
            }
        };
        let all = Arc::new(Mutex::new(all));
        let rest = Arc::clone(&all);
        std::thread::spawn(move || {
            for line in lines.map_while(Result::ok) {
                let mut all = rest.lock();
                all.push_str(&line);
                all.push('\n');
            }
        });
        (found, all)
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        if let Some(mut child) = self.0.take() {
            let _ = child.kill();
            let _ = child.wait();
        }
    }
}

async fn machines(path: &Path) -> MachineServiceClient<Channel> {
    let connected = tokio::time::timeout(LONG, async {
        loop {
            match try_channel(path).await {
                Ok(channel) => return channel,
                Err(_) => tokio::time::sleep(std::time::Duration::from_millis(10)).await,
            }
        }
    });
    MachineServiceClient::new(connected.await.expect("it listens"))
}

fn address(path: &Path) -> String {
    format!("unix://{}", path.display())
}

#[derive(Clone, Default)]
struct Collector(Arc<Mutex<Vec<ExportTraceServiceRequest>>>);

#[tonic::async_trait]
impl TraceService for Collector {
    async fn export(
        &self,
        request: Request<ExportTraceServiceRequest>,
    ) -> Result<Response<ExportTraceServiceResponse>, Status> {
        self.0.lock().push(request.into_inner());
        Ok(Response::new(ExportTraceServiceResponse::default()))
    }
}

async fn collector() -> (Collector, std::net::SocketAddr) {
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.expect("bound");
    let address = listener.local_addr().expect("an address");
    let collector = Collector::default();
    let service = TraceServiceServer::new(collector.clone());
    tokio::spawn(
        tonic::transport::Server::builder()
            .add_service(service)
            .serve_with_incoming(tokio_stream::wrappers::TcpListenerStream::new(listener)),
    );
    (collector, address)
}

fn scrape(address: &str) -> String {
    let mut stream = std::net::TcpStream::connect(address).expect("connected");
    let request = "GET /metrics HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n";
    stream.write_all(request.as_bytes()).expect("sent");
    let mut answer = String::new();
    stream.read_to_string(&mut answer).expect("an answer");
    answer
}

#[tokio::test]
async fn no_secret_is_in_any_log_metric_or_trace() {
    const TRACE: &str = "4bf92f3577b34da6a3ce929d0e0e4736";
    const PARENT: &str = "00f067aa0ba902b7";

    let folder = tempfile::tempdir().expect("a folder");
    let path = folder.path().join("actuator.sock");
    let (collected, collector) = collector().await;
    let mut process = Process::start(&[
        "--listen",
        &address(&path),
        "--metrics-listen",
        "127.0.0.1:0",
        "--log-format",
        "json",
        "--log-level",
        "trace,h2=trace,hyper=trace,tonic=trace",
        "--otlp-endpoint",
        &format!("http://{collector}"),
        "--panic-on",
        "panics",
        "--spill-on",
        "spills",
        "--reflection",
    ]);
    let (line, log) = process.log_until("serving metrics");
    let line: serde_json::Value = serde_json::from_str(&line).expect("JSON");
    let metrics = line["address"].as_str().expect("an address").to_owned();

    let mut machines = machines(&path).await;
    let traced = |key: &str| {
        let mut message = create(key);
        let data = format!("#cloud-config {SENTINEL}").into_bytes();
        message.bootstrap = Some(v1::BootstrapData {
            sha256: sha256(&data),
            data,
            format: v1::BootstrapFormat::CloudConfig.into(),
        });
        let mut request = Request::new(message);
        let parent = format!("00-{TRACE}-{PARENT}-01").parse().expect("ASCII");
        request.metadata_mut().insert("traceparent", parent);
        request
    };
    machines.create_machine(traced("good")).await.expect("made");
    let panicked = machines.create_machine(traced("panics")).await.expect_err("a panic");
    assert_eq!(panicked.code(), Code::Internal);
    let spilt = machines.create_machine(traced("spills")).await.expect_err("an error");
    assert_eq!(spilt.code(), Code::Unauthenticated);
    let mut wrong = traced("wrong");
    wrong.get_mut().bootstrap.as_mut().expect("data").sha256.clear();
    machines.create_machine(wrong).await.expect_err("refused");
    assert!(!format!("{panicked:?} {spilt:?}").contains(SENTINEL));

    let scraped = scrape(&metrics);
    for expected in [
        "actuator_calls_total{method=\"CreateMachine\",code=\"OK\",reason=\"\"} 1",
        "actuator_calls_total{method=\"CreateMachine\",code=\"INTERNAL\",reason=\"PROVIDER_BUG\"} 1",
        "actuator_calls_total{method=\"CreateMachine\",code=\"INVALID_ARGUMENT\",reason=\"INVALID_FIELD\"} 1",
        "actuator_call_duration_seconds_count{method=\"CreateMachine\"} 4",
        "actuator_mutations_in_flight 0",
        "actuator_panics_total 1",
    ] {
        assert!(scraped.contains(expected), "{expected} is not in\n{scraped}");
    }

    process.signal(Signal::SIGTERM);
    let output = process.wait().await;
    assert_eq!(output.status.code(), Some(0));
    assert!(!path.exists(), "the socket is removed");
    eventually("the log is read to its end", || log.lock().contains("\"stopped\"")).await;
    let log = log.lock().clone();
    let lines: Vec<serde_json::Value> = log
        .lines()
        .map(|line| serde_json::from_str(line).unwrap_or_else(|error| panic!("{error}: {line}")))
        .collect();
    let answered = lines
        .iter()
        .find(|line| line["message"] == "answered" && line["span"]["key"] == "good")
        .expect("a line for the call");
    assert_eq!(answered["span"]["trace_id"], TRACE);
    assert_eq!(answered["span"]["object"], "machine-good");
    assert_eq!(answered["span"]["code"], "OK");
    let panic = lines
        .iter()
        .find(|line| line["message"] == "panic")
        .expect("a line for the panic");
    assert!(
        panic["location"]
            .as_str()
            .is_some_and(|place| place.contains("support/mod.rs"))
    );

    let exported = collected.0.lock().clone();
    let spans: Vec<_> = exported
        .iter()
        .flat_map(|request| &request.resource_spans)
        .flat_map(|resource| &resource.scope_spans)
        .flat_map(|scope| &scope.spans)
        .filter(|span| span.name == "CreateMachine")
        .collect();
    assert_eq!(spans.len(), 4);
    for span in spans {
        assert_eq!(hex::encode(&span.trace_id), TRACE);
        assert_eq!(hex::encode(&span.parent_span_id), PARENT);
    }
    for (what, text) in [
        ("the log", log),
        ("the metrics", scraped),
        ("the traces", format!("{exported:?}")),
        ("the output", String::from_utf8_lossy(&output.stdout).into_owned()),
    ] {
        assert!(!text.contains(SENTINEL), "a secret is in {what}:\n{text}");
    }
}

#[tokio::test]
async fn after_a_kill_the_next_process_takes_the_socket() {
    let folder = tempfile::tempdir().expect("a folder");
    let path = folder.path().join("fake/actuator.sock");
    let first = Process::start(&["--listen", &address(&path)]);
    machines(&path)
        .await
        .machine_exists(exists("k"))
        .await
        .expect("an answer");

    let second = Process::start(&["--listen", &address(&path)]).wait().await;
    assert_eq!(second.status.code(), Some(1));
    let words = String::from_utf8_lossy(&second.stderr).into_owned();
    assert!(
        words
            .lines()
            .last()
            .is_some_and(|line| line.contains("is served by another process")),
        "{words}"
    );

    first.signal(Signal::SIGKILL);
    first.wait().await;
    assert!(path.exists(), "a killed process leaves its socket");
    let third = Process::start(&["--listen", &address(&path)]);
    machines(&path)
        .await
        .machine_exists(exists("k"))
        .await
        .expect("an answer");
    third.signal(Signal::SIGINT);
    assert_eq!(third.wait().await.status.code(), Some(0));
    assert!(!path.exists());
}

#[test]
fn bad_flags_end_with_one_line_and_code_2() {
    let long = format!("unix:///{}", "x".repeat(100));
    for (arguments, words) in [
        (vec!["--listen", "nowhere"], "unix:///absolute/path"),
        (vec!["--listen", &long], "at most 100"),
        (vec!["--listen", "tcp://127.0.0.1:0"], "--insecure-plain-tcp"),
        (vec!["--no-such-flag"], "--no-such-flag"),
        (vec!["--log-format", "xml"], "xml"),
    ] {
        let output = Command::new(example("misbehaving"))
            .args(&arguments)
            .output()
            .expect("it runs");
        let line = String::from_utf8_lossy(&output.stderr).into_owned();
        assert_eq!(output.status.code(), Some(2), "{line}");
        assert_eq!(line.lines().count(), 1, "{line}");
        assert!(line.contains(words), "{line}");
        assert!(output.stdout.is_empty());
    }
    // Flags come from the environment as well.
    let output = Command::new(example("misbehaving"))
        .env("ACTUATOR_LISTEN", "nowhere")
        .output();
    assert_eq!(output.expect("it runs").status.code(), Some(2));
    let output = Command::new(example("minimal"))
        .arg("--version")
        .output()
        .expect("it runs");
    assert!(output.status.success());
    assert!(String::from_utf8_lossy(&output.stdout).starts_with("provider-minimal "));
}
