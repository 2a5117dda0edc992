//! What is refused before the provider sees it, and what is said about configs.

#![allow(clippy::expect_used, clippy::panic, clippy::unnecessary_wraps, clippy::manual_assert)] // a test may panic

mod support;

use provider_sdk::proto::digest::sha256;
use provider_sdk::v1::{self, ErrorReason, Severity};
use support::*;
use tonic::Code;

/// Sends a create that was spoilt, and gives the reason and the fields named.
async fn spoilt(
    served: &Served,
    spoil: impl FnOnce(&mut v1::CreateMachineRequest),
) -> (Option<ErrorReason>, Vec<String>) {
    let mut request = create("k");
    spoil(&mut request);
    let (code, reason, error) = refusal(served.machines().await.create_machine(request).await);
    assert!(
        matches!(code, Code::InvalidArgument | Code::Unauthenticated),
        "{code:?}"
    );
    assert!(error.is_final(), "nothing was done");
    let fields = error.fields.into_iter().map(|violation| violation.field).collect();
    (reason, fields)
}

macro_rules! refused {
    ($served:expr, $reason:ident, [$($field:expr),*], $spoil:expr) => {{
        let (reason, fields) = spoilt(&$served, $spoil).await;
        assert_eq!(reason, Some(ErrorReason::$reason));
        let expected: Vec<String> = vec![$($field.to_owned()),*];
        assert_eq!(fields, expected);
    }};
}

