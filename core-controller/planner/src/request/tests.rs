//! Requests are the same for the same object, wherever and however often they are made.

use actuator_proto::{digest, v1};
use outrigger_api::{
    ClusterNetwork, ClusterSpec, LocalSecretReference, MachineSpec, MachineStatus, NetworkRanges, Taint, TaintEffect,
};
use proptest::prelude::*;
use serde_json::json;

use super::*;
use crate::operation::{Basis, Call};

fn config(value: &Value) -> ConfigSpec {
    ConfigSpec {
        kind: "FakeMachineConfig".into(),
        version: "v1".into(),
        config: value.as_object().unwrap().clone(),
    }
}

fn cluster() -> Cluster {
    Cluster {
        metadata: ObjectMeta {
            name: Some("demo".into()),
            namespace: Some("default".into()),
            uid: Some("cluster-uid".into()),
            generation: Some(4),
            ..Default::default()
        },
        spec: ClusterSpec {
            provider: "fake".into(),
            provider_spec: config(&json!({"region": "here"})),
            credentials_ref: Some(LocalSecretReference { name: "cloud".into() }),
            cluster_network: Some(ClusterNetwork {
                pods: Some(NetworkRanges {
                    cidr_blocks: vec!["10.244.0.0/16".into()],
                }),
                ..Default::default()
            }),
            ..Default::default()
        },
        status: None,
    }
}

fn machine() -> Machine {
    Machine {
        metadata: ObjectMeta {
            name: Some("demo-1".into()),
            namespace: Some("default".into()),
            uid: Some("machine-uid".into()),
            generation: Some(3),
            ..Default::default()
        },
        spec: MachineSpec {
            cluster_name: "demo".into(),
            provider_spec: config(&json!({"size": "small", "big": 9_007_199_254_740_993_i64})),
            version: Some("v1.34.1".into()),
            taints: vec![Taint {
                key: "dedicated".into(),
                value: Some("gpu".into()),
                effect: TaintEffect::NoExecute,
            }],
            ..Default::default()
        },
        status: None,
    }
}

fn context() -> Context<'static> {
    Context {
        management_cluster_id: "management",
        fencing_epoch: 7,
        attempt: 2,
        provider_state: &[],
        credentials: credentials(None),
        bootstrap: None,
    }
}

fn operation(call: Call) -> Operation {
    Operation {
        call,
        basis: Basis::default(),
    }
}

#[test]
fn large_numbers_survive_and_kind_and_version_travel_beside() {
    let message = opaque_config(&machine().spec.provider_spec).unwrap();
    assert_eq!(message.kind, "FakeMachineConfig");
    assert_eq!(message.schema_version, "v1");
    assert_eq!(
        String::from_utf8(message.json.clone()).unwrap(),
        r#"{"big":9007199254740993,"size":"small"}"#
    );
    assert_eq!(message.sha256, digest::sha256(&message.json));
}

#[test]
fn a_config_above_the_bound_is_refused_with_a_sentence() {
    let large = config(&json!({"x": "y".repeat(limits::MAX_CONFIG_BYTES)}));
    let error = opaque_config(&large).unwrap_err();
    assert!(error.to_string().starts_with("spec.providerSpec has "), "{error}");
    let failure = Failure::from(error);
    assert_eq!(failure.outcome, Outcome::Hold { look_again: None });
    assert_eq!(failure.condition_reason(), "InvalidConfig");
}

#[test]
fn a_create_says_whose_it_is_and_what_it_shall_be() {
    let request = machine_request(
        &machine(),
        Some(&cluster()),
        &operation(Call::Create {
            failure_domain: Some("zone-a".into()),
        }),
        Context {
            bootstrap: Some(bootstrap(b"#!/bin/sh".to_vec(), Some("shell")).unwrap()),
            ..context()
        },
    )
    .unwrap();
    let MachineRequest::Create(request) = request else {
        panic!("{request:?}")
    };
    let meta = request.meta.unwrap();
    assert_eq!(
        (
            meta.idempotency_key.as_str(),
            meta.generation,
            meta.fencing_epoch,
            meta.attempt
        ),
        ("machine-uid", 3, 7, 2)
    );
    let ownership = request.ownership.unwrap();
    assert_eq!(ownership.management_cluster_id, "management");
    assert_eq!(ownership.cluster_uid, "cluster-uid");
    assert_eq!(ownership.object_uid, "machine-uid");
    let spec = request.spec.unwrap();
    assert_eq!(spec.failure_domain, "zone-a");
    assert_eq!(spec.taints[0].effect, "NoExecute");
    assert_eq!(spec.digest, digest::machine_spec(&spec));
    assert_eq!(request.bootstrap.unwrap().format(), v1::BootstrapFormat::Raw);
}

