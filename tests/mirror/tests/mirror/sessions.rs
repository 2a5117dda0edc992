//! Providers that change under way: other versions of the protocol, other names, other
//! processes, capabilities that come and go. Machines are left alone meanwhile, and go on
//! when the provider is well again.

use std::sync::Arc;

use actuator_proto::discovery::v1::Stability;
use actuator_proto::v1::{self, ErrorReason};
use anyhow::ensure;
use bytes::Bytes;
use futures::StreamExt as _;
use kube::api::{Api, DeleteParams};
use mirror::identity::Identity;
use mirror::ledger::{Call, Ledger};
use mirror::provider::{Act, Provider};
use mirror::statuses;
use outrigger_api::{Cluster, Machine, Provider as ProviderObject};
use tonic::Code;

use crate::Row;
use crate::scene::{CLUSTER, MACHINE, Scene, is_running};
use crate::world::{PATIENCE, World};

const STABLE: i32 = Stability::Stable as i32;

/// What a provider says of itself that the core can do nothing with, and a word of what
/// the Provider object says then.
type Unusable = (&'static str, fn(&mut Identity), &'static str);

const UNUSABLE: &[Unusable] = &[
    (
        "only_a_later_version",
        |it| it.protocols = vec![("actuator.v2".into(), STABLE)],
        "actuator.v2",
    ),
    (
        "only_an_alpha_of_our_version",
        |it| it.protocols = vec![("actuator.v1".into(), Stability::Alpha as i32)],
        "actuator.v1 (alpha)",
    ),
    (
        "a_stability_that_nobody_knows",
        |it| it.protocols = vec![("actuator.v1".into(), 99)],
        "actuator.v1",
    ),
    ("no_protocol", |it| it.protocols.clear(), "no protocol"),
    (
        "protocols_without_end",
        |it| it.protocols = vec![("actuator.v1".into(), STABLE); 5000],
        "protocols",
    ),
    ("another_name", |it| it.name = "somebody-else".into(), "somebody-else"),
    (
        "a_name_with_control_characters",
        |it| it.name = "some\u{1b}[2Jbody\u{202e}".into(),
        "some[2Jbody",
    ),
    ("no_instance_id", |it| it.instance_id.clear(), "instance id"),
    (
        "an_instance_id_without_bounds",
        |it| it.instance_id = "i".repeat(9000),
        "instance id",
    ),
];

