//! helm, of both major versions, with a chart as operators have it: definitions, custom objects,
//! hooks, access. helm 3 merges three ways, helm 4 applies server-side.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)] // helpers of tests are tests

use std::path::PathBuf;

use clients::stage::Stage;
use clients::{process, tools};
use embedded_apiserver::HistoryLimits;
use serde_json::{Value, json};
use tokio::process::Command;

const NAMESPACE: &str = "apps";

struct Helm<'stage> {
    stage: &'stage Stage,
    program: PathBuf,
    kubectl: PathBuf,
}

impl Helm<'_> {
    fn command(&self, program: &PathBuf, line: &str) -> Command {
        let home = self.stage.folder().join("home");
        let mut command = Command::new(program);
        command
            .args(line.split_whitespace())
            .args(["--namespace", NAMESPACE])
            .current_dir(tools::sources())
            .env("HOME", &home)
            .env("XDG_CACHE_HOME", home.join("cache"))
            .env("XDG_CONFIG_HOME", home.join("config"))
            .env("XDG_DATA_HOME", home.join("data"))
            .env("KUBECONFIG", self.stage.kubeconfig());
        command
    }

    async fn helm(&self, line: &str) -> String {
        process::good(self.command(&self.program, line), None).await.unwrap()
    }

    async fn helm_json(&self, line: &str) -> Value {
        serde_json::from_str(&self.helm(&format!("{line} -o json")).await).unwrap()
    }

    async fn kubectl(&self, line: &str) -> String {
        process::good(self.command(&self.kubectl, line), None).await.unwrap()
    }

    async fn object(&self, name: &str) -> Value {
        serde_json::from_str(&self.kubectl(&format!("get {name} -o json")).await).unwrap()
    }

    /// What there is of the release, by kind and name.
    async fn names(&self) -> Vec<String> {
        let kinds = "configmaps,secrets,serviceaccounts,roles,rolebindings,daemonsets,widgets.helm.example.com";
        let names = self.kubectl(&format!("get {kinds} -o name")).await;
        let mut names: Vec<String> = names
            .lines()
            .filter(|name| !name.contains("/sh.helm.release"))
            .map(str::to_owned)
            .collect();
        names.sort();
        names
    }
}

fn all(extra: bool) -> Vec<&'static str> {
    let mut names = vec!["configmap/op", "configmap/op-before"];
    if extra {
        names.push("configmap/op-extra");
    }
    names.extend([
        "daemonset.apps/op",
        "role.rbac.authorization.k8s.io/op",
        "rolebinding.rbac.authorization.k8s.io/op",
        "secret/op",
        "serviceaccount/op",
        "widget.helm.example.com/op",
    ]);
    names
}

async fn life_of_a_release(program: &str) {
    let mut stage = Stage::start(HistoryLimits::default()).await.unwrap();
    let it = Helm {
        stage: &stage,
        program: tools::program(program).unwrap(),
        kubectl: tools::program("kubectl").unwrap(),
    };

    let said = it.helm("install op chart --create-namespace --set color=green").await;
    assert!(
        said.contains("STATUS: deployed") && said.contains("op is green."),
        "{said}"
    );
    assert_eq!(it.names().await, all(true));
    assert_eq!(
        it.object("configmap/op").await["data"],
        json!({ "revision": "1", "color": "green" })
    );
    let listed = it.helm_json("list").await;
    assert_eq!(listed[0]["name"], "op");
    assert_eq!(listed[0]["status"], "deployed");
    assert_eq!(listed[0]["chart"], "widget-operator-0.1.0");
    let status = it.helm_json("status op").await;
    assert_eq!(status["info"]["status"], "deployed");
    assert_eq!(it.helm_json("get values op").await, json!({ "color": "green" }));
    let releases = it.kubectl("get secrets -l owner=helm,status=deployed -o name").await;
    assert_eq!(releases, "secret/sh.helm.release.v1.op.v1\n");

    // What someone else wrote stays, what the chart no longer says goes, what it says otherwise changes.
    it.kubectl("label widget.helm.example.com/op mine=stays").await;
    it.kubectl(r#"patch widget.helm.example.com/op --type=merge -p {"spec":{"note":"mine"}}"#)
        .await;
    it.helm("upgrade op chart --set color=red,extra=false,replicas=2").await;
    assert_eq!(it.names().await, all(false));
    let widget = it.object("widget.helm.example.com/op").await;
    assert_eq!(widget["spec"], json!({ "color": "red", "replicas": 2, "note": "mine" }));
    assert_eq!(widget["metadata"]["labels"]["mine"], "stays");
    assert_eq!(it.object("configmap/op-before").await["data"]["revision"], "2");

    // What the server refuses fails the upgrade, and is told.
    let refused = it.command(&it.program, "upgrade op chart --set color=blue,extra=false,replicas=2");
    let refused = process::output(refused, None).await.unwrap();
    let said = String::from_utf8_lossy(&refused.stderr);
    assert!(!refused.status.success() && said.contains("supported values"), "{said}");

    it.helm("rollback op 1").await;
    assert_eq!(it.names().await, all(true));
    let widget = it.object("widget.helm.example.com/op").await;
    assert_eq!(widget["spec"]["color"], "green");
    assert_eq!(widget["spec"]["replicas"], 1);
    let history = it.helm_json("history op").await;
    let statuses: Vec<&Value> = history
        .as_array()
        .unwrap()
        .iter()
        .map(|entry| &entry["status"])
        .collect();
    assert_eq!(statuses, ["superseded", "superseded", "failed", "deployed"]);

    it.helm("uninstall op --wait").await;
    assert_eq!(it.names().await, ["configmap/op-before"]);
    assert_eq!(it.helm_json("list").await, json!([]));
    // Definitions stay, as helm has it.
    it.kubectl("get crd widgets.helm.example.com").await;

    let rendered = it.helm("template op chart --set color=green --no-hooks").await;
    let applied = process::good(it.command(&it.kubectl, "apply -f -"), Some(&rendered))
        .await
        .unwrap();
    assert!(applied.contains("widget.helm.example.com/op created"), "{applied}");
    let again = process::good(it.command(&it.kubectl, "apply -f -"), Some(&rendered))
        .await
        .unwrap();
    assert!(again.lines().all(|line| line.ends_with(" unchanged")), "{again}");
    stage.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn helm_3() {
    life_of_a_release("helm3").await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn helm_4() {
    life_of_a_release("helm4").await;
}
