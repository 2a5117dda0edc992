//! The optional parts of the protocol and the control service, over the real socket of
//! the real binary.

#![allow(clippy::expect_used, clippy::panic)]

mod common;

use actuator_proto::v1::{self, ErrorReason, Presence};
use common::{
    CLUSTER, Fake, classified, create_machine, create_machine_with, delete_machine, id, meta, reason, reference, timed,
};
use futures::StreamExt as _;
use provider_fake::control::v1 as control;

#[tokio::test]
async fn a_watch_goes_on_after_the_process_was_killed() {
    let mut fake = Fake::with_cluster(&[]).await;
    fake.machines()
        .create_machine(create_machine("k1"))
        .await
        .expect("made");
    let watch = |token: &str| {
        tonic::Request::new(v1::WatchMachinesRequest {
            management_cluster_id: "management-1".to_owned(),
            resume_token: token.to_owned(),
            ..Default::default()
        })
    };
    use v1::watch_machines_response::Event;
    let mut events = fake
        .machines()
        .watch_machines(watch(""))
        .await
        .expect("a watch")
        .into_inner();
    let mut next = async || {
        events
            .message()
            .await
            .expect("an element")
            .expect("no end")
            .event
            .expect("an event")
    };
    assert!(matches!(next().await, Event::Present(machine) if machine.idempotency_key == "k1"));
    let Event::Synced(synced) = next().await else {
        panic!("the snapshot is complete")
    };
    fake.machines()
        .create_machine(create_machine("k2"))
        .await
        .expect("made");
    assert!(matches!(next().await, Event::Present(machine) if machine.idempotency_key == "k2"));
    fake.machines()
        .delete_machine(delete_machine("k1"))
        .await
        .expect("deleted");
    assert!(matches!(next().await, Event::Gone(machine) if machine.idempotency_key == "k1"));

    fake.restart().await;
    let mut events = fake
        .machines()
        .watch_machines(watch(&synced.resume_token))
        .await
        .expect("resumed")
        .into_inner();
    let mut next = async || {
        events
            .message()
            .await
            .expect("an element")
            .expect("no end")
            .event
            .expect("an event")
    };
    assert!(matches!(next().await, Event::Present(machine) if machine.idempotency_key == "k2"));
    assert!(matches!(next().await, Event::Gone(machine) if machine.idempotency_key == "k1"));
    assert!(matches!(next().await, Event::Synced(_)));
    let refused = async {
        let mut events = fake
            .machines()
            .watch_machines(watch("w1.elsewhere.7"))
            .await?
            .into_inner();
        events.message().await
    };
    assert_eq!(reason(refused.await), ErrorReason::ResumeTokenExpired);
}

#[tokio::test]
async fn lists_types_consoles_and_endpoints_answer() {
    let fake = Fake::with_cluster(&[]).await;
    let config = r#"{"machineType":"fake.small","consoleKiB":100}"#;
    let mut members = Vec::new();
    for n in 0..5 {
        let key = format!("k{n}");
        let made = fake
            .machines()
            .create_machine(create_machine_with(&key, config))
            .await
            .expect("made");
        members.push(v1::EndpointMember {
            idempotency_key: key,
            provider_id: id(made),
            draining: n == 0,
        });
    }
    let (mut token, mut keys) = (String::new(), Vec::new());
    loop {
        let request = v1::ListMachinesRequest {
            management_cluster_id: "management-1".to_owned(),
            page: Some(v1::PageRequest {
                page_size: 2,
                page_token: token,
            }),
            ..Default::default()
        };
        let page = fake
            .machines()
            .list_machines(timed(request))
            .await
            .expect("a page")
            .into_inner();
        assert!(page.machines.len() <= 2);
        keys.extend(page.machines.into_iter().map(|machine| machine.idempotency_key));
        token = page.next_page_token;
        if token.is_empty() {
            break;
        }
    }
    keys.sort();
    assert_eq!(keys, ["k0", "k1", "k2", "k3", "k4"]);
    let stale = v1::ListMachinesRequest {
        management_cluster_id: "management-1".to_owned(),
        page: Some(v1::PageRequest {
            page_size: 2,
            page_token: "p1.elsewhere.i-1".to_owned(),
        }),
        ..Default::default()
    };
    assert_eq!(
        reason(fake.machines().list_machines(timed(stale)).await),
        ErrorReason::PageTokenExpired
    );

    let types = fake
        .machines()
        .list_machine_types(timed(v1::ListMachineTypesRequest::default()))
        .await;
    let types = types.expect("types").into_inner().machine_types;
    assert_eq!(types.len(), 6);
    let gpu = types.iter().find(|it| it.name == "fake.gpu").expect("there");
    assert_eq!(gpu.extended_resources["nvidia.com/gpu"], "1");
    assert!(gpu.price_micros_per_hour.is_some() && gpu.availability.len() == 3);

    let console = v1::GetConsoleOutputRequest {
        r#ref: Some(reference("k1")),
        ..Default::default()
    };
    let mut chunks = fake
        .machines()
        .get_console_output(timed(console))
        .await
        .expect("a console")
        .into_inner();
    let mut text = Vec::new();
    while let Some(chunk) = chunks.message().await.expect("a chunk") {
        assert!(chunk.chunk.len() <= 64 * 1024);
        text.extend(chunk.chunk);
    }
    assert!(text.len() > 100 * 1024 && String::from_utf8_lossy(&text).contains("bootstrap data: 13 bytes"));

    let set = |members: Vec<v1::EndpointMember>, generation| {
        timed(v1::SetEndpointMembersRequest {
            meta: Some(meta(CLUSTER, generation)),
            cluster: Some(reference(CLUSTER)),
            members,
            ..Default::default()
        })
    };
    let answer = fake
        .endpoints()
        .set_endpoint_members(set(members.clone(), 2))
        .await
        .expect("set")
        .into_inner();
    assert!(answer.endpoint.is_some() && answer.members.len() == 5);
    assert_eq!(answer.members[0].state(), v1::EndpointMemberState::Draining);
    assert_eq!(answer.members[1].state(), v1::EndpointMemberState::Healthy);
    fake.endpoints()
        .set_endpoint_members(set(members[..1].to_vec(), 3))
        .await
        .expect("set");
}

