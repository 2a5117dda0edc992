//! Secrets that somebody waits for: missing, incomplete or refused by the cloud. They
//! are looked at often until those who wait have what they need; a change ends the wait
//! at once. Secrets without trouble are not looked at, so nobody has to be allowed to
//! list or watch Secrets.
//!
//! Not for: what is in Secrets.

use std::sync::Arc;
use std::time::Duration;

use fnv::{FnvHashMap, FnvHashSet};
use k8s_openapi::api::core::v1::Secret;
use kube::Api;
use parking_lot::Mutex;

use super::Secrets;
use crate::names::Key;
use crate::reconcile::route::Router;

/// The most Secrets that are looked at; those beyond are only read as plans say.
const MAX_AWAITED: usize = 256;
/// How often each is looked at.
const INTERVAL: Duration = Duration::from_secs(1);
/// How long one look may take.
const DEADLINE: Duration = Duration::from_secs(5);
/// The version of a Secret that is not there.
pub const ABSENT: &str = "absent";

type SecretName = (String, String);

#[derive(Debug, Default)]
struct Entry {
    version: String,
    waiting: FnvHashSet<Key>,
}

/// See the module.
#[derive(Debug, Default)]
pub struct Awaited {
    entries: Mutex<FnvHashMap<SecretName, Entry>>,
}

impl Awaited {
    /// Somebody waits for the Secret to change, which is at this version now.
    pub fn wait(&self, namespace: &str, name: &str, version: &str, who: Key) {
        let mut entries = self.entries.lock();
        let key = (namespace.to_owned(), name.to_owned());
        if entries.len() >= MAX_AWAITED && !entries.contains_key(&key) {
            return;
        }
        let entry = entries.entry(key).or_default();
        if entry.version.is_empty() {
            version.clone_into(&mut entry.version);
        }
        entry.waiting.insert(who);
    }

    /// Nothing is wrong with this object any more, or it is gone.
    pub fn done(&self, who: &Key) {
        self.entries.lock().retain(|_, entry| {
            entry.waiting.remove(who);
            !entry.waiting.is_empty()
        });
    }

    /// The version of a Secret that somebody waits for; "" when nobody does.
    pub fn version(&self, namespace: &str, name: &str) -> String {
        let entries = self.entries.lock();
        if entries.is_empty() {
            return String::new();
        }
        entries
            .get(&(namespace.to_owned(), name.to_owned()))
            .map(|entry| entry.version.clone())
            .unwrap_or_default()
    }

    fn names(&self) -> Vec<SecretName> {
        self.entries.lock().keys().cloned().collect()
    }

    /// The Secret is at this version; those who wait for it, if that is news.
    fn seen(&self, name: &SecretName, version: &str) -> Vec<Key> {
        let mut entries = self.entries.lock();
        match entries.get_mut(name) {
            Some(entry) if entry.version != version => {
                version.clone_into(&mut entry.version);
                entry.waiting.iter().cloned().collect()
            }
            _ => Vec::new(),
        }
    }

    /// Looks at what is awaited until it is dropped.
    pub async fn watch(self: Arc<Self>, client: kube::Client, secrets: Arc<Secrets>, router: Router) {
        let mut tick = tokio::time::interval(INTERVAL);
        tick.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        loop {
            tick.tick().await;
            for name in self.names() {
                let api: Api<Secret> = Api::namespaced(client.clone(), &name.0);
                let version = match tokio::time::timeout(DEADLINE, api.get_metadata_opt(&name.1)).await {
                    Ok(Ok(Some(found))) => found.metadata.resource_version.unwrap_or_default(),
                    Ok(Ok(None)) => ABSENT.to_owned(),
                    // Not known: as before.
                    Ok(Err(_)) | Err(_) => continue,
                };
                let waiting = self.seen(&name, &version);
                if !waiting.is_empty() {
                    secrets.forget(&name.0, &name.1);
                    for key in waiting {
                        router.add(key.kind, key.name);
                    }
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::names::{Kind, Name};

    fn who(name: &str) -> Key {
        Key::new(Kind::Machine, Name::new("default", name))
    }

    #[test]
    fn those_who_wait_hear_of_a_change_once() {
        let awaited = Awaited::default();
        awaited.wait("default", "cloud", ABSENT, who("a"));
        awaited.wait("default", "cloud", ABSENT, who("b"));
        let name = ("default".to_owned(), "cloud".to_owned());
        assert!(awaited.seen(&name, ABSENT).is_empty());
        assert_eq!(awaited.seen(&name, "7").len(), 2);
        assert!(awaited.seen(&name, "7").is_empty());
        assert_eq!(awaited.version("default", "cloud"), "7");
        awaited.done(&who("a"));
        assert_eq!(awaited.seen(&name, "8"), [who("b")]);
        awaited.done(&who("b"));
        assert!(awaited.names().is_empty());
        assert_eq!(awaited.version("default", "cloud"), "");
    }

    #[test]
    fn their_number_is_bounded() {
        let awaited = Awaited::default();
        for index in 0..2 * MAX_AWAITED {
            awaited.wait("default", &index.to_string(), ABSENT, who(&index.to_string()));
        }
        assert_eq!(awaited.names().len(), MAX_AWAITED);
    }
}
