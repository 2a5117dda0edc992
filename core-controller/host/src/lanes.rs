//! How many calls run at a time: for each provider, lane and credential. Calls above
//! that wait, bounded in number and time.
//!
//! A call first gets its place among those of its credential, then in its lane, then
//! among all mutations: so what waits for one credential holds nothing that another
//! needs, and what waits in one lane leaves room for the others.

use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use parking_lot::Mutex;
use prometheus_client::metrics::gauge::Gauge;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};

use crate::config::{CallBounds, HostConfig};
use crate::handle::CredentialId;
use crate::rpc::Lane;
use crate::snapshot::ProviderLimits;

/// The most credentials with places of their own; above that the rest share theirs.
const MAX_CREDENTIALS: usize = 4096;
/// The most calls at a time that are answered from the provider's memory.
const IDENTITY_PLACES: u32 = 8;

/// How many mutations may run, in all and in each lane: a lane never takes all.
pub(crate) fn mutation_places(bounds: &CallBounds, endpoint: Option<u32>, provider: Option<u32>) -> (u32, u32) {
    let all = match (endpoint, provider) {
        (Some(endpoint), Some(provider)) => endpoint.min(provider),
        (Some(limit), None) | (None, Some(limit)) => limit,
        (None, None) => bounds.mutations,
    }
    .clamp(1, 4096);
    let others = if all > 1 { (all / 4).max(1) } else { 0 };
    (all, all - others)
}

fn size(bounds: &CallBounds, mutations: (u32, u32), lane: Lane) -> u32 {
    match lane {
        Lane::Identity => IDENTITY_PLACES,
        Lane::Read => bounds.reads.max(1),
        Lane::List => bounds.lists.max(1),
        Lane::Create | Lane::Update | Lane::Delete => mutations.1,
    }
}

struct Places {
    permits: Arc<Semaphore>,
    waiting: Arc<AtomicUsize>,
    in_flight: Gauge,
    queued: Gauge,
}

/// The places of one provider.
pub(crate) struct Lanes {
    places: [Places; Lane::ALL.len()],
    mutations: Arc<Semaphore>,
    sizes: (u32, u32),
    credentials: Mutex<HashMap<(CredentialId, Lane), Arc<Semaphore>>>,
    bounds: CallBounds,
}

/// A call's place; given back when dropped.
pub(crate) struct Place {
    _credential: OwnedSemaphorePermit,
    _lane: OwnedSemaphorePermit,
    _mutation: Option<OwnedSemaphorePermit>,
    in_flight: Gauge,
}

impl Drop for Place {
    fn drop(&mut self) {
        self.in_flight.dec();
    }
}

/// Too many wait, or it took too long.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct TooBusy;

struct Waiting {
    count: Arc<AtomicUsize>,
    queued: Gauge,
}

impl Drop for Waiting {
    fn drop(&mut self) {
        self.count.fetch_sub(1, Ordering::AcqRel);
        self.queued.dec();
    }
}

impl Lanes {
    pub(crate) fn new(
        provider: &Arc<str>,
        host: &HostConfig,
        max_in_flight: Option<u32>,
        limits: &ProviderLimits,
    ) -> Self {
        let bounds = host.bounds;
        let sizes = mutation_places(&bounds, max_in_flight, limits.max_concurrent_mutations);
        let places = Lane::ALL.map(|lane| {
            let size = size(&bounds, sizes, lane);
            let (in_flight, queued) = host.metrics.lane_gauges(provider, lane);
            Places {
                permits: Arc::new(Semaphore::new(size as usize)),
                waiting: Arc::default(),
                in_flight,
                queued,
            }
        });
        Self {
            places,
            mutations: Arc::new(Semaphore::new(sizes.0 as usize)),
            sizes,
            credentials: Mutex::default(),
            bounds,
        }
    }

    /// Whether these are the places for such limits.
    pub(crate) fn has_limits(&self, host: &HostConfig, max_in_flight: Option<u32>, limits: &ProviderLimits) -> bool {
        self.sizes == mutation_places(&host.bounds, max_in_flight, limits.max_concurrent_mutations)
    }

    /// How many calls may run in a lane.
    pub(crate) fn places(&self, lane: Lane) -> u32 {
        size(&self.bounds, self.sizes, lane)
    }

    /// Waits for a place.
    pub(crate) async fn enter(&self, lane: Lane, credential: &CredentialId) -> Result<Place, TooBusy> {
        let places = &self.places[Lane::ALL.iter().position(|other| *other == lane).unwrap_or_default()];
        let own = self.credential(lane, credential);
        let mutations = lane.is_mutation().then(|| self.mutations.clone());
        let place = |credential, lane, mutation| {
            places.in_flight.inc();
            Place {
                _credential: credential,
                _lane: lane,
                _mutation: mutation,
                in_flight: places.in_flight.clone(),
            }
        };
        if let Some((credential, lane, mutation)) = try_all(&own, &places.permits, mutations.as_ref()) {
            return Ok(place(credential, lane, mutation));
        }
        if places.waiting.fetch_add(1, Ordering::AcqRel) >= self.bounds.queued as usize {
            places.waiting.fetch_sub(1, Ordering::AcqRel);
            return Err(TooBusy);
        }
        places.queued.inc();
        let _waiting = Waiting {
            count: places.waiting.clone(),
            queued: places.queued.clone(),
        };
        let all = async {
            let credential = own.acquire_owned().await.ok()?;
            let lane = places.permits.clone().acquire_owned().await.ok()?;
            let mutation = match mutations {
                Some(mutations) => Some(mutations.acquire_owned().await.ok()?),
                None => None,
            };
            Some((credential, lane, mutation))
        };
        match tokio::time::timeout(self.bounds.queue_wait, all).await {
            Ok(Some((credential, lane, mutation))) => Ok(place(credential, lane, mutation)),
            Ok(None) | Err(_) => Err(TooBusy),
        }
    }