#[tokio::test]
async fn the_control_service_steers_and_is_off_by_default() {
    let fake = Fake::with_cluster(&["--control"]).await;
    fake.machines().create_machine(create_machine("k")).await.expect("made");
    let mut steering = fake.control();
    let set = |name: &str, value: &str| control::SetSettingsRequest {
        settings: [(name.to_owned(), value.to_owned())].into(),
    };
    let refused = steering
        .set_settings(set("boot-delay", "soon"))
        .await
        .expect_err("refused");
    assert!(refused.message().contains("500ms"), "{}", refused.message());
    steering.set_settings(set("boot-delay", "1h")).await.expect("set");
    let settings = steering
        .get_settings(control::GetSettingsRequest {})
        .await
        .expect("settings")
        .into_inner();
    assert_eq!(settings.settings["boot-delay"], "1h");
    let booting = fake
        .machines()
        .create_machine(create_machine("slow"))
        .await
        .expect("made")
        .into_inner()
        .status;
    assert_eq!(booting.expect("a status").phase(), v1::MachinePhase::Provisioning);

    steering
        .set_outage(control::SetOutageRequest { outage: true })
        .await
        .expect("set");
    let down = classified(fake.machines().create_machine(create_machine("k3")).await);
    assert_eq!(down.reason, Some(ErrorReason::CloudUnavailable));
    steering
        .set_outage(control::SetOutageRequest { outage: false })
        .await
        .expect("set");

    let there = fake.exists("k").await.status.expect("present").provider_id;
    let kill = control::KillInstanceRequest {
        instance: there,
        mode: control::KillMode::Vanish as i32,
    };
    assert!(
        steering
            .kill_instance(kill)
            .await
            .expect("an answer")
            .into_inner()
            .killed
    );
    assert_eq!(fake.exists("k").await.presence(), Presence::Absent);
    let ledger = steering
        .list_ledger(control::ListLedgerRequest {
            kind: "instance".to_owned(),
        })
        .await;
    let ledger: Vec<_> = ledger.expect("a ledger").into_inner().collect().await;
    assert_eq!(ledger.len(), 1);
    assert_eq!(ledger[0].as_ref().expect("a resource").key, "slow");

    let counters = steering
        .get_counters(control::GetCountersRequest {})
        .await
        .expect("counters")
        .into_inner();
    let count = |result: &str| {
        let found = counters
            .counters
            .iter()
            .find(|it| it.method == "RunInstance" && it.result == result);
        found.map(|it| it.count)
    };
    assert_eq!((count("OK"), count("CLOUD_UNAVAILABLE")), (Some(2), Some(1)));
    steering
        .reset_counters(control::ResetCountersRequest {})
        .await
        .expect("reset");
    let counters = steering
        .get_counters(control::GetCountersRequest {})
        .await
        .expect("counters")
        .into_inner();
    assert_eq!(counters.counters, []);

    let silent = Fake::start(&[]).await;
    let refused = silent
        .control()
        .get_settings(control::GetSettingsRequest {})
        .await
        .expect_err("refused");
    assert_eq!(refused.code(), tonic::Code::Unimplemented);
}