#[test]
fn delete_and_exists_work_with_the_cluster_gone_and_a_config_that_cannot_be_sent() {
    let mut machine = machine();
    machine.spec.provider_id = Some("fake:///1".into());
    machine.spec.provider_spec = config(&json!({"x": "y".repeat(limits::MAX_CONFIG_BYTES)}));
    for call in [Call::Delete, Call::Exists] {
        let (reference, config) = match machine_request(&machine, None, &operation(call), context()).unwrap() {
            MachineRequest::Delete(request) => (request.r#ref, request.config),
            MachineRequest::Exists(request) => (request.r#ref, request.config),
            other => panic!("{other:?}"),
        };
        let reference = reference.unwrap();
        assert_eq!(reference.provider_id, "fake:///1");
        assert_eq!(reference.idempotency_key, "machine-uid");
        assert_eq!(config, None);
    }
}

#[test]
fn what_was_answered_comes_back_from_the_status() {
    let cluster = cluster();
    let answer = v1::MachineStatus {
        provider_state: vec![0, 159, 7],
        artefacts: vec![v1::Artefact {
            r#type: "disk".into(),
            id: "d-1".into(),
        }],
        ..Default::default()
    };
    let mut machine = machine();
    machine.status = Some(MachineStatus {
        provider_status: provider_status_of_machine(&answer, Some(&cluster), &serde_json::Map::new()),
        ..Default::default()
    });
    assert_eq!(machine_provider_state(&machine), [0, 159, 7]);
    assert_eq!(
        machine_credentials(&machine, None),
        CredentialsSource::Secret("cloud".into())
    );
    // Answers that come when the Cluster is gone do not forget its origin.
    let kept = machine.status.as_ref().unwrap().provider_status.clone();
    let again = provider_status_of_machine(&answer, None, &kept);
    assert_eq!(again, kept);
    machine.status = None;
    assert_eq!(machine_credentials(&machine, None), CredentialsSource::Unknown);
}

#[test]
fn a_machine_is_told_of_its_cluster_and_its_digest_is_the_same_without() {
    let mut cluster = cluster();
    let answer = v1::ClusterStatus {
        artefacts: vec![v1::Artefact {
            r#type: "network".into(),
            id: "n-1".into(),
        }],
        provider_state: b"state".to_vec(),
        ..Default::default()
    };
    let status = cluster.status.get_or_insert_default();
    status.provider_id = Some("net-1".into());
    status.provider_status = provider_status_of_cluster(&answer);
    let told = machine_spec(&machine(), Some(&cluster), None).unwrap();
    let network = told.cluster.unwrap();
    assert_eq!(network.provider_id, "net-1");
    assert_eq!(network.artefacts, answer.artefacts);
    assert_eq!(network.provider_state, b"state");
    assert_eq!(machine_spec(&machine(), None, None).unwrap().digest, told.digest);
}

#[test]
fn secrets_are_not_in_debug() {
    let credentials = credentials(Some([("key".to_owned(), b"hunter2".to_vec())].into()));
    let data = bootstrap(b"hunter2".to_vec(), None).unwrap();
    assert_eq!(data.format(), v1::BootstrapFormat::CloudConfig);
    let context = Context {
        credentials,
        bootstrap: Some(data),
        ..context()
    };
    let bytes = format!("{:?}", b"hunter2");
    let shown = format!("{context:?}");
    assert!(
        !shown.contains("hunter2") && !shown.contains(bytes.trim_matches(['[', ']'])),
        "{shown}"
    );
}

#[test]
fn too_much_bootstrap_data_is_refused() {
    let error = bootstrap(vec![0; limits::MAX_BOOTSTRAP_BYTES + 1], None).unwrap_err();
    assert_eq!(Failure::from(error).condition_reason(), "BootstrapTooLarge");
}

#[test]
fn a_cluster_request_has_the_ranges() {
    let request = cluster_request(&cluster(), &operation(Call::Create { failure_domain: None }), context()).unwrap();
    let ClusterRequest::Create(request) = request else {
        panic!("{request:?}")
    };
    assert_eq!(request.spec.unwrap().pod_cidr_blocks, ["10.244.0.0/16"]);
    assert_eq!(request.meta.unwrap().idempotency_key, "cluster-uid");
}

proptest! {
    #[test]
    fn the_order_of_keys_and_taints_is_no_other_spec(
        keys in proptest::collection::btree_map("[a-z]{1,6}", 0i64..1000, 0..8),
        turn in any::<bool>(),
    ) {
        let mut pairs: Vec<_> = keys.into_iter().collect();
        let one = pairs.iter().map(|(key, value)| (key.clone(), json!({"b": value, "a": 1}))).collect();
        if turn {
            pairs.reverse();
        }
        let other = pairs.iter().map(|(key, value)| (key.clone(), json!({"a": 1, "b": value}))).collect();
        let mut first = machine();
        first.spec.provider_spec.config = one;
        first.spec.taints.push(Taint::default());
        let mut second = first.clone();
        second.spec.provider_spec.config = other;
        second.spec.taints.reverse();
        prop_assert_eq!(
            machine_spec(&first, None, None).unwrap().digest,
            machine_spec(&second, None, None).unwrap().digest
        );
    }
}
