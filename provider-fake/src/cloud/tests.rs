//! The cloud call by call: replays, conflicts, deletion, time. Its limits and faults are
//! in `fault_tests`.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use actuator_proto::v1::ErrorReason;
use jiff::{SignedDuration, Timestamp};

use super::instances::{InstanceRef, InstanceShape, ModifyInstance, Removal, RunInstance};
use super::model::{Instance, InstanceState, Kind, Owner, Target};
use super::networks::{CreateNetwork, NetworkRef, NetworkShape};
use super::{Caller, Cloud, CloudOptions, ManualClock, Settings, WatchItem};
use crate::audit;

/// A cloud in a folder of its own whose time is turned by hand.
pub(super) struct Bench {
    pub(super) folder: tempfile::TempDir,
    pub(super) clock: Arc<ManualClock>,
    pub(super) cloud: Cloud,
}

pub(super) fn settings(pairs: &[(&str, &str)]) -> Settings {
    let mut settings = Settings::default();
    for (name, value) in pairs {
        settings.set(name, value).expect("a setting");
    }
    settings
}

impl Bench {
    pub(super) fn new(pairs: &[(&str, &str)]) -> Self {
        let folder = tempfile::tempdir().expect("a folder");
        let clock = Arc::new(ManualClock::new(
            Timestamp::from_second(1_800_000_000).expect("in range"),
        ));
        let cloud = open(folder.path(), settings(pairs), Arc::clone(&clock));
        Self { folder, clock, cloud }
    }

    pub(super) async fn with_network(pairs: &[(&str, &str)]) -> Self {
        let bench = Self::new(pairs);
        bench.network("c1").await;
        bench
    }

    pub(super) async fn network(&self, cluster: &str) {
        self.cloud
            .create_network(&caller(), &network(cluster))
            .await
            .expect("a network");
    }

    pub(super) fn pass(&self, milliseconds: i64) {
        self.clock.advance(SignedDuration::from_millis(milliseconds));
    }

    pub(super) async fn run(&self, key: &str) -> Result<Arc<Instance>, super::CloudError> {
        self.cloud.run_instance(&caller(), &run(key)).await
    }

    pub(super) async fn describe(&self, key: &str) -> Option<Arc<Instance>> {
        self.cloud
            .describe_instance(&caller(), &instance(key))
            .await
            .expect("an answer")
    }

    pub(super) async fn terminate(&self, key: &str) -> Removal<Instance> {
        self.cloud
            .terminate_instance(&caller(), &instance(key))
            .await
            .expect("an answer")
    }

    /// Closes the cloud as a kill would (no snapshot) and opens it again.
    pub(super) fn reopen(self) -> Self {
        let Self { folder, clock, cloud } = self;
        let settings = (*cloud.settings()).clone();
        drop(cloud);
        let cloud = open(folder.path(), settings, Arc::clone(&clock));
        Self { folder, clock, cloud }
    }
}

fn open(folder: &std::path::Path, settings: Settings, clock: Arc<ManualClock>) -> Cloud {
    let options = CloudOptions {
        folder: folder.to_owned(),
        settings,
        seed: 7,
        flush: false,
    };
    Cloud::open_at(options, clock).expect("opened")
}

pub(super) fn caller() -> Caller {
    Caller::default()
}

pub(super) fn owner(cluster: &str, object: &str) -> Owner {
    Owner {
        management_cluster: "m1".to_owned(),
        cluster: cluster.to_owned(),
        object: object.to_owned(),
        ..Owner::default()
    }
}

pub(super) fn network(cluster: &str) -> CreateNetwork {
    CreateNetwork {
        key: cluster.to_owned(),
        owner: owner(cluster, cluster),
        shape: NetworkShape {
            name: "demo".to_owned(),
            region: None,
            cidr: "10.0.0.0/12".parse().expect("a range"),
            zones: Vec::new(),
            load_balancer_port: Some(6443),
            given_endpoint: None,
            labels: BTreeMap::new(),
        },
        digest: "d1".to_owned(),
        generation: 1,
        fails_with: None,
    }
}

pub(super) fn network_ref(cluster: &str) -> NetworkRef {
    NetworkRef {
        key: cluster.to_owned(),
        owner: owner(cluster, cluster),
        id: None,
    }
}

