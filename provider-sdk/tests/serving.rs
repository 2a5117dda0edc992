//! Discovery, identity, health, reflection, streams, sockets, TLS and the end.

#![allow(clippy::expect_used, clippy::panic, clippy::unnecessary_wraps, clippy::manual_assert)] // a test may panic

mod support;

use std::os::unix::fs::{FileTypeExt, MetadataExt};
use std::time::Duration;

use provider_sdk::proto::digest::sha256;
use provider_sdk::proto::discovery::v1::GetProtocolsRequest;
use provider_sdk::proto::discovery::v1::discovery_service_client::DiscoveryServiceClient;
use provider_sdk::v1::watch_machines_response::Event;
use provider_sdk::v1::{self, ErrorReason};
use provider_sdk::{Listen, ServeError, Server, SocketError, TcpSecurity, TlsFiles};
use support::*;
use tokio_util::sync::CancellationToken;
use tonic::Code;
use tonic::transport::{Certificate, ClientTlsConfig, Endpoint, Identity};
use tonic_health::pb::HealthCheckRequest;
use tonic_health::pb::health_check_response::ServingStatus;
use tonic_health::pb::health_client::HealthClient;

#[tokio::test]
async fn discovery_and_identity_agree() {
    let served = serve().await;
    let mut discovery = DiscoveryServiceClient::new(served.channel().await);
    let protocols = discovery
        .get_protocols(GetProtocolsRequest {})
        .await
        .expect("an answer")
        .into_inner();
    assert_eq!(protocols.name, "test");
    assert_eq!(protocols.protocols[0].package, "actuator.v1");
    let mut identity = served.identity().await;
    let info = identity
        .get_info(v1::GetInfoRequest {})
        .await
        .expect("an answer")
        .into_inner();
    assert_eq!(
        (info.name, info.instance_id),
        (protocols.name, protocols.instance_id.clone())
    );
    assert_eq!(info.provider_id_prefix, "test:///");
    assert_eq!(info.limits.expect("limits").max_concurrent_mutations, 4);
    let capabilities = info.capabilities.expect("capabilities");
    assert!(capabilities.list_machines.is_some() && capabilities.list_clusters.is_none());
    assert_eq!(info.credential_keys[0].name, "token");
    for kind in info.config_kinds {
        let schema = identity
            .get_config_schema(v1::GetConfigSchemaRequest {
                kind: kind.kind,
                schema_version: kind.schema_versions[0].clone(),
            })
            .await
            .expect("a schema")
            .into_inner();
        assert_eq!(schema.sha256, sha256(&schema.json_schema));
        let schema: serde_json::Value = serde_json::from_slice(&schema.json_schema).expect("JSON");
        assert_eq!(schema["additionalProperties"], false);
    }
    let (_, reason, _) = refusal(
        identity
            .get_config_schema(v1::GetConfigSchemaRequest {
                kind: "TestMachineConfig".into(),
                schema_version: "v9".into(),
            })
            .await,
    );
    assert_eq!(reason, Some(ErrorReason::UnsupportedSchemaVersion));
    let probe = identity
        .probe(v1::ProbeRequest {})
        .await
        .expect("an answer")
        .into_inner();
    assert_eq!(probe.readiness(), v1::Readiness::Ready);

    let other = serve().await;
    let mut discovery = DiscoveryServiceClient::new(other.channel().await);
    let again = discovery
        .get_protocols(GetProtocolsRequest {})
        .await
        .expect("an answer")
        .into_inner();
    assert_ne!(again.instance_id, protocols.instance_id);
}

#[tokio::test]
async fn health_is_served_for_each_service_until_the_end() {
    let mut served = serve().await;
    let mut health = HealthClient::new(served.channel().await);
    for service in [
        "",
        "actuator.discovery.v1.DiscoveryService",
        "actuator.v1.IdentityService",
        "actuator.v1.ClusterService",
        "actuator.v1.EndpointService",
        "actuator.v1.MachineService",
    ] {
        let request = HealthCheckRequest {
            service: service.into(),
        };
        let answer = health.check(request).await.expect("known").into_inner();
        assert_eq!(answer.status(), ServingStatus::Serving, "{service}");
    }
    let mut watch = health
        .watch(HealthCheckRequest { service: String::new() })
        .await
        .expect("a stream")
        .into_inner();
    let first = watch.message().await.expect("a message").expect("not the end");
    assert_eq!(first.status(), ServingStatus::Serving);
    served.shutdown.cancel();
    let last = watch.message().await.expect("a message").expect("not the end");
    assert_eq!(last.status(), ServingStatus::NotServing);
    served.stop().await;
}

