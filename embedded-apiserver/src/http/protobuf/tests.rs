use proptest::prelude::*;
use serde_json::json;

use super::*;

fn varint(mut value: u64, out: &mut Vec<u8>) {
    while value >= 0x80 {
        out.push(value as u8 | 0x80);
        value >>= 7;
    }
    out.push(value as u8);
}

fn bytes(number: u64, content: &[u8]) -> Vec<u8> {
    let mut out = Vec::new();
    varint(number << 3 | 2, &mut out);
    varint(content.len() as u64, &mut out);
    out.extend_from_slice(content);
    out
}

fn number(number: u64, value: u64) -> Vec<u8> {
    let mut out = Vec::new();
    varint(number << 3, &mut out);
    varint(value, &mut out);
    out
}

fn envelope(api_version: &str, kind: &str, raw: &[u8]) -> Vec<u8> {
    let types = [bytes(1, api_version.as_bytes()), bytes(2, kind.as_bytes())].concat();
    [MAGIC.to_vec(), bytes(1, &types), bytes(2, raw)].concat()
}

#[test]
fn a_secret_reads_as_its_json() {
    let label = [bytes(1, b"app"), bytes(2, b"demo")].concat();
    let metadata = [bytes(1, b"s"), bytes(2, b""), bytes(8, &[]), bytes(11, &label)].concat();
    let entry = [bytes(1, b"key"), bytes(2, &[0, 255])].concat();
    let raw = [bytes(1, &metadata), bytes(2, &entry), bytes(3, b"Opaque"), number(5, 1)].concat();
    assert_eq!(
        decode(&envelope("v1", "Secret", &raw)).unwrap(),
        json!({
            "apiVersion": "v1", "kind": "Secret", "type": "Opaque", "immutable": true,
            "metadata": { "name": "s", "labels": { "app": "demo" } }, "data": { "key": "AP8=" },
        })
    );
}

#[test]
fn special_types_and_inline_fields_read_as_in_json() {
    let time = [number(1, 1_700_000_000), number(2, 5_000)].concat();
    let lease = decode(&envelope(
        "coordination.k8s.io/v1",
        "Lease",
        &bytes(2, &[bytes(1, b"me"), bytes(4, &time)].concat()),
    ));
    assert_eq!(
        lease.unwrap()["spec"],
        json!({ "holderIdentity": "me", "renewTime": "2023-11-14T22:13:20.000005Z" })
    );
    let budget = [bytes(1, &[number(1, 1), bytes(3, b"50%")].concat())].concat();
    let budget = decode(&envelope("policy/v1", "PodDisruptionBudget", &bytes(2, &budget)));
    assert_eq!(budget.unwrap()["spec"], json!({ "minAvailable": "50%" }));
    // A volume's source is inline: `emptyDir` stands beside `name`.
    let volume = [bytes(1, b"v"), bytes(2, &bytes(2, &[]))].concat();
    let pod = decode(&envelope("v1", "Pod", &bytes(2, &bytes(1, &volume)))).unwrap();
    assert_eq!(pod["spec"]["volumes"], json!([{ "name": "v", "emptyDir": {} }]));
}

#[test]
fn what_is_no_protobuf_is_refused() {
    assert!(matches!(decode(b"{}"), Err(ProtobufError::Prefix)));
    assert!(matches!(
        decode(&envelope("v1", "Nothing", &[])),
        Err(ProtobufError::UnknownKind(_))
    ));
    assert!(matches!(decode(&envelope("v1", "Pod", &[0xff; 12])), Err(Malformed(_))));
    let deep = (0..2000).fold(Vec::new(), |inner, _| bytes(1, &inner));
    let _ = decode(&envelope("v1", "Pod", &deep));
}

proptest! {
    #[test]
    fn no_bytes_bring_it_down(raw in prop::collection::vec(any::<u8>(), 0..200)) {
        let _ = decode(&raw);
        let _ = decode(&envelope("v1", "Pod", &raw));
        let _ = decode(&envelope("v1", "Secret", &raw));
    }
}