fn shape() -> InstanceShape {
    InstanceShape {
        name: "worker".to_owned(),
        kubernetes_version: "v1.34.1".to_owned(),
        control_plane: false,
        zone: None,
        machine_type: "fake.small".to_owned(),
        image: "fakeos-1".to_owned(),
        disk_gib: 20,
        public_address: true,
        labels: BTreeMap::new(),
        taints: Vec::new(),
        console_kib: 0,
    }
}

pub(super) fn run(key: &str) -> RunInstance {
    RunInstance {
        key: key.to_owned(),
        owner: owner("c1", key),
        shape: shape(),
        digest: "d1".to_owned(),
        generation: 1,
        boot_delay: None,
        lifetime: None,
        fails_at_boot: false,
        fails_with: None,
        bootstrap_bytes: 3,
    }
}

pub(super) fn instance(key: &str) -> InstanceRef {
    InstanceRef {
        key: key.to_owned(),
        owner: owner("c1", key),
        id: None,
    }
}

fn modify(key: &str, generation: i64, change: impl FnOnce(&mut InstanceShape)) -> ModifyInstance {
    let mut shape = shape();
    change(&mut shape);
    ModifyInstance {
        instance: instance(key),
        shape,
        digest: format!("d{generation}"),
        generation,
    }
}

pub(super) fn reason<T: std::fmt::Debug>(answer: Result<T, super::CloudError>) -> ErrorReason {
    answer.expect_err("an error").reason
}

#[tokio::test]
async fn a_replay_returns_the_same_instance_and_another_digest_conflicts() {
    let bench = Bench::with_network(&[]).await;
    let first = bench.run("k").await.expect("made");
    assert_eq!(bench.run("k").await.expect("replayed").id, first.id);
    let bench = bench.reopen();
    let mut rotated = run("k");
    rotated.bootstrap_bytes = 99;
    let again = bench.cloud.run_instance(&caller(), &rotated).await.expect("replayed");
    assert_eq!(again.id, first.id);
    let mut other = run("k");
    other.digest = "d2".to_owned();
    assert_eq!(
        reason(bench.cloud.run_instance(&caller(), &other).await),
        ErrorReason::KeyConflict
    );
    assert_eq!(bench.describe("k").await.expect("untouched").digest, "d1");
    let report = audit::audit(bench.folder.path()).expect("a report");
    assert!(
        report.clean && report.live["instance"] == 1 && report.live["disk"] == 1,
        "{report:?}"
    );
    assert_eq!(
        report.calls["RunInstance"],
        BTreeMap::from([("OK".to_owned(), 3), ("KEY_CONFLICT".to_owned(), 1)])
    );
}

#[tokio::test]
async fn after_an_update_the_digest_of_the_creation_still_finds_the_instance() {
    let bench = Bench::with_network(&[]).await;
    let made = bench.run("k").await.expect("made");
    let updated = bench
        .cloud
        .modify_instance(&caller(), &modify("k", 2, |shape| shape.disk_gib = 40))
        .await;
    assert_eq!(updated.expect("updated").digest, "d2");
    let mut late = run("k");
    late.generation = 2;
    assert_eq!(
        bench.cloud.run_instance(&caller(), &late).await.expect("found").id,
        made.id
    );
    assert_eq!(reason(bench.run("k").await), ErrorReason::StaleGeneration);
    assert_eq!(
        reason(bench.cloud.modify_instance(&caller(), &modify("k", 1, |_| {})).await),
        ErrorReason::StaleGeneration
    );
}

#[tokio::test]
async fn what_cannot_be_changed_in_place_says_so_and_changes_nothing() {
    let bench = Bench::with_network(&[]).await;
    bench.run("k").await.expect("made");
    let before = bench.cloud.resources();
    let changes: [fn(&mut InstanceShape); 6] = [
        |shape| shape.machine_type = "fake.large".to_owned(),
        |shape| shape.image = "fakeos-2".to_owned(),
        |shape| shape.kubernetes_version = "v1.35.0".to_owned(),
        |shape| shape.public_address = false,
        |shape| shape.disk_gib = 10,
        |shape| shape.zone = Some("zone-c".to_owned()),
    ];
    for change in changes {
        let answer = bench.cloud.modify_instance(&caller(), &modify("k", 2, change)).await;
        assert_eq!(reason(answer), ErrorReason::ReplaceRequired);
    }
    assert_eq!(bench.cloud.resources(), before);
    let absent = bench
        .cloud
        .modify_instance(&caller(), &modify("nobody", 1, |_| {}))
        .await;
    assert_eq!(reason(absent), ErrorReason::ResourceNotFound);
}