#[tokio::test]
async fn the_provider_tells_what_it_is_and_judges_configs() {
    let fake = Fake::start(&["--read-after-write=3s", "--max-concurrent-mutations=9"]).await;
    let info = fake
        .identity()
        .get_info(timed(v1::GetInfoRequest {}))
        .await
        .expect("info")
        .into_inner();
    assert_eq!(
        (info.name.as_str(), info.provider_id_prefix.as_str()),
        ("fake", "fake:///")
    );
    assert_eq!(info.limits.expect("limits").max_concurrent_mutations, 9);
    assert_eq!(
        info.timings.and_then(|it| it.read_after_write).map(|it| it.seconds),
        Some(3)
    );
    let capabilities = info.capabilities.expect("capabilities");
    assert!(capabilities.list_machines.is_some() && capabilities.list_clusters.is_some());
    assert!(capabilities.watch_machines.is_some() && capabilities.endpoint_members.is_some());
    assert!(capabilities.console_output.is_some() && capabilities.machine_types.is_some());
    for kind in info.config_kinds {
        let asked = v1::GetConfigSchemaRequest {
            kind: kind.kind.clone(),
            schema_version: kind.schema_versions[0].clone(),
        };
        let schema = fake
            .identity()
            .get_config_schema(timed(asked))
            .await
            .expect("a schema")
            .into_inner();
        let schema: serde_json::Value = serde_json::from_slice(&schema.json_schema).expect("JSON");
        assert!(schema["properties"].is_object(), "{}: {schema}", kind.kind);
    }
    let judge = |json: &str, mode: v1::ValidationMode| {
        let request = timed(v1::ValidateConfigRequest {
            config: Some(common::config("FakeMachineConfig", json)),
            mode: mode as i32,
            ..Default::default()
        });
        let mut identity = fake.identity();
        async move {
            let verdict = identity.validate_config(request).await.expect("a verdict").into_inner();
            verdict
                .diagnostics
                .into_iter()
                .map(|found| found.json_pointer)
                .collect::<Vec<_>>()
        }
    };
    let json = r#"{"machineType":"fake.small","image":"dos"}"#;
    assert_eq!(judge(json, v1::ValidationMode::Static).await, Vec::<String>::new());
    assert_eq!(judge(json, v1::ValidationMode::Preflight).await, ["/image"]);
    assert_eq!(
        judge(r#"{"machineType":"fake.huge"}"#, v1::ValidationMode::Static).await,
        ["/machineType"]
    );
    assert_eq!(
        judge(
            r#"{"machineType":"fake.small","diskGiB":3}"#,
            v1::ValidationMode::Static
        )
        .await,
        ["/diskGiB"]
    );
}

#[tokio::test]
async fn a_watch_sees_the_end_of_a_boot_and_a_death_without_any_call() {
    let fake = Fake::with_cluster(&["--boot-delay=100ms"]).await;
    let watch = tonic::Request::new(v1::WatchMachinesRequest {
        management_cluster_id: "management-1".to_owned(),
        ..Default::default()
    });
    use v1::watch_machines_response::Event;
    let mut events = fake
        .machines()
        .watch_machines(watch)
        .await
        .expect("a watch")
        .into_inner();
    let config = r#"{"machineType":"fake.small","lifetime":"300ms"}"#;
    let made = fake
        .machines()
        .create_machine(create_machine_with("k", config))
        .await
        .expect("made");
    assert_eq!(
        made.into_inner().status.expect("a status").phase(),
        v1::MachinePhase::Provisioning
    );
    let mut seen = Vec::new();
    while seen.last() != Some(&"gone") {
        let event = tokio::time::timeout(common::PATIENCE, events.message())
            .await
            .expect("in time");
        match event.expect("an element").expect("no end").event.expect("an event") {
            Event::Present(machine) => match machine.status.expect("a status").phase() {
                v1::MachinePhase::Provisioning => seen.push("booting"),
                v1::MachinePhase::Running => seen.push("running"),
                other => panic!("{other:?}"),
            },
            Event::Gone(_) => seen.push("gone"),
            Event::Synced(_) | Event::Bookmark(_) => {}
        }
    }
    seen.dedup();
    assert!(seen.ends_with(&["running", "gone"]), "{seen:?}");
}