#[tokio::test]
async fn reflection_is_off_unless_asked_for() {
    use tonic_reflection::pb::v1::ServerReflectionRequest;
    use tonic_reflection::pb::v1::server_reflection_client::ServerReflectionClient;
    use tonic_reflection::pb::v1::server_reflection_request::MessageRequest;
    use tonic_reflection::pb::v1::server_reflection_response::MessageResponse;

    let request = || {
        tokio_stream::once(ServerReflectionRequest {
            host: String::new(),
            message_request: Some(MessageRequest::ListServices(String::new())),
        })
    };
    let served = serve().await;
    let mut client = ServerReflectionClient::new(served.channel().await);
    let refused = client.server_reflection_info(request()).await;
    assert_eq!(refused.expect_err("off").code(), Code::Unimplemented);

    let served = serve_with(|builder| builder.reflection(true)).await;
    let mut client = ServerReflectionClient::new(served.channel().await);
    let mut answers = client.server_reflection_info(request()).await.expect("on").into_inner();
    let answer = answers.message().await.expect("a message").expect("not the end");
    let Some(MessageResponse::ListServicesResponse(services)) = answer.message_response else {
        panic!("{answer:?}")
    };
    assert!(
        services
            .service
            .iter()
            .any(|service| service.name == "actuator.v1.MachineService")
    );
}

#[tokio::test]
async fn a_watch_is_kept_alive_and_ends_with_the_server() {
    let mut served = serve().await;
    let mut machines = served.machines().await;
    let request = |token: &str| v1::WatchMachinesRequest {
        management_cluster_id: "management".into(),
        resume_token: token.into(),
        credentials: credentials(),
        config: None,
    };
    let (code, reason, _) = refusal(machines.watch_machines(request("old")).await.map(|_| ()));
    assert_eq!(
        (code, reason),
        (Code::OutOfRange, Some(ErrorReason::ResumeTokenExpired))
    );

    let mut watch = machines
        .watch_machines(request(""))
        .await
        .expect("a stream")
        .into_inner();
    let mut next = async || {
        watch
            .message()
            .await
            .expect("no error")
            .map(|message| message.event.expect("an event"))
    };
    assert!(matches!(next().await, Some(Event::Present(_))));
    assert!(matches!(next().await, Some(Event::Synced(_))));
    served.shutdown.cancel();
    assert_eq!(next().await, None);
    served.stop().await;
}

#[tokio::test]
async fn console_output_comes_in_chunks() {
    let served = serve().await;
    let request = v1::GetConsoleOutputRequest {
        r#ref: reference("k"),
        tail_bytes: 0,
        config: None,
        credentials: credentials(),
    };
    let mut console = served
        .machines()
        .await
        .get_console_output(request)
        .await
        .expect("a stream")
        .into_inner();
    let mut lengths = Vec::new();
    while let Some(message) = console.message().await.expect("no error") {
        lengths.push(message.chunk.len());
    }
    assert_eq!(lengths, [65536, 65536, 150_000 - 2 * 65536, 3]);
}

