//! The socket folder: `<folder>/<name>/actuator.sock` is the endpoint of provider
//! `<name>`. It is read at intervals, which is enough and works on every file system.

use std::collections::BTreeMap;
use std::os::unix::fs::FileTypeExt as _;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use crate::config::{EndpointConfig, EndpointSource, HostTimes};
use crate::endpoint::{Endpoint, is_provider_name};
use crate::host::WeakHost;

/// The name of a provider's socket in its folder.
const SOCKET: &str = "actuator.sock";
/// The most entries of the folder that are looked at.
const MAX_ENTRIES: usize = 256;

/// What is in the folder of one name.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Found {
    /// A socket.
    Socket,
    /// The folder without a socket.
    Folder,
}

/// Which endpoints the folder has given.
#[derive(Debug, Default)]
struct Known {
    /// The names, with the time since when the socket is gone.
    names: BTreeMap<String, Option<Instant>>,
}

#[derive(Debug, PartialEq, Eq)]
enum Step {
    Add(String),
    Remove(String),
}

impl Known {
    /// What to do after a look. Pure.
    fn look(&mut self, found: &BTreeMap<String, Found>, now: Instant, forget: Duration) -> Vec<Step> {
        let mut steps = Vec::new();
        for (name, found) in found {
            if *found == Found::Socket && self.names.insert(name.clone(), None).is_none() {
                steps.push(Step::Add(name.clone()));
            }
        }
        self.names.retain(|name, gone_since| {
            let keep = match found.get(name) {
                Some(Found::Socket) => true,
                // A provider that restarts takes its socket away for a while.
                Some(Found::Folder) => now.saturating_duration_since(*gone_since.get_or_insert(now)) < forget,
                None => false,
            };
            if !keep {
                steps.push(Step::Remove(name.clone()));
            }
            keep
        });
        steps
    }
}

/// Watches the folder until the host is gone.
pub(crate) async fn watch(host: WeakHost, folder: PathBuf, times: HostTimes) {
    let mut known = Known::default();
    loop {
        let found = read(&folder).await;
        let Some(host) = host.upgrade() else { return };
        if let Some(found) = found {
            for step in known.look(&found, Instant::now(), times.folder_forget) {
                apply(&host, &folder, &step);
            }
        }
        drop(host);
        tokio::time::sleep(times.folder_poll).await;
    }
}

fn apply(host: &crate::Host, folder: &Path, step: &Step) {
    let (Step::Add(name) | Step::Remove(name)) = step;
    let foreign = host
        .source(name)
        .is_some_and(|source| source != EndpointSource::SocketFolder);
    match step {
        _ if foreign => {}
        Step::Add(name) => {
            let endpoint = Endpoint::Unix(folder.join(name).join(SOCKET));
            tracing::info!(provider = %name, %endpoint, "a provider's socket has appeared");
            if let Err(error) = host.set_endpoint(name, EndpointConfig::new(endpoint, EndpointSource::SocketFolder)) {
                tracing::warn!(provider = %name, %error, "the socket cannot be used");
            }
        }
        Step::Remove(name) => {
            tracing::info!(provider = %name, "a provider's socket has vanished");
            host.remove_endpoint(name);
        }
    }
}

/// What is in the folder; `None` when that cannot be told, which is not "nothing".
async fn read(folder: &Path) -> Option<BTreeMap<String, Found>> {
    let mut found = BTreeMap::new();
    let mut entries = tokio::fs::read_dir(folder).await.ok()?;
    for _ in 0..MAX_ENTRIES {
        let Some(entry) = entries.next_entry().await.ok()? else {
            break;
        };
        let Some(name) = entry.file_name().to_str().map(ToOwned::to_owned) else {
            continue;
        };
        if !is_provider_name(&name) || !entry.file_type().await.is_ok_and(|kind| kind.is_dir()) {
            continue;
        }
        let socket = tokio::fs::symlink_metadata(entry.path().join(SOCKET)).await;
        let is_socket = socket.is_ok_and(|socket| socket.file_type().is_socket());
        found.insert(name, if is_socket { Found::Socket } else { Found::Folder });
    }
    Some(found)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_come_and_go_and_a_restart_is_not_the_end() {
        let start = Instant::now();
        let forget = Duration::from_mins(5);
        let mut known = Known::default();
        let found = |found: Option<Found>| found.map(|found| ("aws".to_owned(), found)).into_iter().collect();
        assert_eq!(known.look(&found(Some(Found::Folder)), start, forget), []);
        assert_eq!(
            known.look(&found(Some(Found::Socket)), start, forget),
            [Step::Add("aws".into())]
        );
        assert_eq!(known.look(&found(Some(Found::Socket)), start, forget), []);
        assert_eq!(known.look(&found(Some(Found::Folder)), start, forget), []);
        let later = start + forget / 2;
        assert_eq!(known.look(&found(Some(Found::Socket)), later, forget), []);
        assert_eq!(known.look(&found(Some(Found::Folder)), later, forget), []);
        assert_eq!(known.look(&found(Some(Found::Folder)), start + forget, forget), []);
        assert_eq!(
            known.look(&found(Some(Found::Folder)), later + forget, forget),
            [Step::Remove("aws".into())]
        );
        known.look(&found(Some(Found::Socket)), later, forget);
        assert_eq!(known.look(&found(None), later, forget), [Step::Remove("aws".into())]);
    }
}