#[tokio::test]
async fn deletion_takes_everything_and_a_late_create_brings_nothing_back() {
    let bench = Bench::with_network(&[]).await;
    bench.run("k").await.expect("made");
    assert_eq!(bench.terminate("k").await, Removal::Gone);
    assert_eq!(bench.terminate("k").await, Removal::Gone);
    // Never made, but deleted: its create is still on the way.
    assert_eq!(bench.terminate("early").await, Removal::Gone);
    let bench = bench.reopen();
    for key in ["k", "early"] {
        assert_eq!(reason(bench.run(key).await), ErrorReason::StaleGeneration);
        assert_eq!(bench.describe(key).await, None);
    }
    let left: Vec<Kind> = bench
        .cloud
        .resources()
        .iter()
        .map(super::model::Resource::kind)
        .collect();
    assert_eq!(left, [Kind::Network]);
}

#[tokio::test]
async fn foreign_instances_are_not_touched() {
    let bench = Bench::with_network(&[]).await;
    let one = bench.run("k1").await.expect("made");
    bench.run("k2").await.expect("made");
    let mut by_id = instance("k2");
    by_id.id = Some((one.zone.clone(), one.id.clone()));
    let mut unknown_key = instance("k3");
    unknown_key.id = Some((one.zone.clone(), one.id.clone()));
    let mut thief = instance("k1");
    thief.owner.management_cluster = "m2".to_owned();
    for wanted in [by_id, unknown_key, thief] {
        assert_eq!(
            reason(bench.cloud.terminate_instance(&caller(), &wanted).await),
            ErrorReason::OwnershipMismatch
        );
        assert_eq!(
            reason(bench.cloud.describe_instance(&caller(), &wanted).await),
            ErrorReason::OwnershipMismatch
        );
    }
    assert!(bench.describe("k1").await.is_some() && bench.describe("k2").await.is_some());
}

#[tokio::test]
async fn boots_and_removals_take_their_time() {
    let bench = Bench::with_network(&[("boot-delay", "2s"), ("boot-jitter", "1s"), ("delete-delay", "3s")]).await;
    let made = bench.run("k").await.expect("made");
    assert_eq!(made.state, InstanceState::Pending);
    let boot = made.ready_at.duration_since(made.created_at);
    assert!((2_000..=3_000).contains(&boot.as_millis()), "{boot}");
    bench.pass(1_999);
    assert_eq!(bench.describe("k").await.expect("there").state, InstanceState::Pending);
    bench.pass(1_001);
    let bench = bench.reopen();
    assert_eq!(bench.describe("k").await.expect("there").state, InstanceState::Running);
    assert!(matches!(bench.terminate("k").await, Removal::InProgress(_)));
    let stuck = bench.cloud.delete_network(&caller(), &network_ref("c1")).await;
    assert_eq!(reason(stuck), ErrorReason::DependentsExist);
    assert_eq!(reason(bench.run("k").await), ErrorReason::StaleGeneration);
    bench.pass(3_000);
    assert_eq!(bench.terminate("k").await, Removal::Gone);
    let gone = bench
        .cloud
        .delete_network(&caller(), &network_ref("c1"))
        .await
        .expect("accepted");
    assert!(matches!(gone, Removal::InProgress(_)));
    bench.pass(3_000);
    assert_eq!(bench.cloud.resources(), []);
    assert_eq!(
        reason(bench.cloud.create_network(&caller(), &network("c1")).await),
        ErrorReason::StaleGeneration
    );
}

#[tokio::test]
async fn reads_lag_behind_writes() {
    let bench = Bench::with_network(&[("read-after-write", "1s")]).await;
    bench.pass(2_000);
    bench.run("k").await.expect("made");
    assert_eq!(bench.describe("k").await, None);
    let list = |limit| bench.cloud.list_instances(&CALLER, "m1", None, None, limit);
    assert_eq!(list(10).await.expect("a page").items, []);
    assert!(bench.run("k").await.is_ok(), "writes see the truth");
    bench.pass(1_000);
    assert!(bench.describe("k").await.is_some());
    bench.terminate("k").await;
    assert!(bench.describe("k").await.is_some());
    assert_eq!(list(10).await.expect("a page").items.len(), 1);
    bench.pass(1_000);
    assert_eq!(bench.describe("k").await, None);
    assert_eq!(list(10).await.expect("a page").items, []);
}

