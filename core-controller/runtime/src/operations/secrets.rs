//! Secrets as operations need them: read when needed, kept for a short while, never
//! watched, never printed.
//!
//! Not for: writing Secrets.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use fnv::FnvHashMap;
use k8s_openapi::api::core::v1::Secret;
use kube::Api;
use outrigger_planner::operation::Failure;
use parking_lot::Mutex;
use tokio::sync::OnceCell;
use tokio::time::Instant;

use super::awaited::ABSENT;

/// How long a failure to read is remembered, so that a thousand machines do not ask.
const FAILURE_LIFETIME: Duration = Duration::from_secs(2);
/// How long reading may take.
const DEADLINE: Duration = Duration::from_secs(10);
/// The most Secrets that are kept.
const MAX_ENTRIES: usize = 1024;
/// The most bytes that are kept in all.
const MAX_BYTES: usize = 16 * 1024 * 1024;

/// The entries of a Secret.
pub struct SecretData {
    /// Its resourceVersion.
    pub version: String,
    /// By name.
    pub entries: BTreeMap<String, Vec<u8>>,
}

impl std::fmt::Debug for SecretData {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("SecretData")
            .field("version", &self.version)
            .field("entries", &self.entries.len())
            .finish()
    }
}

type Read = Result<Arc<SecretData>, Failure>;

#[derive(Debug, Clone)]
struct Entry {
    read_at: Instant,
    cell: Arc<OnceCell<Read>>,
}

/// Reads and keeps Secrets.
pub struct Secrets {
    client: kube::Client,
    entries: Mutex<FnvHashMap<(String, String), Entry>>,
}

impl std::fmt::Debug for Secrets {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Secrets").finish_non_exhaustive()
    }
}

impl Secrets {
    /// Nothing is read yet.
    pub fn new(client: kube::Client) -> Self {
        Self {
            client,
            entries: Mutex::default(),
        }
    }

    /// The Secret with `purpose`, at most `lifetime` old. Everybody who asks at the same
    /// time waits for the same answer.
    pub async fn read(&self, purpose: &str, namespace: &str, name: &str, lifetime: Duration) -> Read {
        let key = (namespace.to_owned(), name.to_owned());
        let cell = {
            let mut entries = self.entries.lock();
            let known = entries.get(&key).filter(|entry| {
                let lifetime = match entry.cell.get() {
                    Some(Err(_)) => FAILURE_LIFETIME,
                    Some(Ok(_)) | None => lifetime.max(FAILURE_LIFETIME),
                };
                entry.read_at.elapsed() < lifetime
            });
            if let Some(entry) = known {
                Arc::clone(&entry.cell)
            } else {
                make_room(&mut entries);
                let entry = Entry {
                    read_at: Instant::now(),
                    cell: Arc::default(),
                };
                let cell = Arc::clone(&entry.cell);
                entries.insert(key, entry);
                cell
            }
        };
        cell.get_or_init(|| self.get(purpose, namespace, name)).await.clone()
    }

    /// The version at which a Secret was last read; that of one that is not there when it
    /// could not be read.
    pub fn version(&self, namespace: &str, name: &str) -> String {
        let entries = self.entries.lock();
        match entries
            .get(&(namespace.to_owned(), name.to_owned()))
            .and_then(|entry| entry.cell.get())
        {
            Some(Ok(data)) => data.version.clone(),
            Some(Err(_)) | None => ABSENT.to_owned(),
        }
    }

    /// The next read asks the API server again.
    pub fn forget(&self, namespace: &str, name: &str) {
        self.entries.lock().remove(&(namespace.to_owned(), name.to_owned()));
    }

    async fn get(&self, purpose: &str, namespace: &str, name: &str) -> Read {
        let api: Api<Secret> = Api::namespaced(self.client.clone(), namespace);
        let unable = |why: String| {
            Failure::not_sent(
                "SecretNotReadable",
                format!("the Secret {namespace}/{name} with the {purpose} cannot be read: {why}"),
            )
        };
        match tokio::time::timeout(DEADLINE, api.get_opt(name)).await {
            Ok(Ok(Some(secret))) => Ok(Arc::new(SecretData {
                version: secret.metadata.resource_version.unwrap_or_default(),
                entries: secret
                    .data
                    .unwrap_or_default()
                    .into_iter()
                    .map(|(entry, value)| (entry, value.0))
                    .collect(),
            })),
            Ok(Ok(None)) => Err(Failure::missing_secret(purpose, namespace, name)),
            Ok(Err(kube::Error::Api(status))) if status.code == 403 => {
                Err(Failure::secret_forbidden(purpose, namespace, name))
            }
            Ok(Err(error)) => Err(unable(error.to_string())),
            Err(_) => Err(unable("the API server does not answer".to_owned())),
        }
    }
}

/// When there are too many, or they are too large, all are forgotten: they are only
/// read again.
fn make_room(entries: &mut FnvHashMap<(String, String), Entry>) {
    let bytes: usize = if entries.len() >= MAX_ENTRIES {
        usize::MAX
    } else {
        entries
            .values()
            .filter_map(|entry| entry.cell.get()?.as_ref().ok())
            .flat_map(|data| data.entries.values())
            .map(Vec::len)
            .sum()
    };
    if bytes > MAX_BYTES {
        entries.clear();
    }
}
