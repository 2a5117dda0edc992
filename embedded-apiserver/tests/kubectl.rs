//! The server under kubectl, where there is one on the PATH.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::print_stderr)] // helpers of tests are tests

use std::path::Path;
use std::process::{Output, Stdio};
use std::time::Duration;

use embedded_apiserver::ApiServer;
use tokio::io::{AsyncBufReadExt as _, AsyncWriteExt as _, BufReader};
use tokio::process::Command;
use tokio_util::sync::CancellationToken;

const DEFINITION: &str = r"
apiVersion: apiextensions.k8s.io/v1
kind: CustomResourceDefinition
metadata: {name: widgets.example.com}
spec:
  group: example.com
  scope: Namespaced
  names: {plural: widgets, kind: Widget, shortNames: [wd], categories: [gadgets]}
  versions:
  - name: v1
    served: true
    storage: true
    subresources:
      status: {}
      scale: {specReplicasPath: .spec.replicas, statusReplicasPath: .status.replicas}
    additionalPrinterColumns:
    - {name: Color, type: string, jsonPath: .spec.color}
    - {name: Replicas, type: integer, jsonPath: .spec.replicas}
    - {name: Note, type: string, jsonPath: .spec.note, priority: 1}
    schema:
      openAPIV3Schema:
        type: object
        properties:
          spec:
            type: object
            properties:
              replicas: {type: integer, default: 1, description: How many there should be.}
              color: {type: string, enum: [red, green]}
              note: {type: string}
          status:
            type: object
            properties:
              replicas: {type: integer}
              conditions:
                type: array
                items: {type: object, properties: {type: {type: string}, status: {type: string}}}
";

fn widget(color: &str) -> String {
    format!(
        "apiVersion: example.com/v1\nkind: Widget\nmetadata: {{name: a, labels: {{app: demo}}}}\nspec: {{color: {color}, note: hello}}\n"
    )
}

struct Kubectl<'folder> {
    folder: &'folder Path,
}

impl Kubectl<'_> {
    fn command(&self, line: &str) -> Command {
        let mut command = Command::new("kubectl");
        command
            .args(line.split_whitespace())
            .env("KUBECONFIG", self.folder.join("kubeconfig"))
            .env("HOME", self.folder)
            .env("EDITOR", "sed -i s/green/red/")
            .kill_on_drop(true)
            .stdin(Stdio::null());
        command
    }

    async fn output(&self, line: &str, input: &str) -> Output {
        let mut command = self.command(line);
        command
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped());
        let mut child = command.spawn().unwrap();
        let mut stdin = child.stdin.take().unwrap();
        stdin.write_all(input.as_bytes()).await.unwrap();
        drop(stdin);
        tokio::time::timeout(Duration::from_mins(1), child.wait_with_output())
            .await
            .unwrap()
            .unwrap()
    }

    async fn good_with(&self, line: &str, input: &str) -> String {
        let output = self.output(line, input).await;
        let (out, err) = (
            String::from_utf8_lossy(&output.stdout),
            String::from_utf8_lossy(&output.stderr),
        );
        assert!(output.status.success(), "kubectl {line}\n{out}\n{err}");
        out.into_owned()
    }

    async fn good(&self, line: &str) -> String {
        self.good_with(line, "").await
    }

    async fn bad(&self, line: &str, input: &str) -> String {
        let output = self.output(line, input).await;
        assert!(!output.status.success(), "kubectl {line} should have failed");
        String::from_utf8_lossy(&output.stderr).into_owned()
    }
}

