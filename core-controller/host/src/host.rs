//! The host itself: which providers there are, and who is told when one changes.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::Arc;

use parking_lot::Mutex;
use tokio::sync::broadcast;
use tokio_util::task::AbortOnDropHandle;

use crate::config::{EndpointConfig, EndpointSource, HostConfig};
use crate::endpoint::{Endpoint, EndpointError, is_provider_name};
use crate::handle::ProviderHandle;
use crate::shared::Shared;
use crate::snapshot::ProviderSnapshot;
use crate::{folder, supervise};

/// The most changes that a slow subscriber is behind before it is told to look at all.
const MAX_CHANGES_BEHIND: usize = 256;

/// All providers. Clones are cheap and mean the same host; when the last one is
/// dropped, connections are closed. Needs a Tokio runtime.
#[derive(Clone)]
pub struct Host {
    inner: Arc<Inner>,
}

struct Inner {
    config: HostConfig,
    providers: Mutex<BTreeMap<Arc<str>, Provider>>,
    folders: Mutex<BTreeMap<PathBuf, AbortOnDropHandle<()>>>,
    changes: broadcast::Sender<Arc<str>>,
}

struct Provider {
    shared: Arc<Shared>,
    _supervisor: AbortOnDropHandle<()>,
}

/// Something has changed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Change {
    /// The snapshot of this provider, which may also be gone.
    Provider(Arc<str>),
    /// More than one could keep up with: look at all snapshots.
    All,
}

/// The changes from now on.
#[derive(Debug)]
pub struct Changes {
    receiver: broadcast::Receiver<Arc<str>>,
}

impl Changes {
    /// The next change; `None` when the host is gone. Safe to cancel.
    pub async fn next(&mut self) -> Option<Change> {
        match self.receiver.recv().await {
            Ok(name) => Some(Change::Provider(name)),
            Err(broadcast::error::RecvError::Lagged(_)) => Some(Change::All),
            Err(broadcast::error::RecvError::Closed) => None,
        }
    }
}

impl Host {
    /// A host without providers.
    pub fn new(config: HostConfig) -> Self {
        Self {
            inner: Arc::new(Inner {
                config,
                providers: Mutex::default(),
                folders: Mutex::default(),
                changes: broadcast::channel(MAX_CHANGES_BEHIND).0,
            }),
        }
    }

    /// Adds a provider, or changes its endpoint; nothing happens when it is the same
    /// already. Connecting goes on in the background for as long as it takes.
    pub fn set_endpoint(&self, name: &str, config: EndpointConfig) -> Result<(), EndpointError> {
        check(name, &config)?;
        let mut providers = self.inner.providers.lock();
        if let Some(provider) = providers.get(name) {
            provider.shared.reconfigure(config);
            return Ok(());
        }
        let name: Arc<str> = name.into();
        let shared = Arc::new(Shared::new(
            name.clone(),
            config,
            self.inner.config.clone(),
            self.inner.changes.clone(),
        ));
        let supervisor = AbortOnDropHandle::new(tokio::spawn(supervise::run(shared.clone())));
        providers.insert(
            name,
            Provider {
                shared: shared.clone(),
                _supervisor: supervisor,
            },
        );
        drop(providers);
        shared.tell();
        Ok(())
    }

    /// Removes a provider; its calls under way run to their end, new ones are refused.
    pub fn remove_endpoint(&self, name: &str) {
        let removed = self.inner.providers.lock().remove(name);
        if let Some(provider) = removed {
            provider.shared.removed();
        }
    }

    /// Adds a provider for each `<folder>/<name>/actuator.sock` that appears, and
    /// forgets it when the folder of that name vanishes, or when the socket was gone for
    /// long. A name that was set in another way is left alone.
    pub fn watch_socket_folder(&self, path: impl Into<PathBuf>) {
        let path = path.into();
        let mut folders = self.inner.folders.lock();
        folders.entry(path).or_insert_with_key(|path| {
            let weak = WeakHost(Arc::downgrade(&self.inner));
            AbortOnDropHandle::new(tokio::spawn(folder::watch(weak, path.clone(), self.inner.config.times)))
        });
    }

    /// How things stand with a provider.
    pub fn snapshot(&self, name: &str) -> Option<ProviderSnapshot> {
        self.provider(name).map(|provider| provider.snapshot())
    }

    /// How things stand with all providers, by name.
    pub fn snapshots(&self) -> Vec<ProviderSnapshot> {
        let providers: Vec<_> = self.inner.providers.lock().values().map(|p| p.shared.clone()).collect();
        providers.iter().map(|shared| shared.snapshot()).collect()
    }

    /// Tells of changes from now on.
    pub fn subscribe(&self) -> Changes {
        Changes {
            receiver: self.inner.changes.subscribe(),
        }
    }

    /// A provider to call; `None` when no endpoint of that name is set.
    pub fn provider(&self, name: &str) -> Option<ProviderHandle> {
        let providers = self.inner.providers.lock();
        providers.get(name).map(|provider| ProviderHandle {
            shared: provider.shared.clone(),
        })
    }

    /// Who named the endpoint of a provider.
    pub(crate) fn source(&self, name: &str) -> Option<EndpointSource> {
        self.inner.providers.lock().get(name).map(|p| p.shared.config().source)
    }
}

/// The host for its own tasks, which must not keep it alive.
pub(crate) struct WeakHost(std::sync::Weak<Inner>);

impl WeakHost {
    pub(crate) fn upgrade(&self) -> Option<Host> {
        self.0.upgrade().map(|inner| Host { inner })
    }
}

fn check(name: &str, config: &EndpointConfig) -> Result<(), EndpointError> {
    if !is_provider_name(name) {
        return Err(EndpointError::Name(name.to_owned()));
    }
    let endpoint = config.endpoint.to_string();
    // The variants are public: whoever made one by hand gets the same checks.
    endpoint.parse::<Endpoint>()?;
    match &config.endpoint {
        Endpoint::Https { .. } if config.tls.is_none() => return Err(EndpointError::TlsMissing(endpoint)),
        Endpoint::HttpLoopback(_) if !config.allow_plain_http => return Err(EndpointError::PlainNotAllowed(endpoint)),
        Endpoint::Unix(_) | Endpoint::HttpLoopback(_) if config.tls.is_some() => {
            return Err(EndpointError::TlsUnused(endpoint));
        }
        _ => {}
    }
    match config.rate {
        Some(rate) if !(rate.per_second > 0.0 && rate.burst > 0) => Err(EndpointError::Rate(endpoint)),
        _ => Ok(()),
    }
}
