//! Random calls, faults, times and restarts against a model: never two instances for a
//! key, quotas and capacity hold, deletion leaves nothing, nothing that was answered is
//! forgotten.

use std::collections::{BTreeMap, BTreeSet};

use actuator_proto::v1::{Effect, ErrorReason};
use proptest::prelude::*;

use super::instances::Removal;
use super::model::{InstanceState, Kind, Resource};
use super::tests::{Bench, caller, instance, network_ref, run};
use crate::audit;

const KEYS: usize = 8;
const QUOTA: usize = 5;
const IN_ZONE_A: usize = 2;

#[derive(Debug, Clone)]
enum Step {
    Run {
        key: usize,
        other_digest: bool,
        zone_a: bool,
    },
    Terminate {
        key: usize,
    },
    Describe {
        key: usize,
    },
    Pass {
        milliseconds: i64,
    },
    Kill {
        key: usize,
    },
    Restart,
    DeleteNetwork,
}

fn step() -> impl Strategy<Value = Step> {
    let key = 0..KEYS;
    prop_oneof![
        6 => (key.clone(), prop::bool::weighted(0.1), any::<bool>())
            .prop_map(|(key, other_digest, zone_a)| Step::Run { key, other_digest, zone_a }),
        4 => key.clone().prop_map(|key| Step::Terminate { key }),
        3 => key.clone().prop_map(|key| Step::Describe { key }),
        3 => (1i64..2_000).prop_map(|milliseconds| Step::Pass { milliseconds }),
        1 => key.prop_map(|key| Step::Kill { key }),
        1 => Just(Step::Restart),
        1 => Just(Step::DeleteNetwork),
    ]
}

/// What must be true of a key from what the calls answered.
#[derive(Debug, Default, Clone)]
struct Known {
    /// The id that some call told.
    id: Option<String>,
    /// A deletion was accepted.
    deleted: bool,
    /// It was made to die.
    killed: bool,
}

fn check(bench: &Bench, known: &BTreeMap<usize, Known>) -> Result<(), TestCaseError> {
    let resources = bench.cloud.resources();
    let mut instances = BTreeMap::new();
    let mut in_zone_a = 0;
    for resource in &resources {
        if let Resource::Instance(it) = resource {
            prop_assert!(
                instances.insert(it.key.clone(), it.id.clone()).is_none(),
                "two instances of {}",
                it.key
            );
            in_zone_a += usize::from(it.zone == "zone-a");
        }
    }
    prop_assert!(instances.len() <= QUOTA, "the quota: {instances:?}");
    prop_assert!(in_zone_a <= IN_ZONE_A, "the capacity");
    let ids: BTreeSet<&str> = resources.iter().map(|resource| resource.identity().0).collect();
    for resource in &resources {
        if let Some((kind, owner)) = resource.depends_on() {
            prop_assert!(ids.contains(owner), "{resource:?} hangs on no {kind:?}");
        }
    }
    let count = |kind: Kind| resources.iter().filter(|resource| resource.kind() == kind).count();
    for kind in [Kind::Disk, Kind::NetworkInterface, Kind::Address] {
        prop_assert_eq!(count(kind), instances.len());
    }
    for (key, known) in known {
        let there = instances.get(&format!("k{key}"));
        if let (Some(told), Some(there)) = (&known.id, there) {
            prop_assert_eq!(told, there, "the id of a key never changes");
        }
        if known.id.is_some() && !known.deleted && !known.killed {
            prop_assert!(there.is_some(), "k{} was answered and is forgotten", key);
        }
    }
    Ok(())
}

