//! Answers are untrusted: ids that change, ids that are none, lists without end.

use actuator_proto::errors::ActuatorError;
use actuator_proto::v1::{self, ErrorReason};
use futures::FutureExt as _;
use provider_host::{AfterResolve, Disposition, Rpc};

use crate::scripted::*;

fn with_capabilities() -> Script {
    let script = Script::provider("fake", "instance-1");
    let info = v1::GetInfoResponse {
        capabilities: Some(v1::Capabilities {
            list_machines: Some(v1::ListMachinesCapability {}),
            console_output: Some(v1::ConsoleOutputCapability {}),
            ..Default::default()
        }),
        ..Default::default()
    };
    script.identity("fake", "instance-1", "1", "actuator.v1", info);
    script
}

fn always(script: &Script, answer: v1::MachineExistsResponse) {
    script.on(Rpc::MachineExists, move |_: v1::MachineExistsRequest| {
        let answer = answer.clone();
        async move { Ok(answer) }
    });
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_provider_id_that_changes_is_escalated() {
    let scene = Scene::new().await;
    let fake = scene.fake();
    always(&scene.script, present("fake:///i-1"));
    fake.machine_exists(&credential(), exists("k")).await.unwrap();
    always(&scene.script, present("fake:///i-2"));
    let error = fake.machine_exists(&credential(), exists("k")).await.unwrap_err();
    assert_eq!(error.reason(), "STATE_INCONSISTENT");
    assert_eq!(error.disposition(1), Disposition::Escalate);
    assert!(error.to_string().contains("fake:///i-2"), "{error}");
    fake.machine_exists(&credential(), exists("another")).await.unwrap();

    // What the core knows counts as well.
    let mut request = exists("third");
    request.r#ref.as_mut().unwrap().provider_id = "fake:///i-7".into();
    let error = fake.machine_exists(&credential(), request).await.unwrap_err();
    assert_eq!(error.disposition(1), Disposition::Escalate);

    // A create that is replayed must give the same.
    scene
        .script
        .on(Rpc::CreateMachine, |_: v1::CreateMachineRequest| async {
            Ok(v1::CreateMachineResponse {
                status: Some(machine("fake:///i-9")),
            })
        });
    let error = fake.create_machine(&credential(), create("k")).await.unwrap_err();
    assert_eq!(error.disposition(1), Disposition::Escalate);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_the_contract_rules_out_is_the_providers_defect() {
    let scene = Scene::new().await;
    let fake = scene.fake();
    scene
        .script
        .on(Rpc::CreateMachine, |_: v1::CreateMachineRequest| async {
            Ok(v1::CreateMachineResponse::default())
        });
    let error = fake.create_machine(&credential(), create("k")).await.unwrap_err();
    assert_eq!(error.reason(), "PROVIDER_BUG");
    assert!(matches!(
        error.disposition(1),
        Disposition::Resolve {
            then: AfterResolve::Retry { .. }
        }
    ));
    always(&scene.script, present(&"i".repeat(513)));
    let error = fake.machine_exists(&credential(), exists("k")).await.unwrap_err();
    assert_eq!(error.reason(), "PROVIDER_BUG");
    scene.script.handle(Rpc::MachineExists.path(), |_, _| {
        let garbage: futures::stream::BoxStream<'static, _> =
            Box::pin(futures::stream::iter([Ok(bytes::Bytes::from_static(&[0xff; 32]))]));
        async { Ok(garbage) }.boxed()
    });
    let error = fake.machine_exists(&credential(), exists("k")).await.unwrap_err();
    assert_eq!(error.reason(), "PROVIDER_BUG");
    // An answer above 4 MiB is refused before it is kept.
    let huge = v1::MachineStatus {
        provider_state: vec![0; 5 << 20],
        ..machine("fake:///i-1")
    };
    always(
        &scene.script,
        v1::MachineExistsResponse {
            presence: 2,
            status: Some(huge),
        },
    );
    fake.machine_exists(&credential(), exists("k")).await.unwrap_err();
    // And everything goes on.
    always(&scene.script, present("fake:///i-1"));
    fake.machine_exists(&credential(), exists("k")).await.unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_request_that_is_too_large_is_not_sent() {
    let scene = Scene::new().await;
    let mut request = create("k");
    request.provider_state = vec![0; 5 << 20];
    let error = scene.fake().create_machine(&credential(), request).await.unwrap_err();
    assert_eq!(error.disposition(1), Disposition::Hold { look_again: None });
    assert!(error.changed_nothing());
    assert_eq!(scene.script.calls(Rpc::CreateMachine), 0);
}

fn page(names: std::ops::Range<usize>, next: &str) -> v1::ListMachinesResponse {
    v1::ListMachinesResponse {
        machines: names
            .map(|number| v1::ListedMachine {
                idempotency_key: number.to_string(),
                status: Some(machine(&format!("fake:///{number}"))),
                ..Default::default()
            })
            .collect(),
        next_page_token: next.into(),
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_list_is_whole_or_an_error() {
    let scene = Scene::with(with_capabilities(), times(), Default::default()).await;
    let fake = scene.fake();
    let expired = std::sync::atomic::AtomicBool::new(false);
    scene
        .script
        .on(Rpc::ListMachines, move |request: v1::ListMachinesRequest| {
            let token = request.page.unwrap_or_default().page_token;
            let answer = match token.as_str() {
                "" => Ok(page(0..3, "second")),
                _ if !expired.swap(true, std::sync::atomic::Ordering::SeqCst) => {
                    Err(ActuatorError::new(ErrorReason::PageTokenExpired, "too old").into())
                }
                _ => Ok(page(3..5, "")),
            };
            async move { answer }
        });
    let machines = fake.list_all_machines(&credential(), Default::default()).await.unwrap();
    let keys: Vec<_> = machines
        .iter()
        .map(|machine| machine.idempotency_key.as_str())
        .collect();
    assert_eq!(keys, ["0", "1", "2", "3", "4"]);
    assert_eq!(scene.script.calls(Rpc::ListMachines), 4);

    scene.script.on(Rpc::ListMachines, |_: v1::ListMachinesRequest| async {
        Ok(page(0..1, "same"))
    });
    let error = fake
        .list_all_machines(&credential(), Default::default())
        .await
        .unwrap_err();
    assert_eq!(error.reason(), "PROVIDER_BUG");

    scene.script.fail(
        Rpc::ListMachines,
        ActuatorError::new(ErrorReason::PageTokenExpired, "always").into(),
    );
    let error = fake
        .list_all_machines(&credential(), Default::default())
        .await
        .unwrap_err();
    assert_eq!(error.disposition(1), Disposition::RestartList, "not for ever");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_schema_is_asked_once_for_each_process() {
    let mut scene = Scene::new().await;
    let schema = |script: &Script, json: &'static str| {
        script.on(Rpc::GetConfigSchema, move |_: v1::GetConfigSchemaRequest| async move {
            Ok(v1::GetConfigSchemaResponse {
                json_schema: json.into(),
                sha256: actuator_proto::digest::sha256(json.as_bytes()),
            })
        });
    };
    schema(&scene.script, "{}");
    let fake = scene.fake();
    for _ in 0..3 {
        let found = fake.get_config_schema("FakeMachine", "v1").await.unwrap();
        assert_eq!(found.json, "{}");
    }
    assert_eq!(scene.script.calls(Rpc::GetConfigSchema), 1);
    let newer = Script::provider("fake", "instance-2");
    schema(&newer, "{\"type\":\"object\"}");
    scene.serving = None;
    scene.serving = Some(newer.serve(&scene.path()));
    until(&scene.host, "fake", |s| s.sessions == 2 && s.state.is_reachable()).await;
    let found = fake.get_config_schema("FakeMachine", "v1").await.unwrap();
    assert_eq!(found.json, "{\"type\":\"object\"}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn console_output_is_bounded() {
    let scene = Scene::with(with_capabilities(), times(), Default::default()).await;
    scene
        .script
        .stream(Rpc::GetConsoleOutput, |_: v1::GetConsoleOutputRequest| {
            Ok(futures::stream::repeat_with(|| {
                Ok(v1::GetConsoleOutputResponse {
                    chunk: vec![b'x'; 60 * 1024],
                })
            }))
        });
    let output = scene
        .fake()
        .console_output(&credential(), Default::default(), 100_000)
        .await
        .unwrap();
    assert_eq!(output.len(), 100_000);
    scene
        .script
        .stream(Rpc::GetConsoleOutput, |_: v1::GetConsoleOutputRequest| {
            Ok(futures::stream::iter([Ok(v1::GetConsoleOutputResponse {
                chunk: b"login:".to_vec(),
            })]))
        });
    let output = scene
        .fake()
        .console_output(&credential(), Default::default(), 100_000)
        .await
        .unwrap();
    assert_eq!(output, "login:");
}