#[tokio::test]
async fn an_orderly_end_waits_for_mutations_and_removes_the_socket() {
    let mut served = serve().await;
    let metadata = std::fs::symlink_metadata(&served.path).expect("there");
    assert!(metadata.file_type().is_socket());
    assert_eq!(metadata.mode() & 0o777, 0o660);
    let folder = served.path.parent().expect("a folder").to_owned();
    assert_eq!(std::fs::metadata(&folder).expect("there").mode() & 0o777, 0o750);

    let hold = served.cloud.hold("k");
    let mut machines = served.machines().await;
    let mut creator = machines.clone();
    let creating = tokio::spawn(async move { creator.create_machine(create("k")).await });
    hold.started().await;
    served.shutdown.cancel();
    // What comes now finds nothing that starts it.
    let late = tokio::time::timeout(LONG, async {
        loop {
            match machines.create_machine(create("late")).await {
                Ok(_) => tokio::task::yield_now().await,
                Err(status) => return status,
            }
        }
    });
    assert_eq!(late.await.expect("refused").code(), Code::Unavailable);
    hold.release();
    let made = joined(creating).await.expect("made to its end").into_inner();
    assert_eq!(made.status.expect("a status").provider_id, "test:///k");
    served.stop().await;
    assert!(served.cloud.has_shut_down.is_cancelled());
    assert!(
        std::fs::read_dir(&folder).expect("there").next().is_none(),
        "nothing is left"
    );
    assert!(try_channel(&served.path).await.is_err());
}

#[tokio::test]
async fn a_mutation_that_does_not_end_does_not_hold_the_server_for_ever() {
    let mut served = serve_with(|builder| builder.drain(Duration::from_millis(50))).await;
    let hold = served.cloud.hold("k");
    let mut machines = served.machines().await;
    let creating = tokio::spawn(async move { machines.create_machine(create("k")).await });
    hold.started().await;
    served.stop().await;
    let status = joined(creating).await.expect_err("cut off");
    assert!(!classified(&status).is_final());
    assert!(!served.path.exists());
}

#[tokio::test]
async fn a_live_socket_is_not_taken_over() {
    let served = serve().await;
    let listen = Listen::unix(&served.path).expect("a path");
    let second = Server::builder(TestProvider(Default::default())).build().expect("good");
    let refused = second.bind(&listen).await.err().expect("refused");
    assert!(
        matches!(refused, ServeError::Socket(SocketError::InUse(_))),
        "{refused}"
    );
    served
        .machines()
        .await
        .machine_exists(exists("k"))
        .await
        .expect("the first one goes on");
}

#[tokio::test]
async fn users_that_are_not_allowed_are_cut_off() {
    // Nobody runs tests as this user.
    let served = serve_with(|builder| builder.peer_uids([4_294_000_001])).await;
    let refused = match try_channel(&served.path).await {
        Err(_) => return,
        Ok(channel) => {
            let mut machines = v1::machine_service_client::MachineServiceClient::new(channel);
            machines.machine_exists(exists("k")).await
        }
    };
    assert!(!classified(&refused.expect_err("cut off")).from_provider);
}

#[tokio::test]
async fn a_message_above_its_bound_is_refused_by_the_transport() {
    let served = serve().await;
    let mut request = create("k");
    request.provider_state = vec![0; 5 * 1024 * 1024];
    let status = served
        .machines()
        .await
        .create_machine(request)
        .await
        .expect_err("too large");
    assert!(!classified(&status).from_provider);
    assert!(served.cloud.calls().is_empty());
}

struct Authority {
    certificate: rcgen::Certificate,
    issuer: rcgen::Issuer<'static, rcgen::KeyPair>,
}

impl Authority {
    fn new() -> Self {
        let mut parameters = rcgen::CertificateParams::new(Vec::<String>::new()).expect("parameters");
        parameters.is_ca = rcgen::IsCa::Ca(rcgen::BasicConstraints::Unconstrained);
        let key = rcgen::KeyPair::generate().expect("a key");
        let certificate = parameters.self_signed(&key).expect("signed");
        Self {
            certificate,
            issuer: rcgen::Issuer::new(parameters, key),
        }
    }

    fn issue(&self, name: &str) -> (String, String) {
        let parameters = rcgen::CertificateParams::new(vec![name.to_owned()]).expect("parameters");
        let key = rcgen::KeyPair::generate().expect("a key");
        let certificate = parameters.signed_by(&key, &self.issuer).expect("signed");
        (certificate.pem(), key.serialize_pem())
    }
}

