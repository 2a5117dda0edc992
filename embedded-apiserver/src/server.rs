//! The server as users of this library see it.

use std::convert::Infallible;
use std::path::{Path, PathBuf};
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};

use bytes::Bytes;
use http::{Request, Response};
use serde_json::{Value, json};
use tokio_util::sync::{CancellationToken, DropGuard};

use crate::access::{self, Access, Caller, KeyError, Keys, SigningKey, StaticTokens, User};
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
    /// The namespaces, roles and bindings that every cluster has could not be made.
    #[error("the initial objects cannot be written: {0}")]
    InitialObjects(#[source] WriteError),
    /// The key of service account tokens could not be made.
    #[error("no key for service account tokens can be made: {0}")]
    Key(String),
}

/// A Kubernetes API server. Clones are the same server; it ends with the last of them.
#[derive(Clone)]
pub struct ApiServer {
    inner: Arc<Inner>,
}

struct Inner {
    handler: Arc<Handler>,
    beyond_loopback: bool,
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
    tokens: StaticTokens,
    beyond_loopback: bool,
}

impl Builder {
    /// Allows [`ApiServer::serve`] to listen on addresses that other machines can reach.
    pub fn beyond_loopback(mut self) -> Self {
        self.beyond_loopback = true;
        self
    }

    /// Lets whoever shows this bearer token in as this user, in these groups and in `system:authenticated`. What the
    /// user may do is for roles and bindings to say; the group `system:masters` may do everything.
    pub fn token<G: Into<String>>(
        mut self,
        token: impl AsRef<str>,
        user: impl Into<String>,
        groups: impl IntoIterator<Item = G>,
    ) -> Self {
        let groups = groups.into_iter().map(Into::into).collect();
        self.tokens.add(token.as_ref(), User::authenticated(user, groups));
        self
    }

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
        let key = SigningKey::generate().map_err(|error: KeyError| StartError::Key(error.to_string()))?;
        let access = Arc::new(Access::new(self.tokens, Keys::new(key)));
        let queue = Arc::new(Queue::default());
        let observers = (Arc::clone(&queue), Arc::clone(&access));
        store.observe(Box::new(move |event| {
            observers.1.observe(event);
            observers.0.observe(event);
        }));
        let core = Arc::new(Core {
            store,
            registry: Registry::new(),
            queue,
            access,
        });
        write_initial_objects(&core).await.map_err(StartError::InitialObjects)?;
        Carried::new(lifecycle::resume(&core)).await;
        let shutdown = CancellationToken::new();
        tokio::spawn(Carried::new(lifecycle::run(Arc::clone(&core), shutdown.clone())));
        Ok(ApiServer {
            inner: Arc::new(Inner {
                handler: Arc::new(Handler::new(core)),
                beyond_loopback: self.beyond_loopback,
                _lifecycle: shutdown.drop_guard(),
            }),
        })
    }
}

/// Makes the namespaces, roles and bindings that every cluster has, or brings them up to date. All writes are under way
/// at once, so that a file takes them in one go.
async fn write_initial_objects(core: &Core) -> Result<(), WriteError> {
    let unreadable = |error: &dyn std::fmt::Display| WriteError::Unavailable(error.to_string().into());
    let now = jiff::Timestamp::now();
    let policy = access::defaults(now).map_err(|error| unreadable(&error))?;
    let registry = core.registry.snapshot();
    let mut writes = Vec::new();
    for object in NAMESPACES.iter().map(|name| namespace(name, now)).chain(policy) {
        let text = |pointer: &str| crate::registry::text(&object, pointer);
        let (group, _) = text("/apiVersion").rsplit_once('/').unwrap_or_default();
        let Some(resource) = registry.by_kind(group, text("/kind")) else {
            continue;
        };
        let key = Key::new(&resource.storage, text("/metadata/namespace"), text("/metadata/name"));
        let (expect, object) = match core.store.get(&key) {
            None => (Expect::Absent, object),
            Some(_) if group.is_empty() => continue,
            Some(stored) => {
                let existing = stored.value().map_err(|error| unreadable(&error))?;
                match access::reconciled(&existing, &object) {
                    Some(mended) => (Expect::Revision(stored.revision), mended),
                    None => continue,
                }
            }
        };
        let encoded = Encoded::new(&object).map_err(|error| unreadable(&error))?;
        writes.push(core.store.write(Write {
            key,
            expect,
            guards: Vec::new(),
            change: Change::Put(encoded),
        }));
    }
    futures::future::try_join_all(writes).await?;
    Ok(())
}

fn namespace(name: &str, now: jiff::Timestamp) -> Value {
    json!({
        "apiVersion": "v1",
        "kind": "Namespace",
        "metadata": {
            "name": name,
            "uid": uuid::Uuid::new_v4().to_string(),
            "creationTimestamp": now_text(now),
            "labels": { "kubernetes.io/metadata.name": name },
        },
        "spec": { "finalizers": ["kubernetes"] },
        "status": { "phase": "Active" },
    })
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

    pub(crate) fn may_listen_beyond_loopback(&self) -> bool {
        self.inner.beyond_loopback
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
        // A token may follow where nobody is known.
        let caller = if self.user.is_anonymous() {
            Caller::Unknown
        } else {
            Caller::Known(self.user.clone())
        };
        Box::pin(async move { Ok(server.handler().handle(caller, request).await) })
    }
}