async fn play(steps: Vec<Step>) -> Result<(), TestCaseError> {
    let faults = "RunInstance:CLOUD_UNAVAILABLE=0.15,TerminateInstance:CLOUD_UNCLASSIFIED=0.15,RATE_LIMITED=0.05";
    let mut bench = Bench::new(&[
        ("quota", "instances=5"),
        ("capacity", "zone-a=2"),
        ("boot-delay", "1s"),
        ("boot-jitter", "1s"),
        ("delete-delay", "700ms"),
        ("read-after-write", "300ms"),
        ("error-rate", faults),
    ]);
    // The network may take some tries.
    while bench
        .cloud
        .create_network(&caller(), &super::tests::network("c1"))
        .await
        .is_err()
    {}
    let mut known: BTreeMap<usize, Known> = BTreeMap::new();
    let mut network_deleted = false;
    for step in steps {
        match step {
            Step::Run {
                key,
                other_digest,
                zone_a,
            } => {
                let known = known.entry(key).or_default();
                let mut request = run(&format!("k{key}"));
                request.shape.zone = zone_a.then(|| "zone-a".to_owned());
                if other_digest {
                    request.digest = "other".to_owned();
                }
                match bench.cloud.run_instance(&caller(), &request).await {
                    Ok(made) => {
                        prop_assert!(!known.deleted, "a deleted key made {}", made.id);
                        prop_assert!(!network_deleted || known.id.is_some() || made.state == InstanceState::Lost);
                        if let Some(id) = &known.id {
                            prop_assert_eq!(id, &made.id);
                        }
                        prop_assert!(made.state != InstanceState::Lost || known.killed);
                        known.id = Some(made.id.clone());
                    }
                    Err(error) => prop_assert!(error.effect != Effect::Partial, "{error}"),
                }
            }
            Step::Terminate { key } => {
                let known = known.entry(key).or_default();
                match bench
                    .cloud
                    .terminate_instance(&caller(), &instance(&format!("k{key}")))
                    .await
                {
                    Ok(removal) => {
                        known.deleted = true;
                        if removal == Removal::Gone {
                            let left = bench.cloud.resources();
                            let left: Vec<_> = left.iter().filter(|it| it.identity().1 == format!("k{key}")).collect();
                            prop_assert!(left.is_empty(), "GONE, and there is {left:?}");
                        }
                    }
                    Err(error) => known.deleted |= error.effect == Effect::Unknown,
                }
            }
            Step::Describe { key } => {
                let answer = bench
                    .cloud
                    .describe_instance(&caller(), &instance(&format!("k{key}")))
                    .await;
                if let Err(error) = answer {
                    prop_assert_eq!(error.reason, ErrorReason::RateLimited);
                }
            }
            Step::Pass { milliseconds } => bench.pass(milliseconds),
            Step::Kill { key } => {
                let killed = bench
                    .cloud
                    .kill_instance(&format!("k{key}"), super::KillMode::Vanish)
                    .await;
                known.entry(key).or_default().killed |= killed.expect("an answer");
            }
            Step::Restart => bench = bench.reopen(),
            Step::DeleteNetwork => {
                let instances = bench
                    .cloud
                    .resources()
                    .iter()
                    .filter(|it| it.kind() == Kind::Instance)
                    .count();
                match bench.cloud.delete_network(&caller(), &network_ref("c1")).await {
                    Ok(_) => {
                        prop_assert_eq!(instances, 0);
                        network_deleted = true;
                    }
                    Err(error) => network_deleted |= error.effect == Effect::Unknown,
                }
            }
        }
        check(&bench, &known)?;
    }
    // What happened with time is written without anybody waiting for it; a restart writes all of it.
    let bench = bench.reopen();
    let report = audit::audit(bench.folder.path()).expect("a report");
    prop_assert!(report.clean, "{report:?}");
    let there = bench
        .cloud
        .resources()
        .iter()
        .filter(|it| it.kind() == Kind::Instance)
        .count();
    prop_assert_eq!(report.instances.len(), there, "the audit agrees with the cloud");
    Ok(())
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 64, ..ProptestConfig::default() })]

    #[test]
    fn the_cloud_keeps_its_promises_whatever_comes(steps in prop::collection::vec(step(), 1..60)) {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime");
        runtime.block_on(play(steps))?;
    }
}
