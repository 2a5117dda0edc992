//! The clients of other languages, each running its own tests as a process against the embedded
//! server on a socket: Python, JavaScript, and Go's client-go with an hour of churn.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::print_stdout)] // helpers of tests are tests

use std::process::Stdio;

use clients::stage::Stage;
use clients::{process, tools};
use embedded_apiserver::HistoryLimits;
use serde_json::Value;
use tokio::io::{AsyncBufReadExt as _, AsyncReadExt as _, AsyncWriteExt as _, BufReader};
use tokio::process::Command;

/// So few that what a client missed is soon forgotten.
const SMALL_HISTORY: HistoryLimits = HistoryLimits {
    events: 300,
    bytes: 1 << 20,
};
/// As many writes are surely more.
const FORGOTTEN: &str = "400";

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn python() {
    let made = tools::made_from("python", &[".txt"]).unwrap();
    let mut stage = Stage::start(SMALL_HISTORY).await.unwrap();
    stage.define("python.example.com").await.unwrap();
    let mut command = Command::new(made.join("venv/bin/python"));
    command
        .args(["-m", "unittest", "-v", "test_clients"])
        .current_dir(tools::sources().join("python"))
        .env("PYTHONDONTWRITEBYTECODE", "1")
        .env("KUBECONFIG", stage.kubeconfig())
        .env("FORGOTTEN", FORGOTTEN);
    let output = process::output(command, None).await.unwrap();
    let said = String::from_utf8_lossy(&output.stderr);
    println!("{said}");
    assert!(output.status.success(), "{said}");
    assert!(!said.contains("Ran 0 tests"), "{said}");
    stage.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn javascript() {
    let made = tools::made_from("javascript", &[".json"]).unwrap();
    let mut stage = Stage::start(SMALL_HISTORY).await.unwrap();
    stage.define("javascript.example.com").await.unwrap();
    // A module finds others in a node_modules beside it, so it is run beside them.
    let folder = stage.folder().join("javascript");
    std::fs::create_dir(&folder).unwrap();
    for name in ["package.json", "clients.test.js"] {
        std::fs::copy(tools::sources().join("javascript").join(name), folder.join(name)).unwrap();
    }
    std::os::unix::fs::symlink(made.join("node_modules"), folder.join("node_modules")).unwrap();
    let mut command = Command::new(tools::program("node").unwrap());
    command
        .args([
            "--test",
            "--test-reporter=spec",
            "--test-timeout=240000",
            "clients.test.js",
        ])
        .current_dir(&folder)
        .env("KUBECONFIG", stage.kubeconfig())
        .env("FORGOTTEN", FORGOTTEN);
    let said = process::good(command, None).await.unwrap();
    println!("{said}");
    assert!(!said.contains("tests 0\n"), "{said}");
    stage.stop().await;
}

fn informer(stage: &Stage, arguments: &[&str]) -> Command {
    let made = tools::made_from("informer", &[".go", "go.mod", "go.sum"]).unwrap();
    let mut command = Command::new(made.join("informer"));
    command.args(arguments).env("KUBECONFIG", stage.kubeconfig());
    command
}

/// Runs an hour of churn, restarting the server whenever the program asks for it.
async fn churn(stage: &mut Stage, arguments: &[&str], streaming: bool) -> Value {
    let mut command = informer(stage, &[&["churn"], arguments].concat());
    command
        .env("KUBE_FEATURE_WatchListClient", streaming.to_string())
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .kill_on_drop(true);
    let mut child = command.spawn().unwrap();
    let mut input = child.stdin.take().unwrap();
    let mut errors = child.stderr.take().unwrap();
    let mut lines = BufReader::new(child.stdout.take().unwrap()).lines();
    let mut summary = Value::Null;
    let run = async {
        while let Some(line) = lines.next_line().await.unwrap() {
            if line == "restart" {
                stage.stop().await;
                stage.resume().await.unwrap();
                input.write_all(b"restarted\n").await.unwrap();
            } else {
                summary = serde_json::from_str(&line).unwrap();
            }
        }
        let mut said = String::new();
        errors.read_to_string(&mut said).await.unwrap();
        assert!(child.wait().await.unwrap().success(), "{summary}\n{said}");
    };
    tokio::time::timeout(process::LONGEST, run).await.unwrap();
    println!("{summary}");
    assert_eq!(summary["operations"], 3600);
    summary
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_hour_of_churn_with_restarts_under_listing_informers() {
    let mut stage = Stage::start(HistoryLimits::default()).await.unwrap();
    stage.define("informer.example.com").await.unwrap();
    let summary = churn(&mut stage, &["--seed", "1", "--restarts"], false).await;
    assert_eq!(summary["restarts"], 3);
    assert!(summary["cuts"].as_u64() > Some(0), "{summary}");
    stage.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_hour_of_churn_with_a_short_memory_under_streaming_informers() {
    let mut stage = Stage::start(SMALL_HISTORY).await.unwrap();
    stage.define("informer.example.com").await.unwrap();
    let summary = churn(&mut stage, &["--seed", "2"], true).await;
    assert!(summary["expired"].as_u64() > Some(0), "{summary}");
    stage.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn typed_clients_of_go_in_json_protobuf_and_cbor() {
    let mut stage = Stage::start(HistoryLimits::default()).await.unwrap();
    stage.define("informer.example.com").await.unwrap();
    let said = process::good(informer(&stage, &["typed"]), None).await.unwrap();
    assert_eq!(said, "typed json\ntyped protobuf\ntyped cbor\n");
    stage.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_election_of_client_go() {
    let mut stage = Stage::start(HistoryLimits::default()).await.unwrap();
    let said = process::good(informer(&stage, &["elect"]), None).await.unwrap();
    assert_eq!(said, "elected\n");
    stage.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_manager_of_controller_runtime() {
    let mut stage = Stage::start(HistoryLimits::default()).await.unwrap();
    stage.define("informer.example.com").await.unwrap();
    let said = process::good(informer(&stage, &["manager"]), None).await.unwrap();
    assert_eq!(said, "managed 30\n");
    stage.stop().await;
}
