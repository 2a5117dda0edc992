//! The embedded server on a socket, for clients that are processes.

use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use anyhow::Context as _;
use differential::server::Server;
use embedded_apiserver::{ApiServer, HistoryLimits, OpenError, Running, StartError};
use k8s_openapi::apiextensions_apiserver::pkg::apis::apiextensions::v1::CustomResourceDefinition;
use kube::api::{Api, PostParams, ResourceExt as _};
use kube::runtime::wait::{await_condition, conditions};
use serde_json::{Value, json};
use tokio_util::sync::CancellationToken;

/// How long a stopped server may still hold its file.
const LET_GO: Duration = Duration::from_mins(1);
/// How long a definition may take to be served.
const ESTABLISHED: Duration = Duration::from_mins(2);

/// A server that keeps its objects on a file, its certificates and its address, and can be
/// stopped and started like a process.
#[derive(Debug)]
pub struct Stage {
    folder: tempfile::TempDir,
    history: HistoryLimits,
    address: SocketAddr,
    running: Option<(CancellationToken, Running)>,
}

impl Stage {
    /// Starts one.
    pub async fn start(history: HistoryLimits) -> anyhow::Result<Self> {
        let mut stage = Self {
            folder: tempfile::tempdir()?,
            history,
            address: ([127, 0, 0, 1], 0).into(),
            running: None,
        };
        stage.resume().await?;
        Ok(stage)
    }

    /// Its folder, for what a test needs besides.
    pub fn folder(&self) -> &Path {
        self.folder.path()
    }

    /// The administrator's kubeconfig.
    pub fn kubeconfig(&self) -> PathBuf {
        self.folder.path().join("kubeconfig")
    }

    /// The administrator's client.
    pub async fn client(&self) -> anyhow::Result<kube::Client> {
        let yaml = std::fs::read_to_string(self.kubeconfig())?;
        Ok(Server::from_kubeconfig("embedded", &yaml, true).await?.admin)
    }

    /// Makes the widgets of a group known.
    pub async fn define(&self, group: &str) -> anyhow::Result<()> {
        let definitions: Api<CustomResourceDefinition> = Api::all(self.client().await?);
        let definition: CustomResourceDefinition = serde_json::from_value(definition(group))?;
        let name = definition.name_any();
        definitions.create(&PostParams::default(), &definition).await?;
        let established = await_condition(definitions, &name, conditions::is_crd_established());
        tokio::time::timeout(ESTABLISHED, established)
            .await
            .context("the definition was never established")??;
        Ok(())
    }

    /// Starts it again, where it was.
    pub async fn resume(&mut self) -> anyhow::Result<()> {
        let api = self.open().await.context("the server cannot open its file")?;
        let shutdown = CancellationToken::new();
        let running = api
            .serve(self.address, &self.folder.path().join("identity"), shutdown.clone())
            .await?;
        self.address = running.local_addr();
        running.write_kubeconfig(&self.kubeconfig())?;
        self.running = Some((shutdown, running));
        Ok(())
    }

    /// Opens the file; who had it before lets it go a moment after the end.
    async fn open(&self) -> Result<ApiServer, StartError> {
        let until = Instant::now() + LET_GO;
        loop {
            let builder = ApiServer::builder()
                .data_file(self.folder.path().join("objects"))
                .history(self.history);
            match builder.build().await {
                Err(StartError::Open(OpenError::InUse(_))) if Instant::now() < until => {
                    tokio::time::sleep(Duration::from_millis(10)).await;
                }
                opened => return opened,
            }
        }
    }

    /// Stops it; what it holds stays on its file.
    pub async fn stop(&mut self) {
        if let Some((shutdown, running)) = self.running.take() {
            shutdown.cancel();
            running.ended().await;
        }
    }
}

/// The definition of a group's widgets, with a status, a scale, a default and an enumeration.
pub fn definition(group: &str) -> Value {
    json!({
        "apiVersion": "apiextensions.k8s.io/v1",
        "kind": "CustomResourceDefinition",
        "metadata": { "name": format!("widgets.{group}") },
        "spec": {
            "group": group,
            "scope": "Namespaced",
            "names": { "plural": "widgets", "singular": "widget", "kind": "Widget" },
            "versions": [{
                "name": "v1",
                "served": true,
                "storage": true,
                "subresources": {
                    "status": {},
                    "scale": { "specReplicasPath": ".spec.replicas", "statusReplicasPath": ".status.replicas" },
                },
                "schema": { "openAPIV3Schema": {
                    "type": "object",
                    "properties": {
                        "spec": { "type": "object", "properties": {
                            "color": { "type": "string", "enum": ["red", "green"] },
                            "replicas": { "type": "integer", "default": 1 },
                            "second": { "type": "integer" },
                        } },
                        "status": { "type": "object", "properties": {
                            "replicas": { "type": "integer" },
                            "second": { "type": "integer" },
                            "observedGeneration": { "type": "integer" },
                            "conditions": { "type": "array", "items": {
                                "type": "object",
                                "x-kubernetes-preserve-unknown-fields": true,
                            } },
                        } },
                    },
                } },
            }],
        },
    })
}
