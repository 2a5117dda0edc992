//! The server as users of this library see it.

use std::convert::Infallible;
use std::path::{Path, PathBuf};
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};

use bytes::Bytes;
use http::{Request, Response};
use serde_json::json;
use tokio_util::sync::{CancellationToken, DropGuard};

use crate::access::User;
use crate::deep::Carried;
use crate::http::{Body, Handler};
use crate::lifecycle::{self, Queue};
use crate::registry::Registry;
use crate::rest::{Core, now_text};
use crate::storage::{Change, Encoded, Expect, HistoryLimits, Key, OpenError, Store, Write, WriteError};

/// The namespaces that every cluster has.
const NAMESPACES: [&str; 4] = ["default", "kube-system", "kube-public", "kube-node-lease"];

/// Why a server could not be started.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    /// The data file.
    #[error(transparent)]
    Open(#[from] OpenError),
    /// The namespaces that every cluster has could not be made.
    #[error("the initial namespaces cannot be written: {0}")]
    Namespaces(#[source] WriteError),
}

/// A Kubernetes API server. Clones are the same server; it ends with the last of them.
#[derive(Clone)]
pub struct ApiServer {
    inner: Arc<Inner>,
}

struct Inner {
    handler: Arc<Handler>,
    _lifecycle: DropGuard,
}

impl std::fmt::Debug for ApiServer {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        formatter
            .debug_struct("ApiServer")
            .field("store", &self.inner.handler.core.store)
            .finish_non_exhaustive()
    }
}

/// How a server is made.
#[derive(Clone, Debug, Default)]
#[must_use]
pub struct Builder {
    data_file: Option<PathBuf>,
    history: HistoryLimits,
}

impl Builder {
    /// Keeps the objects on this file; what is acknowledged survives `kill -9`.
    pub fn data_file(mut self, path: impl AsRef<Path>) -> Self {
        self.data_file = Some(path.as_ref().to_owned());
        self
    }

    /// Keeps the objects in memory: the default.
    pub fn in_memory(mut self) -> Self {
        self.data_file = None;
        self
    }

    /// How much of the past is kept for watchers, per resource.
    pub fn history(mut self, limits: HistoryLimits) -> Self {
        self.history = limits;
        self
    }

    /// Makes the server; it must be called in a Tokio runtime.
    pub async fn build(self) -> Result<ApiServer, StartError> {
        let store = match self.data_file {
            Some(path) => {
                let limits = self.history;
                let shown = path.display().to_string();
                match tokio::task::spawn_blocking(move || Store::open(&path, limits)).await {
                    Ok(opened) => opened?,
                    Err(error) => {
                        return Err(StartError::Open(OpenError::Damaged {
                            path: shown,
                            reason: format!("reading it ended in a bug ({error}); restore it from a backup"),
                        }));
                    }
                }
            }
            None => Store::in_memory(self.history),
        };
        let queue = Arc::new(Queue::default());
        let observer = Arc::clone(&queue);
        store.observe(Box::new(move |event| observer.observe(event)));
        let core = Arc::new(Core {
            store,
            registry: Registry::new(),
            queue,
        });
        for name in NAMESPACES {
            create_namespace(&core.store, name)
                .await
                .map_err(StartError::Namespaces)?;
        }
        Carried::new(lifecycle::resume(&core)).await;
        let shutdown = CancellationToken::new();
        tokio::spawn(Carried::new(lifecycle::run(Arc::clone(&core), shutdown.clone())));
        Ok(ApiServer {
            inner: Arc::new(Inner {
                handler: Arc::new(Handler::new(core)),
                _lifecycle: shutdown.drop_guard(),
            }),
        })
    }
}

async fn create_namespace(store: &Store, name: &str) -> Result<(), WriteError> {
    let namespace = json!({
        "apiVersion": "v1",
        "kind": "Namespace",
        "metadata": {
            "name": name,
            "uid": uuid::Uuid::new_v4().to_string(),
            "creationTimestamp": now_text(jiff::Timestamp::now()),
            "labels": { "kubernetes.io/metadata.name": name },
        },
        "spec": { "finalizers": ["kubernetes"] },
        "status": { "phase": "Active" },
    });
    let encoded = Encoded::new(&namespace).map_err(|error| WriteError::Unavailable(error.to_string().into()))?;
    let key = Key::new(&"namespaces".into(), "", name);
    let write = Write {
        key,
        expect: Expect::Absent,
        guards: Vec::new(),
        change: Change::Put(encoded),
    };
    match store.write(write).await {
        Ok(_) | Err(WriteError::Exists(_)) => Ok(()),
        Err(error) => Err(error),
    }
}

impl ApiServer {
    /// Starts to describe a server.
    pub fn builder() -> Builder {
        Builder::default()
    }

    /// The server as a service for in-process clients, who are administrators:
    /// `kube::Client::new(server.service(), "default")`.
    pub fn service(&self) -> Service {
        Service {
            server: self.clone(),
            user: User::admin(),
        }
    }

    /// The present revision of the objects.
    pub fn revision(&self) -> u64 {
        self.inner.handler.core.store.revision()
    }

    pub(crate) fn handler(&self) -> Arc<Handler> {
        Arc::clone(&self.inner.handler)
    }
}

/// The server as a [`tower::Service`], for one user.
#[derive(Clone, Debug)]
pub struct Service {
    server: ApiServer,
    user: User,
}

impl Service {
    /// The same service for another user.
    #[must_use]
    pub fn with_user(mut self, user: User) -> Self {
        self.user = user;
        self
    }
}

impl<B> tower::Service<Request<B>> for Service
where
    B: http_body::Body<Data = Bytes> + Send + 'static,
    B::Error: Into<Box<dyn std::error::Error + Send + Sync>>,
{
    type Response = Response<Body>;
    type Error = Infallible;
    type Future = Pin<Box<dyn Future<Output = Result<Response<Body>, Infallible>> + Send>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), Infallible>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, request: Request<B>) -> Self::Future {
        let server = self.server.clone();
        let user = self.user.clone();
        Box::pin(async move { Ok(server.handler().handle(user, request).await) })
    }
}
