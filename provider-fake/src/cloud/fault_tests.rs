//! Each limit and each fault of the cloud does what it says.

use std::collections::BTreeMap;
use std::time::Duration;

use actuator_proto::v1::{Effect, ErrorReason};

use super::instances::Removal;
use super::model::InstanceState;
use super::tests::{Bench, caller, instance, reason, run, settings};
use super::{Caller, KillMode, Settings};
use crate::audit;

#[tokio::test]
async fn quotas_and_capacity_hold_and_zones_are_spread() {
    let bench = Bench::with_network(&[("quota", "instances=3"), ("capacity", "zone-a=1,zone-b/fake.small=1")]).await;
    let mut zones = Vec::new();
    for key in ["k1", "k2", "k3"] {
        zones.push(bench.run(key).await.expect("made").zone.clone());
    }
    assert_eq!(zones, ["zone-a", "zone-b", "zone-c"]);
    let full = bench.run("k4").await.expect_err("the quota");
    assert_eq!(full.reason, ErrorReason::QuotaExceeded);
    assert_eq!(full.quota.expect("which").0, "instances");
    bench
        .cloud
        .change_settings(|settings| settings.set("quota", ""))
        .expect("a setting");
    for (zone, expected) in [("zone-a", false), ("zone-b", false), ("zone-c", true)] {
        let mut wanted = run(&format!("in-{zone}"));
        wanted.shape.zone = Some(zone.to_owned());
        let answer = bench.cloud.run_instance(&caller(), &wanted).await;
        assert_eq!(answer.is_ok(), expected, "{zone}");
        if let Err(error) = answer {
            assert_eq!(error.reason, ErrorReason::InsufficientCapacity);
            assert!(error.facts.contains(&("zone", zone.to_owned())));
        }
    }
    let mut wanted = run("larger");
    wanted.shape.zone = Some("zone-b".to_owned());
    wanted.shape.machine_type = "fake.large".to_owned();
    assert!(
        bench.cloud.run_instance(&caller(), &wanted).await.is_ok(),
        "the limit is on another type"
    );
    let types = bench.cloud.machine_types(&caller()).await.expect("types");
    let small = types.iter().find(|(info, _)| info.name == "fake.small").expect("there");
    assert_eq!(
        small.1,
        [
            ("zone-a".into(), false),
            ("zone-b".into(), false),
            ("zone-c".into(), true)
        ]
    );
}

#[tokio::test]
async fn the_rate_limit_the_outage_and_the_token_stop_every_call() {
    let bench = Bench::new(&[("rate-limit", "1/s:2")]);
    bench.network("c1").await;
    bench.run("k").await.expect("made");
    let limited = bench
        .cloud
        .describe_instance(&caller(), &instance("k"))
        .await
        .expect_err("limited");
    assert_eq!(
        (limited.reason, limited.effect),
        (ErrorReason::RateLimited, Effect::None)
    );
    assert!(limited.retry_after.is_some());
    bench.cloud.set_settings(settings(&[("outage", "true")]));
    assert_eq!(reason(bench.run("k2").await), ErrorReason::CloudUnavailable);
}

#[tokio::test]
async fn wrong_and_expired_tokens_are_told_apart() {
    let bench = Bench::new(&[("require-token", "good,rotated"), ("expired-token", "old,older")]);
    for (token, expected) in [
        (None, Some(ErrorReason::CredentialsInvalid)),
        (Some("bad"), Some(ErrorReason::CredentialsInvalid)),
        (Some("older"), Some(ErrorReason::CredentialsExpired)),
        (Some("good"), None),
        (Some("rotated"), None),
    ] {
        let caller = Caller {
            token: token.map(|token| token.as_bytes().to_vec()),
        };
        let answer = bench.cloud.describe_instance(&caller, &instance("k")).await;
        assert_eq!(answer.err().map(|error| error.reason), expected, "{token:?}");
    }
}

#[tokio::test]
async fn errors_come_before_or_after_acting_and_say_which() {
    let bench = Bench::with_network(&[(
        "error-rate",
        "RunInstance:CLOUD_UNAVAILABLE=1,DescribeInstance:RATE_LIMITED=1",
    )])
    .await;
    let mut effects = BTreeMap::new();
    for n in 0..40 {
        let key = format!("k{n}");
        let error = bench.run(&key).await.expect_err("always");
        assert_eq!(error.reason, ErrorReason::CloudUnavailable);
        let made = bench
            .cloud
            .resources()
            .iter()
            .any(|resource| resource.identity().1 == key);
        assert_eq!(made, error.effect == Effect::Unknown, "{error:?}");
        *effects.entry(error.effect as i32).or_insert(0) += 1;
    }
    assert_eq!(effects.len(), 2, "both kinds come: {effects:?}");
    let error = bench
        .cloud
        .describe_instance(&caller(), &instance("k0"))
        .await
        .expect_err("always");
    assert_eq!((error.reason, error.effect), (ErrorReason::RateLimited, Effect::None));
}

