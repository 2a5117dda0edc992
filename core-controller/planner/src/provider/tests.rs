use jiff::Timestamp;
use outrigger_api::{ObjectMeta, Provider, ProviderSpec};

use super::*;

fn at(second: i64) -> Timestamp {
    Timestamp::from_second(second).unwrap()
}

fn object() -> Provider {
    Provider {
        metadata: ObjectMeta {
            name: Some("fake".into()),
            generation: Some(1),
            ..Default::default()
        },
        spec: ProviderSpec {
            endpoint: "unix:///run/fake.sock".into(),
            ..Default::default()
        },
        status: None,
    }
}

fn ready() -> Snapshot {
    Snapshot {
        link: Link::Ready,
        connections: 1,
        version: "0.1.0".into(),
        instance_id: "first".into(),
        protocol: "actuator.v1".into(),
        protocols: vec!["actuator.v1".into()],
        capabilities: vec!["watch_machines".into(), "list_machines".into(), "list_machines".into()],
        ..Snapshot::connecting("fake", "unix:///run/fake.sock")
    }
}

fn step(object: &mut Provider, snapshot: &Snapshot, now: Timestamp) -> (bool, Vec<Event>) {
    let plan = plan(
        &View {
            provider: object,
            snapshot: Some(snapshot),
        },
        now,
    );
    let changed = object.status.as_ref() != Some(&plan.status);
    object.status = Some(plan.status);
    (changed, plan.events)
}

fn condition(object: &Provider, type_: &str) -> (String, String, String) {
    let condition = conditions::get(&object.status.as_ref().unwrap().conditions, type_).unwrap();
    (
        condition.status.clone(),
        condition.reason.clone(),
        condition.message.clone(),
    )
}

#[test]
fn what_it_says_of_itself_is_shown_once_and_in_order() {
    let mut object = object();
    assert!(step(&mut object, &ready(), at(1)).0);
    let status = object.status.clone().unwrap();
    assert_eq!(status.version.as_deref(), Some("0.1.0"));
    assert_eq!(status.capabilities, ["list_machines", "watch_machines"]);
    assert_eq!(condition(&object, "Ready").0, "True");
    assert_eq!(condition(&object, "Reachable").0, "True");
    // Another order of the same is no write, and neither is time.
    let mut shuffled = ready();
    shuffled.capabilities.reverse();
    assert!(!step(&mut object, &shuffled, at(500)).0);
}

#[test]
fn going_away_and_coming_back_are_one_write_and_one_event_each() {
    let mut object = object();
    step(&mut object, &ready(), at(1));
    let gone = Snapshot {
        link: Link::Unreachable,
        ..ready()
    };
    let (changed, events) = step(&mut object, &gone, at(2));
    assert!(changed);
    assert_eq!(events[0].reason, "ProviderUnavailable");
    let (status, reason, message) = condition(&object, "Reachable");
    assert_eq!((status.as_str(), reason.as_str()), ("False", "Unreachable"));
    assert!(
        message.contains("unix:///run/fake.sock") && message.contains("start it"),
        "{message}"
    );
    for second in 3..50 {
        assert_eq!(step(&mut object, &gone, at(second)), (false, vec![]));
    }
    let restarted = Snapshot {
        instance_id: "second".into(),
        connections: 2,
        ..ready()
    };
    let (changed, events) = step(&mut object, &restarted, at(60));
    assert!(changed);
    assert_eq!(events[0].reason, "ProviderAvailable");
    assert_eq!(object.status.unwrap().instance_id.as_deref(), Some("second"));
}

#[test]
fn connecting_after_a_restart_of_the_core_writes_nothing() {
    let mut object = object();
    step(&mut object, &ready(), at(1));
    let connecting = Snapshot::connecting("fake", "unix:///run/fake.sock");
    assert_eq!(step(&mut object, &connecting, at(2)), (false, vec![]));
    assert!(!step(&mut object, &ready(), at(3)).0);
}

#[test]
fn each_bad_state_says_what_to_do() {
    for (link, reachable, words) in [
        (Link::Incompatible, "True", "update the older"),
        (Link::Misconfigured, "False", "correct it"),
        (Link::Initializing, "True", "the checks quota fail"),
        (Link::Unreachable, "False", "start it"),
    ] {
        let mut object = object();
        let snapshot = Snapshot {
            link,
            checks: vec![Check {
                name: "quota".into(),
                healthy: false,
                message: String::new(),
            }],
            ..ready()
        };
        step(&mut object, &snapshot, at(1));
        assert_eq!(condition(&object, "Reachable").0, reachable, "{link:?}");
        let (status, reason, message) = condition(&object, "Ready");
        assert_eq!(status, "False", "{link:?}");
        assert_eq!(reason, link.name());
        assert!(message.contains(words), "{link:?}: {message}");
    }
}

#[test]
fn the_words_of_the_host_win() {
    let mut object = object();
    let snapshot = Snapshot {
        link: Link::Misconfigured,
        message: "/run/fake.sock is a regular file, not a socket; remove it.".into(),
        ..ready()
    };
    step(&mut object, &snapshot, at(1));
    assert_eq!(
        condition(&object, "Ready").2,
        "/run/fake.sock is a regular file, not a socket; remove it"
    );
}

#[test]
fn what_the_api_would_refuse_is_left_out() {
    let mut object = object();
    let mut snapshot = ready();
    let kind = |name: String| ConfigKind {
        kind: name,
        target: "Machine".into(),
        schema_versions: vec!["v2".to_owned(), "v1".into(), "v2".into(), "v".repeat(64)],
    };
    snapshot.config_kinds = (0..300).map(|index| kind(format!("K{index}"))).collect();
    snapshot.config_kinds.push(kind(String::new()));
    snapshot.protocols = (0..300).map(|index| format!("actuator.v{index}")).collect();
    snapshot.credential_keys = (0..300).map(|index| format!("key{index}")).collect();
    step(&mut object, &snapshot, at(1));
    let status = object.status.unwrap();
    assert_eq!(status.config_kinds.len(), 64);
    assert_eq!(status.config_kinds[0].versions, ["v2", "v1"]);
    assert_eq!((status.protocols.len(), status.credential_keys.len()), (32, 64));
}

#[test]
fn an_exact_reason_wins_and_a_warning_is_shown_while_all_goes_on() {
    let mut object = object();
    let refused = Snapshot {
        link: Link::Misconfigured,
        reason: "ProviderCertificateExpired".into(),
        message: "the certificate has expired; renew it".into(),
        ..ready()
    };
    step(&mut object, &refused, at(1));
    for type_ in ["Ready", "Reachable"] {
        let (status, reason, message) = condition(&object, type_);
        assert_eq!(
            (status.as_str(), reason.as_str()),
            ("False", "ProviderCertificateExpired")
        );
        assert_eq!(message, "the certificate has expired; renew it");
    }
    let warned = Snapshot {
        warning: "the new certificates cannot be used".into(),
        ..ready()
    };
    step(&mut object, &warned, at(2));
    assert_eq!(condition(&object, "Ready").0, "True");
    let (status, reason, message) = condition(&object, "Reachable");
    assert_eq!((status.as_str(), reason.as_str()), ("True", "FormerConnectionInUse"));
    assert!(message.ends_with("; the new certificates cannot be used"), "{message}");
    // And it goes when it is mended.
    assert!(step(&mut object, &ready(), at(3)).0);
    assert_eq!(condition(&object, "Reachable").1, "Connected");
}