static CALLER: Caller = Caller { token: None };

#[tokio::test]
async fn what_is_missing_is_named() {
    let bench = Bench::new(&[("network-delay", "5s")]);
    assert_eq!(reason(bench.run("k").await), ErrorReason::ClusterNotReady);
    bench.network("c1").await;
    let booting = bench.run("k").await.expect_err("not ready");
    assert_eq!(
        (booting.reason, booting.retry_after),
        (ErrorReason::ClusterNotReady, Some(Duration::from_secs(5)))
    );
    bench.pass(5_000);
    let changes: [fn(&mut InstanceShape); 3] = [
        |shape| shape.image = "dos".to_owned(),
        |shape| shape.zone = Some("zone-q".to_owned()),
        |shape| shape.machine_type = "fake.huge".to_owned(),
    ];
    for change in changes {
        let mut wanted = run("k");
        change(&mut wanted.shape);
        assert_eq!(
            reason(bench.cloud.run_instance(&caller(), &wanted).await),
            ErrorReason::DependencyNotFound
        );
    }
    let mut wanted = run("k");
    wanted.fails_with = Some(ErrorReason::MissingPermission);
    assert_eq!(
        reason(bench.cloud.run_instance(&caller(), &wanted).await),
        ErrorReason::MissingPermission
    );
    assert!(bench.run("k").await.is_ok());
}

#[tokio::test]
async fn a_cluster_is_made_in_two_steps_and_goes_in_one() {
    let bench = Bench::with_network(&[]).await;
    let view = bench
        .cloud
        .create_load_balancer(&caller(), &network_ref("c1"))
        .await
        .expect("made");
    let again = bench
        .cloud
        .create_load_balancer(&caller(), &network_ref("c1"))
        .await
        .expect("found");
    assert_eq!(view, again);
    let made = bench.run("k").await.expect("made");
    let targets = [Target {
        key: "k".to_owned(),
        instance: made.id.clone(),
        draining: false,
    }];
    let set = bench
        .cloud
        .set_targets(&caller(), &network_ref("c1"), &targets, 2)
        .await
        .expect("set");
    assert_eq!(set.1, [Some(InstanceState::Running)]);
    let stale = bench.cloud.set_targets(&caller(), &network_ref("c1"), &[], 1).await;
    assert_eq!(reason(stale), ErrorReason::StaleGeneration);
    let stuck = bench
        .cloud
        .delete_network(&caller(), &network_ref("c1"))
        .await
        .expect_err("a machine is left");
    assert!(
        stuck.reason == ErrorReason::DependentsExist && stuck.message.contains(&made.id),
        "{stuck}"
    );
    bench.terminate("k").await;
    let gone = bench
        .cloud
        .delete_network(&caller(), &network_ref("c1"))
        .await
        .expect("deleted");
    assert_eq!(gone, Removal::Gone);
    assert_eq!(bench.cloud.resources(), []);
    let missing = bench.cloud.set_targets(&caller(), &network_ref("c1"), &[], 3).await;
    assert_eq!(reason(missing), ErrorReason::ResourceNotFound);
}

#[tokio::test]
async fn lists_come_in_pages_and_only_ours() {
    let bench = Bench::with_network(&[]).await;
    bench.network("c2").await;
    for n in 0..7 {
        bench.run(&format!("k{n}")).await.expect("made");
    }
    let (mut after, mut ids) = (None, Vec::new());
    loop {
        let page = bench
            .cloud
            .list_instances(&caller(), "m1", Some("c1"), after.as_deref(), 3)
            .await
            .expect("a page");
        ids.extend(page.items.iter().map(|instance| instance.id.clone()));
        after = ids.last().cloned();
        if !page.more {
            break;
        }
    }
    assert!(ids.len() == 7 && ids.is_sorted());
    for (management, cluster) in [("m2", None), ("m1", Some("c2"))] {
        let page = bench
            .cloud
            .list_instances(&caller(), management, cluster, None, 3)
            .await
            .expect("a page");
        assert_eq!(page.items, []);
    }
    let networks = bench
        .cloud
        .list_networks(&caller(), "m1", None, 1)
        .await
        .expect("a page");
    assert!(networks.items.len() == 1 && networks.more);
}