#[tokio::test]
async fn mutual_tls_takes_new_files_and_pins_names() {
    let (first, second) = (Authority::new(), Authority::new());
    let folder = tempfile::tempdir().expect("a folder");
    let file = |name: &str| folder.path().join(name);
    let write = |authority: &Authority| {
        let (certificate, key) = authority.issue("localhost");
        std::fs::write(file("cert.pem"), certificate).expect("written");
        std::fs::write(file("key.pem"), key).expect("written");
        std::fs::write(file("ca.pem"), authority.certificate.pem()).expect("written");
    };
    write(&first);
    let security = TcpSecurity::MutualTls(TlsFiles {
        certificate: file("cert.pem"),
        key: file("key.pem"),
        client_authorities: file("ca.pem"),
        client_names: vec!["core.outrigger".into()],
    });
    let server = Server::builder(TestProvider(Default::default()))
        .tcp_security(security)
        .build()
        .expect("good");
    let bound = server
        .bind(&"tcp://127.0.0.1:0".parse().expect("an address"))
        .await
        .expect("bound");
    let Listen::Tcp(address) = bound.address().clone() else {
        panic!("not TCP")
    };
    let shutdown = CancellationToken::new();
    let serving = tokio::spawn(bound.serve(shutdown.clone()));

    let probe = async |authority: &Authority, name: &str| {
        let (certificate, key) = authority.issue(name);
        let tls = ClientTlsConfig::new()
            .ca_certificate(Certificate::from_pem(authority.certificate.pem()))
            .identity(Identity::from_pem(certificate, key))
            .domain_name("localhost");
        let endpoint = Endpoint::try_from(format!("https://{address}")).expect("an address");
        let channel = endpoint
            .tls_config(tls)
            .expect("a config")
            .connect()
            .await
            .map_err(|error| error.to_string())?;
        let mut identity = v1::identity_service_client::IdentityServiceClient::new(channel);
        let answer = identity.probe(v1::ProbeRequest {}).await;
        answer.map(|_| ()).map_err(|status| status.to_string())
    };
    probe(&first, "core.outrigger").await.expect("allowed");
    probe(&first, "somebody.else").await.expect_err("another name");
    probe(&second, "core.outrigger").await.expect_err("another authority");
    write(&second);
    let reloaded = tokio::time::timeout(LONG, async {
        while probe(&second, "core.outrigger").await.is_err() {
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    });
    reloaded.await.expect("the new files are taken");
    // What cannot be used changes nothing.
    std::fs::write(file("cert.pem"), "no certificate").expect("written");
    tokio::time::sleep(Duration::from_millis(1100)).await;
    probe(&second, "core.outrigger")
        .await
        .expect("the former files stay in use");
    shutdown.cancel();
    joined(serving).await.expect("an orderly end");
}

#[tokio::test]
async fn plain_tcp_is_for_loopback_with_the_flag() {
    let build = |security: TcpSecurity| {
        let builder = Server::builder(TestProvider(Default::default()));
        builder.tcp_security(security).build().expect("good")
    };
    let loopback: Listen = "tcp://127.0.0.1:0".parse().expect("an address");
    let everywhere: Listen = "tcp://0.0.0.0:0".parse().expect("an address");
    let refused = build(TcpSecurity::Refused)
        .bind(&loopback)
        .await
        .err()
        .expect("refused");
    assert!(matches!(refused, ServeError::Unprotected(_)));
    let refused = build(TcpSecurity::PlainLoopback)
        .bind(&everywhere)
        .await
        .err()
        .expect("refused");
    assert!(matches!(refused, ServeError::Unprotected(_)));
    let bound = build(TcpSecurity::PlainLoopback)
        .bind(&loopback)
        .await
        .expect("allowed");
    let Listen::Tcp(address) = bound.address().clone() else {
        panic!("not TCP")
    };
    let shutdown = CancellationToken::new();
    let serving = tokio::spawn(bound.serve(shutdown.clone()));
    let channel = Endpoint::try_from(format!("http://{address}"))
        .expect("an address")
        .connect()
        .await
        .expect("connected");
    let mut identity = v1::identity_service_client::IdentityServiceClient::new(channel);
    identity.probe(v1::ProbeRequest {}).await.expect("an answer");
    // A client that keeps its connection does not hold up the end.
    shutdown.cancel();
    tokio::time::timeout(LONG, serving)
        .await
        .expect("it ends")
        .expect("no panic")
        .expect("an orderly end");
}