#[tokio::test(start_paused = true)]
async fn a_lost_response_acts_hangs_and_can_be_resolved() {
    let bench = Bench::with_network(&[]).await;
    bench
        .cloud
        .set_settings(settings(&[("lose-responses", "1"), ("lost-response-timeout", "20s")]));
    let started = tokio::time::Instant::now();
    let error = bench.run("k").await.expect_err("no answer");
    assert_eq!(
        (error.reason, error.effect),
        (ErrorReason::CloudUnavailable, Effect::Unknown)
    );
    assert!(started.elapsed() >= Duration::from_secs(20));
    let there = bench.describe("k").await.expect("it was made, and reads are not lost");
    bench.cloud.set_settings(Settings::default());
    assert_eq!(bench.run("k").await.expect("replayed").id, there.id);
    let report = audit::audit(bench.folder.path()).expect("a report");
    assert!(report.clean && report.lost_responses == 1);
}

#[tokio::test(start_paused = true)]
async fn latency_delays_and_a_caller_who_goes_away_before_leaves_nothing() {
    let bench = Bench::with_network(&[]).await;
    bench
        .cloud
        .set_settings(settings(&[("api-latency", "5s"), ("api-jitter", "1s")]));
    let gone = tokio::time::timeout(Duration::from_secs(1), bench.run("k")).await;
    assert!(gone.is_err());
    let started = tokio::time::Instant::now();
    assert_eq!(bench.describe("k").await, None);
    assert!((5..=6).contains(&started.elapsed().as_secs()));
}

#[tokio::test]
async fn instances_die_by_themselves_and_are_never_made_again() {
    let bench = Bench::with_network(&[("mean-lifetime", "1m")]).await;
    let mut ids = Vec::new();
    for n in 0..50 {
        ids.push(bench.run(&format!("k{n}")).await.expect("made").id.clone());
    }
    bench.pass(60_000);
    let live = bench
        .cloud
        .list_instances(&caller(), "m1", None, None, 100)
        .await
        .expect("a page")
        .items
        .len();
    assert!((5..40).contains(&live), "about 18 of 50 outlive the mean: {live}");
    bench.pass(3_600_000);
    let bench = bench.reopen();
    assert_eq!(bench.describe("k0").await, None);
    let lost = bench.run("k0").await.expect("the token answers");
    assert_eq!((lost.state, &lost.id), (InstanceState::Lost, &ids[0]));
    assert_eq!(bench.terminate("k0").await, Removal::Gone);
    let report = audit::audit(bench.folder.path()).expect("a report");
    assert!(report.clean && report.instances.is_empty(), "{report:?}");
    assert_eq!(report.changes["instance"]["lost"], 50);
}

#[tokio::test]
async fn an_instance_dies_as_it_is_told() {
    let bench = Bench::with_network(&[]).await;
    for (key, mode, state) in [
        ("k1", KillMode::Vanish, None),
        ("k2", KillMode::Stop, Some(InstanceState::Stopped)),
        ("k3", KillMode::Fail, Some(InstanceState::Failed)),
    ] {
        bench.run(key).await.expect("made");
        assert!(bench.cloud.kill_instance(key, mode).await.expect("killed"));
        assert_eq!(bench.describe(key).await.map(|instance| instance.state), state);
    }
    assert!(
        !bench
            .cloud
            .kill_instance("nobody", KillMode::Stop)
            .await
            .expect("an answer")
    );
}

#[tokio::test]
async fn the_config_of_a_machine_makes_it_fail_or_die() {
    let bench = Bench::with_network(&[]).await;
    let mut failing = run("k1");
    failing.fails_at_boot = true;
    failing.boot_delay = Some(Duration::from_secs(1));
    let mut short = run("k2");
    short.lifetime = Some(Duration::from_secs(1));
    for request in [&failing, &short] {
        bench.cloud.run_instance(&caller(), request).await.expect("made");
    }
    bench.pass(1_000);
    let failed = bench.describe("k1").await.expect("there");
    assert!(failed.state == InstanceState::Failed && failed.failure.is_some());
    assert_eq!(bench.describe("k2").await, None);
}

#[tokio::test]
async fn the_same_seed_meets_the_same_faults() {
    let fates = || async {
        let bench = Bench::with_network(&[("error-rate", "RunInstance:CLOUD_UNAVAILABLE=0.5")]).await;
        let mut fates = Vec::new();
        for n in 0..30 {
            fates.push(bench.run(&format!("k{n}")).await.map(|instance| instance.id.clone()));
        }
        fates
    };
    assert_eq!(fates().await, fates().await);
}