/// Faults of a provider's first calls, for as long as they last.
type Silent = (&'static str, Call, fn() -> Act);

const SILENT: &[Silent] = &[
    ("get_protocols_that_fails", Call::GetProtocols, || {
        Act::Refuse(tonic::Status::internal("no"))
    }),
    ("get_protocols_that_is_garbage", Call::GetProtocols, || {
        Act::Invent(vec![0xff; 99].into())
    }),
    ("get_protocols_that_is_empty", Call::GetProtocols, || {
        Act::Invent(Bytes::new())
    }),
    ("get_protocols_that_is_not_there", Call::GetProtocols, || {
        Act::Refuse(tonic::Status::unimplemented("no"))
    }),
    ("get_info_that_is_not_there", Call::GetInfo, || {
        Act::Refuse(tonic::Status::unimplemented("no"))
    }),
    ("get_info_of_another_process", Call::GetInfo, || {
        Act::twist(|info: &mut v1::GetInfoResponse| info.instance_id.push('x'))
    }),
    ("a_probe_that_fails", Call::Probe, || {
        Act::Refuse(tonic::Status::internal("no"))
    }),
    ("a_probe_that_is_not_there", Call::Probe, || {
        Act::Refuse(tonic::Status::unimplemented("no"))
    }),
];

/// What a provider says of itself that the core reads over.
type Odd = (&'static str, fn(&mut Identity));

const ODD: &[Odd] = &[
    ("nothing_but_what_is_required", |_| {}),
    ("a_later_version_beside_ours", |it| {
        it.protocols.insert(0, ("actuator.v2".into(), STABLE));
    }),
    ("ours_that_is_deprecated", |it| {
        it.protocols = vec![
            ("actuator.v2".into(), STABLE),
            ("actuator.v1".into(), Stability::Deprecated as i32),
        ];
    }),
    ("an_experiment_and_a_foreign_package_beside_ours", |it| {
        it.protocols.extend([
            ("actuator.v2alpha1".to_owned(), Stability::Alpha as i32),
            ("example.v9".to_owned(), STABLE),
        ]);
    }),
    ("capabilities_and_fields_that_nobody_knows", |it| {
        // Field 4 once more, with a message field 100 in it; and a field 200 beside it.
        it.later_fields = vec![0x22, 0x03, 0xa2, 0x06, 0x00, 0xc2, 0x0c, 0x02, b'h', b'i'];
    }),
    ("readiness_that_nobody_knows", |it| it.probe.readiness = 99),
    ("readiness_that_is_bad", |it| {
        it.probe.readiness = v1::Readiness::Degraded.into();
    }),
    ("checks_without_bounds", |it| {
        let check = v1::ProbeCheck {
            name: "n".repeat(9000),
            healthy: false,
            message: "m\u{1b}".repeat(900),
        };
        it.probe.checks = vec![check; 300];
    }),
    ("limits_and_timings_that_cannot_be", |it| {
        it.info.limits = Some(v1::Limits {
            max_concurrent_mutations: -3,
            max_bootstrap_bytes: -1,
            max_page_size: i32::MAX,
            max_name_length: -9,
        });
        it.info.timings = Some(v1::Timings {
            mutation_deadline: Some(prost_types::Duration {
                seconds: i64::MAX,
                nanos: -1,
            }),
            exists_deadline: Some(prost_types::Duration { seconds: -9, nanos: 0 }),
            read_after_write: Some(prost_types::Duration { seconds: -9, nanos: 0 }),
            poll_interval: Some(prost_types::Duration { seconds: 0, nanos: 0 }),
        });
    }),
    ("one_mutation_at_a_time", |it| {
        it.info.limits = Some(v1::Limits {
            max_concurrent_mutations: 1,
            ..Default::default()
        });
    }),
    ("config_kinds_and_formats_that_nobody_knows", |it| {
        it.info.config_kinds = vec![
            v1::ConfigKind {
                kind: "K\u{7}".into(),
                target: 99,
                schema_versions: vec!["v".repeat(300); 20]
            };
            300
        ];
        it.info.bootstrap_formats = vec![99, -1, 0];
        it.info.credential_keys = vec![
            v1::CredentialKey {
                name: "k".repeat(3000),
                ..Default::default()
            };
            300
        ];
    }),
];

pub fn rows() -> Vec<Row> {
    let mut rows = Vec::new();
    for (name, make, words) in UNUSABLE {
        rows.push(Row::scene(
            format!("sessions::unusable::{name}"),
            move |scene| async move {
                let identity = Arc::new(parking_lot::Mutex::new(None));
                let kept = Arc::clone(&identity);
                scene.provider.identity(|it| *kept.lock() = Some(it.clone()));
                let break_it = |provider: &Provider| -> anyhow::Result<()> {
                    provider.stop();
                    provider.identity(|it| {
                        it.instance_id.push('b');
                        make(it);
                    });
                    provider.start()
                };
                let mend = |provider: &Provider| -> anyhow::Result<()> {
                    if let Some(before) = identity.lock().clone() {
                        provider.identity(|it| *it = before);
                    }
                    provider.restart()
                };
                interrupted(scene, break_it, mend, "Incompatible", words).await
            },
        ));
    }
    for (name, call, act) in SILENT {
        rows.push(Row::scene(
            format!("sessions::silent::{name}"),
            move |scene| async move {
                let break_it = |provider: &Provider| {
                    provider.script(*call, act());
                    provider.restart()
                };
                let mend = |provider: &Provider| {
                    provider.heal();
                    Ok(())
                };
                interrupted(scene, break_it, mend, "", "").await
            },
        ));
    }
    for (name, say) in ODD {
        rows.push(Row::new(format!("sessions::odd::{name}"), move |world| async move {
            odd(Scene::with(&world, |provider| provider.identity(say)).await?).await
        }));
    }
    rows.push(Row::scene(
        "sessions::a_provider_that_dies_and_comes_back_all_the_time_makes_each_machine_once",
        restless,
    ));
    rows.push(Row::scene(
        "sessions::a_provider_that_dies_during_a_create_is_asked_first",
        dies_during_create,
    ));
    rows.push(Row::scene(
        "sessions::a_provider_object_that_is_torn_away_leaves_machines_alone",
        torn_away,
    ));
    rows.push(Row::scene(
        "sessions::a_capability_that_vanishes_is_called_no_more",
        vanishing_capability,
    ));
    for (call, name) in [
        (Call::CreateCluster, "create_of_a_cluster"),
        (Call::UpdateCluster, "update_of_a_cluster"),
        (Call::DeleteCluster, "delete_of_a_cluster"),
        (Call::CreateMachine, "create_of_a_machine"),
        (Call::UpdateMachine, "update_of_a_machine"),
        (Call::DeleteMachine, "delete_of_a_machine"),
    ] {
        rows.push(Row::new(format!("sessions::step_down::{name}"), move |_| {
            step_down(call)
        }));
    }
    rows.push(Row::new(
        "sessions::a_core_that_is_started_again_in_a_create_asks_first",
        |_| restarted_core(),
    ));
    rows
}

/// A provider that cannot be used for a while: its object says so, its machines are left
/// alone, and all goes on when it is well.
async fn interrupted(
    scene: Scene,
    break_it: impl Fn(&Provider) -> anyhow::Result<()>,
    mend: impl Fn(&Provider) -> anyhow::Result<()>,
    reason: &str,
    words: &str,
) -> anyhow::Result<()> {
    scene.cluster().await?;
    let before = scene.machine().await?;
    let calls = (scene.trace(MACHINE), scene.trace(CLUSTER));
    break_it(&scene.provider)?;
    let (_, _, said) = scene
        .until_provider("Ready", |(status, why, said)| {
            status == "False" && (reason.is_empty() || why == reason) && said.contains(words)
        })
        .await?;
    ensure!(!said.chars().any(char::is_control) && said.len() <= 2048, "{said:?}");
    // What is asked for meanwhile waits, and says what for.
    scene.make_machine("two").await?;
    scene
        .until_one("two", "a machine that waits for its provider", |machine: &Machine| {
            crate::scene::machine_condition(machine, "Ready").is_some_and(|(_, why, _)| why == "ProviderUnavailable")
        })
        .await?;
    let now = scene.api::<Machine>().get(MACHINE).await?;
    ensure!(
        now.status == before.status,
        "a machine that runs is left alone: {now:?}"
    );
    ensure!(
        (scene.trace(MACHINE), scene.trace(CLUSTER)) == calls && scene.trace("two").is_empty(),
        "nothing is called: {:?}",
        scene.provider.recent()
    );
    mend(&scene.provider)?;
    scene.until_provider("Ready", |(status, ..)| status == "True").await?;
    scene.until_one("two", "a machine that runs", is_running).await?;
    scene.resize::<Machine>(MACHINE, "large").await?;
    scene.until_trace(MACHINE, "cu").await?;
    scene.finish().await
}

async fn odd(scene: Scene) -> anyhow::Result<()> {
    scene.cluster().await?;
    scene.machine().await?;
    scene.resize::<Machine>(MACHINE, "large").await?;
    scene.until_trace(MACHINE, "cu").await?;
    let object = Api::<ProviderObject>::all(scene.world.client.clone())
        .get(&scene.name)
        .await?;
    let status = object.status.unwrap_or_default();
    ensure!(status.protocol.as_deref() == Some("actuator.v1"), "{status:?}");
    ensure!(status.capabilities.is_empty(), "{:?}", status.capabilities);
    scene.finish().await
}

async fn restless(scene: Scene) -> anyhow::Result<()> {
    scene.cluster().await?;
    let names: Vec<String> = (0..5).map(|index| format!("m{index}")).collect();
    for name in &names {
        scene.make_machine(name).await?;
        // In the middle of whatever it is.
        let calls = scene.provider.ledger(|ledger| ledger.came.len());
        scene
            .provider
            .until(PATIENCE, "a call", |ledger| ledger.came.len() > calls)
            .await?;
        scene.provider.restart()?;
    }
    for name in &names {
        scene.until_one(name, "a machine that runs", is_running).await?;
    }
    ensure!(scene.instances() == names.len(), "{} instances", scene.instances());
    scene.finish().await
}

async fn dies_during_create(scene: Scene) -> anyhow::Result<()> {
    scene.cluster().await?;
    scene.provider.script_times(Call::CreateMachine, 1, Act::StallDone);
    scene.make_machine(MACHINE).await?;
    scene.until_trace(MACHINE, "c!").await?;
    scene.provider.restart()?;
    scene.until_machine("a machine that runs", is_running).await?;
    // A read that the transport has lost is made once more.
    scene.expect_trace(MACHINE, "c!ee?")?;
    scene.finish().await
}

async fn torn_away(scene: Scene) -> anyhow::Result<()> {
    scene.cluster().await?;
    let before = scene.machine().await?;
    let objects = Api::<ProviderObject>::all(scene.world.client.clone());
    objects.delete(&scene.name, &DeleteParams::default()).await?;
    let orphan = without_provider(&scene).await?;
    let now = scene.api::<Machine>().get(MACHINE).await?;
    ensure!(now.status == before.status, "{now:?}");
    scene.connect().await?;
    scene.until_one(&orphan, "a machine that runs", is_running).await?;
    scene.expect_trace(MACHINE, "c")?;
    scene.finish().await
}

/// Makes machines until one finds no provider; its name. The core learns of Machines and of
/// Providers by two watches, so the first ones may still be made by a provider that is gone.
async fn without_provider(scene: &Scene) -> anyhow::Result<String> {
    let misses = |machine: &Machine| {
        crate::scene::machine_condition(machine, "Ready").is_some_and(|(_, why, _)| why == "ProviderNotFound")
    };
    for number in 2..50 {
        let name = format!("machine-{number}");
        scene.make_machine(&name).await?;
        let what = "a machine that runs, or misses its provider";
        let machine = scene
            .until_one(&name, what, |machine| is_running(machine) || misses(machine))
            .await?;
        if misses(&machine) {
            return Ok(name);
        }
    }
    anyhow::bail!("the core does not notice that the Provider is gone")
}

async fn vanishing_capability(scene: Scene) -> anyhow::Result<()> {
    scene.provider.stop();
    scene
        .provider
        .set_watch(Arc::new(|_, _| futures::stream::pending().boxed()));
    scene.provider.restart()?;
    scene.cluster().await?;
    let watched = |ledger: &Ledger| ledger.count(Call::WatchMachines) > 0;
    scene.provider.until(PATIENCE, "a watch", watched).await?;
    scene.provider.stop();
    scene.provider.identity(|it| it.info.capabilities = None);
    scene.provider.restart()?;
    scene.provider.set_slow(true);
    // A watch that is called now is a violation in the ledger.
    scene.machine().await?;
    scene.finish().await
}

/// A provider that knows of another leader ends the core; the next one goes on.
async fn step_down(call: Call) -> anyhow::Result<()> {
    let world = Arc::new(World::start().await?);
    let scene = Scene::new(&world).await?;
    let stale = statuses::error(
        Code::FailedPrecondition,
        ErrorReason::StaleFencingEpoch,
        v1::Effect::None,
        "a newer core leads",
    );
    let about_cluster = call.letter().is_some_and(char::is_uppercase);
    let fail = || scene.provider.script(call, Act::Refuse(stale.clone()));
    match call {
        Call::CreateCluster => {
            fail();
            scene.make_cluster().await?;
        }
        Call::CreateMachine => {
            scene.cluster().await?;
            fail();
            scene.make_machine(MACHINE).await?;
        }
        _ => {
            scene.cluster().await?;
            if !about_cluster {
                scene.machine().await?;
            }
            fail();
            match call {
                Call::UpdateCluster => drop(scene.resize::<Cluster>(CLUSTER, "large").await?),
                Call::UpdateMachine => drop(scene.resize::<Machine>(MACHINE, "large").await?),
                Call::DeleteCluster => scene.delete::<Cluster>(CLUSTER).await?,
                _ => scene.delete::<Machine>(MACHINE).await?,
            }
        }
    }
    let ended = world.core_ended().await?;
    ensure!(
        ended
            .as_ref()
            .is_err_and(|error| format!("{error:#}").contains("another core leads")),
        "the core ended with {ended:?}"
    );
    let called = scene.provider.ledger(|ledger| ledger.count(call));
    ensure!(called == 1, "it was called {called} times");
    scene.provider.heal();
    world.start_core();
    match call {
        Call::DeleteCluster => scene.gone::<Cluster>(CLUSTER).await?,
        Call::DeleteMachine => scene.gone::<Machine>(MACHINE).await?,
        _ => {
            let called_again = |ledger: &Ledger| ledger.count(call) == 2;
            scene
                .provider
                .until(PATIENCE, "the call of the next core", called_again)
                .await?;
            if !about_cluster {
                scene.until_machine("a machine that runs", is_running).await?;
            }
        }
    }
    scene.finish().await?;
    world.stop_core().await
}

async fn restarted_core() -> anyhow::Result<()> {
    let world = Arc::new(World::start().await?);
    let scene = Scene::new(&world).await?;
    scene.cluster().await?;
    scene.provider.script_times(Call::CreateMachine, 1, Act::StallDone);
    scene.make_machine(MACHINE).await?;
    scene.until_trace(MACHINE, "c!").await?;
    world.stop_core().await?;
    world.start_core();
    scene.until_machine("a machine that runs", is_running).await?;
    scene.expect_trace(MACHINE, "c!e")?;
    scene.finish().await?;
    world.stop_core().await
}
