//! Providers: objects become endpoints, endpoints given otherwise become objects, and
//! what the host knows becomes their status.
//!
//! Not for: deciding on machines.

use jiff::Timestamp;
use outrigger_api::Provider;
use outrigger_planner::provider::{self, Link, Snapshot, View};
use serde_json::json;

use super::status::Pace;
use super::{Again, Reconciler};
use crate::execute::{Tie, WriteError};
use crate::names::Key;
use crate::providers::endpoints::{self, TLS_LIFETIME, TLS_LIFETIME_IN_TROUBLE};
use crate::providers::snapshots;

impl Reconciler {
    pub(super) async fn reconcile_provider(&self, key: &Key) -> Result<Again, WriteError> {
        let name = &*key.name.name;
        self.hints.update(name);
        let object = self.index.providers.read().get(&key.name);
        let known = self.host.snapshot(name);
        let flag = self.options.providers.get(name);
        let given = known
            .as_ref()
            .filter(|known| endpoints::label_of(known.source).is_some());
        match (&object, given) {
            (None, None) => {
                // The object is gone, and with it the endpoint.
                self.host.remove_endpoint(name);
                self.refresh(name, None);
                return Ok(None);
            }
            (None, Some(given)) => {
                // Machines do not wait for the object that shows the provider.
                self.refresh(name, None);
                if let Some(object) = endpoints::object_for(name, &given.endpoint, given.source, flag) {
                    self.writer.create(&object).await?;
                }
                return Ok(None);
            }
            (Some(object), Some(given)) => {
                let wanted = endpoints::object_for(name, &given.endpoint, given.source, flag);
                if let Some(wanted) = wanted
                    && (object.spec.endpoint != wanted.spec.endpoint || object.spec.tls != wanted.spec.tls)
                    && object.metadata.deletion_timestamp.is_none()
                {
                    self.refresh(name, None);
                    tracing::info!(
                        name,
                        endpoint = given.endpoint,
                        "the Provider gets the endpoint that was given"
                    );
                    let uid = object.metadata.uid.as_deref().unwrap_or_default();
                    // A merge patch: what is not said of the certificates goes.
                    let tls = wanted
                        .spec
                        .tls
                        .map(|tls| json!({ "source": tls.source, "secretRef": null, "serverName": tls.server_name }));
                    let patch = json!({
                        "metadata": { "labels": { endpoints::LABEL_SOURCE: endpoints::label_of(given.source) } },
                        "spec": { "endpoint": given.endpoint, "tls": tls },
                    });
                    self.writer.patch::<Provider>(&key.name, Tie::Uid(uid), patch).await?;
                    return Ok(None);
                }
            }
            (Some(_), None) => {}
        }
        let Some(object) = object else { return Ok(None) };
        let mut wrong = None;
        let mut warning = String::new();
        if given.is_none() && !(endpoints::is_from_folder(&object) && self.options.socket_dir.is_some()) {
            let usable = known
                .as_ref()
                .is_some_and(|known| known.state.is_reachable() && known.endpoint == object.spec.endpoint);
            wrong = self.set_endpoint(name, &object, usable).await.err();
            if usable && let Some((_, why)) = wrong.take() {
                // The host goes on with what it has.
                warning = format!("the certificates cannot be renewed, the former ones stay in use: {why}");
                if known.as_ref().is_some_and(|known| known.warning.is_empty()) {
                    tracing::warn!(name, "{warning}");
                }
            }
        } else if given.is_none() && known.is_none() {
            wrong = Some((
                Link::Unreachable,
                format!(
                    "there is no socket at {} any more; start the provider, or delete this object",
                    object.spec.endpoint
                ),
            ));
        }
        let snapshot = self.refresh(
            name,
            wrong.map(|(link, message)| {
                let mut snapshot = Snapshot::connecting(name, object.spec.endpoint.clone());
                snapshot.link = link;
                snapshot.message = message;
                snapshot
            }),
        );
        let warned = snapshot
            .as_deref()
            .filter(|_| !warning.is_empty())
            .map(|snapshot| Snapshot {
                warning,
                ..snapshot.clone()
            });
        let plan = provider::plan(
            &View {
                provider: &object,
                snapshot: warned.as_ref().or(snapshot.as_deref()),
            },
            Timestamp::now(),
        );
        tracing::trace!(name, reason = plan.reason, "planned a Provider");
        self.write_status(&*object, object.status.as_ref(), &plan.status, Pace::AtOnce)
            .await?;
        self.record(&*object, plan.events);
        // The files of a remote provider may be renewed.
        let usable = snapshot
            .as_ref()
            .is_some_and(|snapshot| snapshot.link.is_usable() && snapshot.warning.is_empty())
            && warned.is_none();
        Ok(object
            .spec
            .tls
            .as_ref()
            .map(|_| if usable { TLS_LIFETIME } else { TLS_LIFETIME_IN_TROUBLE }))
    }

    /// Gives the host the endpoint that the object describes.
    async fn set_endpoint(&self, name: &str, object: &Provider, usable: bool) -> Result<(), (Link, String)> {
        let lifetime = if usable { TLS_LIFETIME } else { TLS_LIFETIME_IN_TROUBLE };
        let reference = object.spec.tls.as_ref().and_then(|tls| tls.secret_ref.as_ref());
        let secret = match reference {
            None => None,
            Some(reference) => Some(
                self.secrets
                    .read("TLS files", &reference.namespace, &reference.name, lifetime)
                    .await
                    .map_err(|failure| (Link::Misconfigured, failure.message))?,
            ),
        };
        let config =
            endpoints::from_object(object, secret.as_ref()).map_err(|message| (Link::Misconfigured, message))?;
        self.host
            .set_endpoint(name, config)
            .map_err(|error| (Link::Misconfigured, error.to_string()))
    }

    /// Takes over what the host knows of a provider, or `instead`, and has those look who
    /// decide on it.
    fn refresh(&self, name: &str, instead: Option<Snapshot>) -> Option<std::sync::Arc<Snapshot>> {
        let watching = self.hints.is_watching(name);
        let new = instead.or_else(|| {
            self.host
                .snapshot(name)
                .map(|snapshot| snapshots::convert(&snapshot, watching))
        });
        if let Some(session) = new.as_ref().map(|snapshot| snapshot.instance_id.clone())
            && !session.is_empty()
        {
            self.memory.verdicts(|verdicts| verdicts.keep_session(name, &session));
        }
        let old = self.snapshots.set(name, new);
        let new = self.snapshots.get(name);
        if snapshots::matters(old.as_deref(), new.as_deref()) {
            if let Some(new) = &new {
                tracing::info!(
                    provider = name,
                    state = new.link.name(),
                    endpoint = new.endpoint,
                    version = new.version,
                    message = new.message,
                    "the provider's state"
                );
            }
            self.router.add_members_of_provider(name);
        }
        new
    }

    /// Queues every provider that is known in any way.
    pub fn add_providers(&self) {
        for snapshot in self.host.snapshots() {
            self.router.add(
                crate::names::Kind::Provider,
                crate::names::Name::new("", &snapshot.name),
            );
        }
        for name in self.snapshots.names() {
            self.router
                .add(crate::names::Kind::Provider, crate::names::Name::new("", &name));
        }
    }
}