fn has_rows(table: &str, rows: &[&[&str]]) {
    let found: Vec<Vec<&str>> = table.lines().map(|line| line.split_whitespace().collect()).collect();
    assert_eq!(found.len(), rows.len(), "{table}");
    for (found, wanted) in found.iter().zip(rows) {
        assert!(found.starts_with(wanted), "{table}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn kubectl_feels_at_home() {
    if Command::new("kubectl")
        .arg("version")
        .arg("--client")
        .output()
        .await
        .is_err()
    {
        eprintln!("there is no kubectl, so this is not tested");
        return;
    }
    let folder = tempfile::tempdir().unwrap();
    let server = ApiServer::builder().in_memory().build().await.unwrap();
    let shutdown = CancellationToken::new();
    let listen = "127.0.0.1:0".parse().unwrap();
    let running = server
        .serve(listen, &folder.path().join("identity"), shutdown.clone())
        .await
        .unwrap();
    running.write_kubeconfig(&folder.path().join("kubeconfig")).unwrap();
    let kubectl = Kubectl { folder: folder.path() };

    // Definitions and objects: client-side apply, validation by the server, tables.
    kubectl.good_with("apply -f -", DEFINITION).await;
    kubectl
        .good("wait --for condition=Established crd/widgets.example.com --timeout=20s")
        .await;
    assert_eq!(
        kubectl.good_with("apply -f -", &widget("red")).await,
        "widget.example.com/a created\n"
    );
    assert_eq!(
        kubectl.good_with("apply -f -", &widget("red")).await,
        "widget.example.com/a unchanged\n"
    );
    assert_eq!(
        kubectl.good_with("apply -f -", &widget("green")).await,
        "widget.example.com/a configured\n"
    );
    let refused = kubectl.bad("apply -f -", &widget("red").replace("note", "note2")).await;
    assert!(refused.contains("unknown field \"spec.note2\""), "{refused}");
    let refused = kubectl.bad("apply -f -", &widget("blue")).await;
    assert!(refused.contains("supported values: \"red\", \"green\""), "{refused}");
    has_rows(
        &kubectl.good("get wd").await,
        &[&["NAME", "COLOR", "REPLICAS"], &["a", "green", "1"]],
    );
    has_rows(
        &kubectl.good("get gadgets -o wide").await,
        &[&["NAME", "COLOR", "REPLICAS", "NOTE"], &["a", "green", "1", "hello"]],
    );
    assert!(
        kubectl
            .good("explain wd.spec.replicas")
            .await
            .contains("How many there should be.")
    );
    assert!(
        kubectl
            .good("api-resources --api-group=example.com")
            .await
            .contains("Widget")
    );

    // Watching while others write.
    let mut watching = kubectl
        .command("get wd -w --no-headers")
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let mut lines = BufReader::new(watching.stdout.take().unwrap()).lines();
    let mut seen = async || {
        let line = tokio::time::timeout(Duration::from_secs(30), lines.next_line())
            .await
            .unwrap()
            .unwrap()
            .unwrap();
        line.split_whitespace().map(str::to_owned).collect::<Vec<_>>()
    };
    assert_eq!(seen().await, ["a", "green", "1"]);
    kubectl.good("scale wd a --replicas=3").await;
    assert_eq!(seen().await, ["a", "green", "3"]);
    assert_eq!(kubectl.good("edit wd a").await, "widget.example.com/a edited\n");
    assert_eq!(seen().await, ["a", "red", "3"]);
    drop(watching);

    // The other ways to change something.
    kubectl.good("label wd a x=y").await;
    kubectl.good("annotate wd a n=1").await;
    kubectl
        .good(r#"patch wd a --type=json -p [{"op":"replace","path":"/spec/note","value":"bye"}]"#)
        .await;
    kubectl
        .good(r#"patch wd a --subresource=status --type=merge -p {"status":{"conditions":[{"type":"Ready","status":"True"}]}}"#)
        .await;
    kubectl.good("wait --for=condition=Ready wd/a --timeout=20s").await;
    assert!(kubectl.good("describe wd a").await.contains("Ready"));
    let conflict = kubectl.bad("apply --server-side -f -", &widget("green")).await;
    assert!(conflict.contains("conflict"), "{conflict}");
    kubectl
        .good_with("apply --server-side --force-conflicts -f -", &widget("green"))
        .await;
    assert_eq!(kubectl.good("get wd a -o jsonpath={.spec.color}").await, "green");

    // Built-in kinds, whose clients speak protobuf.
    kubectl.good("create ns work").await;
    kubectl.good("create cm c -n work --from-literal=a=b").await;
    kubectl.good("create secret generic s -n work --from-literal=a=b").await;
    assert_eq!(kubectl.good("get secret s -n work -o jsonpath={.data.a}").await, "Yg==");
    assert_eq!(kubectl.good("auth can-i delete pods").await, "yes\n");
    assert!(kubectl.good("auth whoami").await.contains("system:masters"));
    kubectl.good("delete ns work --timeout=30s").await;
    kubectl.bad("get cm c -n work", "").await;
    kubectl.good("delete wd a --cascade=foreground --timeout=30s").await;
    kubectl.good("delete crd widgets.example.com --timeout=30s").await;
    shutdown.cancel();
}