#[tokio::test]
async fn a_watch_tells_all_and_goes_on_where_it_was_even_after_a_restart() {
    let bench = Bench::with_network(&[]).await;
    bench.run("k1").await.expect("made");
    let mut watch = bench
        .cloud
        .watch_instances(&caller(), "m1", None)
        .await
        .expect("a watch");
    let first = watch.next().await.expect("an item");
    assert!(matches!(first, WatchItem::Present(it) if it.key == "k1"));
    let WatchItem::Synced(token) = watch.next().await.expect("an item") else {
        panic!("the snapshot is complete")
    };
    bench.run("k2").await.expect("made");
    assert!(matches!(watch.next().await.expect("an item"), WatchItem::Present(it) if it.key == "k2"));
    bench.terminate("k1").await;
    assert!(matches!(watch.next().await.expect("an item"), WatchItem::Gone(it) if it.key == "k1"));
    drop(watch);
    let bench = bench.reopen();
    let mut watch = bench
        .cloud
        .watch_instances(&caller(), "m1", Some(&token))
        .await
        .expect("resumed");
    assert!(matches!(watch.next().await.expect("an item"), WatchItem::Present(it) if it.key == "k2"));
    assert!(matches!(watch.next().await.expect("an item"), WatchItem::Gone(it) if it.key == "k1"));
    assert!(matches!(watch.next().await.expect("an item"), WatchItem::Synced(_)));
    for token in ["w1.other.3", "garbage", &format!("w1.{}.999999", bench.cloud.id())] {
        let refused = bench.cloud.watch_instances(&caller(), "m1", Some(token)).await;
        assert_eq!(
            refused.err().map(|error| error.reason),
            Some(ErrorReason::ResumeTokenExpired),
            "{token}"
        );
    }
    bench.cloud.set_settings(settings(&[("outage", "true")]));
    assert_eq!(reason(watch.next().await), ErrorReason::CloudUnavailable);
}

#[tokio::test(start_paused = true)]
async fn a_watch_gives_fresh_tokens_while_nothing_happens() {
    let bench = Bench::with_network(&[]).await;
    let mut watch = bench
        .cloud
        .watch_instances(&caller(), "m1", None)
        .await
        .expect("a watch");
    assert!(matches!(watch.next().await.expect("an item"), WatchItem::Synced(_)));
    // Calls that change nothing move the ledger on.
    bench.describe("k").await;
    let WatchItem::Bookmark(first) = watch.next().await.expect("an item") else {
        panic!("nothing happened")
    };
    bench.run("k").await.expect("made");
    assert!(matches!(watch.next().await.expect("an item"), WatchItem::Present(_)));
    let WatchItem::Bookmark(second) = watch.next().await.expect("an item") else {
        panic!("nothing more happened")
    };
    for (token, events) in [(first, 1), (second, 0)] {
        let mut resumed = bench
            .cloud
            .watch_instances(&caller(), "m1", Some(&token))
            .await
            .expect("resumed");
        for _ in 0..events {
            assert!(matches!(resumed.next().await.expect("an item"), WatchItem::Present(_)));
        }
        assert!(matches!(resumed.next().await.expect("an item"), WatchItem::Synced(_)));
    }
}

#[tokio::test]
async fn a_snapshot_saves_the_reading_and_changes_nothing() {
    let bench = Bench::with_network(&[]).await;
    bench.run("k1").await.expect("made");
    bench.run("k2").await.expect("made");
    bench.terminate("k2").await;
    let before = bench.cloud.resources();
    bench.cloud.close().await.expect("closed");
    assert!(bench.folder.path().join(super::snapshot::SNAPSHOT_FILE).exists());
    let bench = bench.reopen();
    assert_eq!(bench.cloud.resources(), before);
    assert_eq!(reason(bench.run("k2").await), ErrorReason::StaleGeneration);
    bench.run("k3").await.expect("made");
    let all = bench.cloud.resources();
    // Once more from the snapshot with lines behind it, and once without it.
    let bench = bench.reopen();
    assert_eq!(bench.cloud.resources(), all);
    std::fs::remove_file(bench.folder.path().join(super::snapshot::SNAPSHOT_FILE)).expect("removed");
    let bench = bench.reopen();
    assert_eq!(bench.cloud.resources(), all);
}

#[tokio::test]
async fn two_processes_never_share_a_ledger() {
    let bench = Bench::new(&[]);
    let options = CloudOptions {
        folder: bench.folder.path().to_owned(),
        settings: Settings::default(),
        seed: 1,
        flush: true,
    };
    let error = Cloud::open(options).err().expect("refused").to_string();
    assert!(error.contains("in use"), "{error}");
}