    fn credential(&self, lane: Lane, credential: &CredentialId) -> Arc<Semaphore> {
        let mut credentials = self.credentials.lock();
        let mut key = (credential.clone(), lane);
        if credentials.len() >= MAX_CREDENTIALS && !credentials.contains_key(&key) {
            credentials.retain(|_, semaphore| Arc::strong_count(semaphore) > 1);
            if credentials.len() >= MAX_CREDENTIALS {
                key.0 = CredentialId::new("");
            }
        }
        credentials
            .entry(key)
            .or_insert_with(|| Arc::new(Semaphore::new(self.bounds.per_credential.max(1) as usize)))
            .clone()
    }
}

type Permits = (OwnedSemaphorePermit, OwnedSemaphorePermit, Option<OwnedSemaphorePermit>);

fn try_all(own: &Arc<Semaphore>, lane: &Arc<Semaphore>, mutations: Option<&Arc<Semaphore>>) -> Option<Permits> {
    let own = own.clone().try_acquire_owned().ok()?;
    let lane = lane.clone().try_acquire_owned().ok()?;
    let mutation = match mutations {
        Some(mutations) => Some(mutations.clone().try_acquire_owned().ok()?),
        None => None,
    };
    Some((own, lane, mutation))
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use proptest::prelude::*;

    use super::*;

    fn lanes(bounds: CallBounds, max_in_flight: u32) -> Arc<Lanes> {
        let host = HostConfig {
            bounds,
            ..HostConfig::default()
        };
        Arc::new(Lanes::new(
            &"p".into(),
            &host,
            Some(max_in_flight),
            &ProviderLimits::default(),
        ))
    }

    proptest! {
        #[test]
        fn a_lane_leaves_room_for_the_others(
            endpoint in prop::option::of(any::<u32>()), provider in prop::option::of(1u32..10_000),
        ) {
            let (all, lane) = mutation_places(&CallBounds::default(), endpoint, provider);
            prop_assert!(all >= 1 && lane >= 1 && lane <= all);
            prop_assert!(all == 1 || lane < all);
            prop_assert!(provider.is_none_or(|provider| all <= provider));
            prop_assert!(endpoint.is_none_or(|endpoint| all <= endpoint.max(1)));
        }
    }

    #[tokio::test]
    async fn a_hundred_deletions_leave_a_place_for_a_creation() {
        let lanes = lanes(CallBounds::default(), 4);
        let credential = CredentialId::ambient();
        let mut held = Vec::new();
        for _ in 0..3 {
            held.push(lanes.enter(Lane::Delete, &credential).await.ok());
        }
        let (waiting, other) = (lanes.clone(), credential.clone());
        let fourth = tokio::spawn(async move { waiting.enter(Lane::Delete, &other).await.is_ok() });
        tokio::task::yield_now().await;
        assert!(!fourth.is_finished());
        assert!(lanes.enter(Lane::Create, &credential).await.is_ok());
        held.clear();
        assert!(fourth.await.unwrap());
    }

    #[tokio::test]
    async fn one_credential_that_waits_holds_nothing_of_another() {
        let bounds = CallBounds {
            per_credential: 1,
            reads: 2,
            ..CallBounds::default()
        };
        let lanes = lanes(bounds, 4);
        let (a, b) = (CredentialId::new("a"), CredentialId::new("b"));
        let held = lanes.enter(Lane::Read, &a).await.ok();
        let mut waiting = Vec::new();
        for _ in 0..5 {
            let (lanes, a) = (lanes.clone(), a.clone());
            waiting.push(tokio::spawn(async move { lanes.enter(Lane::Read, &a).await.is_ok() }));
        }
        tokio::task::yield_now().await;
        assert!(lanes.enter(Lane::Read, &b).await.is_ok());
        drop(held);
        for task in waiting {
            assert!(task.await.unwrap());
        }
    }

    #[tokio::test(start_paused = true)]
    async fn above_the_bound_and_after_the_longest_wait_a_call_is_sent_away() {
        let bounds = CallBounds {
            queued: 1,
            queue_wait: Duration::from_secs(3),
            ..CallBounds::default()
        };
        let lanes = lanes(bounds, 1);
        let credential = CredentialId::ambient();
        let held = lanes.enter(Lane::Create, &credential).await.ok();
        assert!(held.is_some());
        let (waiting, other) = (lanes.clone(), credential.clone());
        let second = tokio::spawn(async move { waiting.enter(Lane::Create, &other).await.err() });
        tokio::task::yield_now().await;
        assert_eq!(lanes.enter(Lane::Create, &credential).await.err(), Some(TooBusy));
        assert_eq!(second.await.unwrap(), Some(TooBusy));
        drop(held);
        assert!(lanes.enter(Lane::Create, &credential).await.is_ok());
    }

    #[tokio::test]
    async fn a_dropped_wait_gives_its_place_back() {
        let lanes = lanes(CallBounds::default(), 1);
        let credential = CredentialId::ambient();
        let held = lanes.enter(Lane::Create, &credential).await.ok();
        {
            let mut waiting = Box::pin(lanes.enter(Lane::Create, &credential));
            assert!(futures::poll!(&mut waiting).is_pending());
        }
        let places = &lanes.places[3];
        assert_eq!(places.waiting.load(Ordering::Acquire), 0);
        assert_eq!(places.queued.get(), 0);
        drop(held);
        assert_eq!(places.in_flight.get(), 0);
        assert!(lanes.enter(Lane::Create, &credential).await.is_ok());
    }
}