#[tokio::test]
async fn a_request_that_breaks_a_rule_never_reaches_the_provider() {
    let served = serve().await;
    refused!(served, InvalidField, ["meta"], |request| request.meta = None);
    refused!(served, InvalidField, ["ownership"], |request| request.ownership = None);
    refused!(served, InvalidField, ["spec"], |request| request.spec = None);
    refused!(served, InvalidField, ["meta.idempotency_key"], |request| {
        request.meta = meta("not a key", 1);
    });
    refused!(served, InvalidField, ["meta.idempotency_key"], |request| {
        request.meta = meta(&"k".repeat(65), 1);
    });
    refused!(served, InvalidField, ["meta.generation"], |request| request.meta =
        meta("k", -1));
    refused!(served, InvalidField, ["spec.digest"], |request| {
        request.spec.as_mut().expect("a spec").digest = vec![1; 31];
    });
    refused!(served, LimitExceeded, ["spec.failure_domain"], |request| {
        request.spec.as_mut().expect("a spec").failure_domain = "z".repeat(257);
    });
    refused!(served, LimitExceeded, ["provider_state"], |request| {
        request.provider_state = vec![0; 16 * 1024 + 1];
    });
    refused!(served, BootstrapTooLarge, ["bootstrap.data"], |request| {
        request.bootstrap = Some(bootstrap(&vec![b'x'; 1025]));
    });
    refused!(served, InvalidField, ["bootstrap.sha256"], |request| {
        let mut data = bootstrap(b"#cloud-config");
        data.sha256 = sha256(b"other");
        request.bootstrap = Some(data);
    });
    refused!(
        served,
        UnsupportedSchemaVersion,
        ["spec.config.schema_version"],
        |request| {
            config(request).schema_version = "v9".into();
        }
    );
    refused!(served, InvalidField, ["spec.config.kind"], |request| {
        config(request).kind = "TestClusterConfig".into();
    });
    refused!(served, InvalidField, ["spec.config.sha256"], |request| {
        config(request).sha256 = sha256(b"other");
    });
    refused!(served, LimitExceeded, ["spec.config.json"], |request| {
        let json = format!(r#"{{"size":"{}"}}"#, "s".repeat(256 * 1024));
        *config(request) = machine_config(&json).expect("a config");
    });
    assert!(served.cloud.calls().is_empty());
}

fn bootstrap(data: &[u8]) -> v1::BootstrapData {
    v1::BootstrapData {
        data: data.to_vec(),
        format: v1::BootstrapFormat::CloudConfig.into(),
        sha256: sha256(data),
    }
}

fn config(request: &mut v1::CreateMachineRequest) -> &mut v1::OpaqueConfig {
    request
        .spec
        .as_mut()
        .and_then(|spec| spec.config.as_mut())
        .expect("a config")
}

#[tokio::test]
async fn a_config_that_does_not_fit_is_refused_with_pointers() {
    let served = serve().await;
    for (json, pointers) in [
        (
            r#"{"size":"s","sise":"t","disk":{"gib":1,"type":"ssd"}}"#,
            vec!["/disk/type", "/sise"],
        ),
        (r#"{"size":"s","size":"t"}"#, vec!["/size"]),
        (r#"{"disk":{"gib":-1}}"#, vec!["/disk/gib", "/size"]),
        (r#"{"size":"impossible"}"#, vec!["/size"]),
        ("{", vec![""]),
    ] {
        let (reason, mut fields) = spoilt(&served, |request| {
            request.spec = Some(machine_spec(json));
        })
        .await;
        fields.sort();
        assert_eq!(
            (reason, fields),
            (
                Some(ErrorReason::InvalidConfig),
                pointers.iter().map(|p| (*p).to_owned()).collect()
            ),
            "{json}"
        );
    }
    assert!(served.cloud.calls().is_empty());
}

#[tokio::test]
async fn missing_credentials_are_named() {
    let served = serve().await;
    for credentials in [
        None,
        Some(v1::Credentials {
            source: Some(v1::credentials::Source::Data(v1::CredentialData {
                entries: [("other".to_owned(), b"x".to_vec())].into(),
            })),
        }),
    ] {
        let mut request = create("k");
        request.credentials = credentials;
        let (code, reason, error) = refusal(served.machines().await.create_machine(request).await);
        assert_eq!(
            (code, reason),
            (Code::Unauthenticated, Some(ErrorReason::CredentialsInvalid))
        );
        assert!(error.message.contains("\"token\"") && error.is_final());
    }
    assert!(served.cloud.calls().is_empty());
}

#[tokio::test]
async fn ids_that_cannot_be_ours_are_malformed() {
    let served = serve().await;
    let mut machines = served.machines().await;
    for id in ["aws:///eu/i-1".to_owned(), format!("test:///{}", "x".repeat(512))] {
        let mut request = exists("k");
        request.r#ref.as_mut().expect("a ref").provider_id = id;
        let (_, reason, error) = refusal(machines.machine_exists(request).await);
        assert_eq!(reason, Some(ErrorReason::MalformedProviderId));
        assert_eq!(error.fields[0].field, "ref.provider_id");
    }
    let mut request = delete("k", 1);
    request.r#ref = reference("another-key");
    let (_, reason, error) = refusal(machines.delete_machine(request).await);
    assert_eq!(reason, Some(ErrorReason::InvalidField));
    assert_eq!(error.fields[0].field, "ref.idempotency_key");
}

#[tokio::test]
async fn validate_config_answers_ok_with_diagnostics() {
    let served = serve().await;
    let mut identity = served.identity().await;
    let validate = |json: &str| v1::ValidateConfigRequest {
        config: machine_config(json),
        ..Default::default()
    };
    let valid = identity
        .validate_config(validate(r#"{"size":"s"}"#))
        .await
        .expect("OK")
        .into_inner();
    assert!(valid.diagnostics.is_empty());

    let invalid = identity
        .validate_config(validate(r#"{"size":"s","x":1,"account":1.5}"#))
        .await
        .expect("OK even so")
        .into_inner();
    let mut pointers: Vec<&str> = invalid
        .diagnostics
        .iter()
        .map(|found| found.json_pointer.as_str())
        .collect();
    pointers.sort_unstable();
    assert_eq!(pointers, ["/account", "/x"]);

    let mut change = validate(r#"{"size":"large"}"#);
    change.previous = machine_config(r#"{"size":"small"}"#);
    let change = identity.validate_config(change).await.expect("OK").into_inner();
    assert_eq!(change.diagnostics.len(), 1);
    assert!(change.diagnostics[0].requires_replacement);
    assert_eq!(change.diagnostics[0].severity(), Severity::Warning);

    let many: Vec<String> = (0..300).map(|number| format!(r#","k{number}":1"#)).collect();
    let many = many.concat();
    let many = identity
        .validate_config(validate(&format!(r#"{{"size":"s"{many}}}"#)))
        .await
        .expect("OK");
    assert_eq!(many.into_inner().diagnostics.len(), 100);

    let mut unknown = validate("{}");
    unknown.config.as_mut().expect("a config").kind = "NoSuchConfig".into();
    let (_, reason, _) = refusal(identity.validate_config(unknown).await);
    assert_eq!(reason, Some(ErrorReason::InvalidField));
    let mut preflight = validate(r#"{"size":"s"}"#);
    preflight.mode = v1::ValidationMode::Preflight.into();
    let (_, reason, _) = refusal(identity.validate_config(preflight).await);
    assert_eq!(reason, Some(ErrorReason::CredentialsInvalid));
}

#[tokio::test]
async fn pages_are_checked_both_ways() {
    let served = serve().await;
    let mut machines = served.machines().await;
    let list = |size: i32| v1::ListMachinesRequest {
        management_cluster_id: "management".into(),
        page: Some(v1::PageRequest {
            page_size: size,
            ..Default::default()
        }),
        credentials: credentials(),
        ..Default::default()
    };
    let (_, reason, error) = refusal(machines.list_machines(list(501)).await);
    assert_eq!(reason, Some(ErrorReason::LimitExceeded));
    assert_eq!(error.fields[0].field, "page.page_size");
    let mut unscoped = list(1);
    unscoped.management_cluster_id.clear();
    let (_, reason, _) = refusal(machines.list_machines(unscoped).await);
    assert_eq!(reason, Some(ErrorReason::InvalidField));

    *served.cloud.page.lock() = Some(provider_sdk::Page {
        items: vec![v1::ListedMachine::default(); 3],
        next_page_token: None,
    });
    assert_eq!(
        machines
            .list_machines(list(3))
            .await
            .expect("a page")
            .into_inner()
            .machines
            .len(),
        3
    );
    let (_, reason, _) = refusal(machines.list_machines(list(2)).await);
    assert_eq!(reason, Some(ErrorReason::ProviderBug));
}

#[tokio::test]
async fn what_is_not_advertised_is_unimplemented() {
    let served = serve().await;
    let types = served
        .machines()
        .await
        .list_machine_types(v1::ListMachineTypesRequest::default())
        .await;
    assert_eq!(types.expect_err("not there").code(), Code::Unimplemented);
    let clusters = served
        .clusters()
        .await
        .list_clusters(v1::ListClustersRequest::default())
        .await;
    assert_eq!(clusters.expect_err("not there").code(), Code::Unimplemented);
}
