//! Configs of every shape that serde and schemars make, right and wrong.

use schemars::JsonSchema;
use serde::Deserialize;
use serde_json::json;

use super::super::OlderVersion;
use super::*;

#[derive(Debug, Clone, PartialEq, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
struct Sample {
    size: String,
    #[serde(default)]
    account: u64,
    disk: Option<Disk>,
    #[serde(default)]
    zones: Vec<Zone>,
    #[serde(default)]
    tags: std::collections::BTreeMap<String, String>,
    network: Option<Network>,
    #[serde(flatten)]
    placement: Placement,
    image: Option<Image>,
    parent: Option<Box<Nested>>,
}

#[derive(Debug, Clone, PartialEq, Deserialize, JsonSchema)]
struct Nested {
    parent: Option<Box<Nested>>,
}

#[derive(Debug, Clone, PartialEq, Deserialize, JsonSchema)]
struct Disk {
    #[schemars(range(min = 1, max = 100))]
    gib: u32,
}

#[derive(Debug, Clone, PartialEq, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
struct Zone {
    name: String,
}

#[derive(Debug, Clone, PartialEq, Deserialize, JsonSchema)]
#[serde(tag = "type", rename_all = "lowercase")]
enum Network {
    Existing(Existing),
    New { cidr: String },
    Default,
}

#[derive(Debug, Clone, PartialEq, Deserialize, JsonSchema)]
struct Existing {
    id: String,
}

#[derive(Debug, Clone, PartialEq, Default, Deserialize, JsonSchema)]
struct Placement {
    #[serde(default)]
    spread: bool,
}

#[derive(Debug, Clone, PartialEq, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
enum Image {
    Id(String),
    Family { project: String },
}

#[derive(Debug, Clone, PartialEq, Deserialize, JsonSchema)]
struct OldSample {
    flavour: String,
}

impl Config for Sample {
    const KIND: &'static str = "SampleConfig";
    const VERSION: &'static str = "v2";

    fn older_versions() -> Vec<OlderVersion<Self>> {
        vec![OlderVersion::new("v1", |old: OldSample| Self {
            size: old.flavour,
            account: 0,
            disk: None,
            zones: Vec::new(),
            tags: Default::default(),
            network: None,
            placement: Placement::default(),
            image: None,
            parent: None,
        })]
    }
}

fn opaque(version: &str, json: &str) -> v1::OpaqueConfig {
    v1::OpaqueConfig {
        kind: "SampleConfig".into(),
        schema_version: version.into(),
        json: json.as_bytes().to_vec(),
        sha256: sha256(json.as_bytes()),
    }
}

fn reader() -> ConfigReader<Sample> {
    ConfigReader::new().expect("a usable schema")
}

fn read(json: &str) -> Result<Sample, Unread> {
    reader().read(Some(&opaque("v2", json)), "spec.config")
}

fn pointers(json: &str) -> Vec<String> {
    match read(json) {
        Err(Unread::Invalid(diagnostics)) => {
            let mut pointers: Vec<String> = diagnostics.into_iter().map(|found| found.pointer).collect();
            pointers.sort();
            pointers
        }
        Err(Unread::Refused(error)) => panic!("refused: {error}"),
        Ok(sample) => panic!("accepted: {sample:?}"),
    }
}

fn refused(result: Result<Sample, Unread>) -> ActuatorError {
    match result {
        Err(Unread::Refused(error)) => error,
        _ => panic!("not refused"),
    }
}

#[test]
fn what_fits_is_read_in_every_shape() {
    for json in [
        r#"{"size":"s"}"#,
        r#"{"size":"s","account":9007199254740993,"disk":{"gib":1},"zones":[{"name":"a"}],"tags":{"any":"thing"}}"#,
        r#"{"size":"s","network":{"type":"existing","id":"net-1"},"spread":true}"#,
        r#"{"size":"s","network":{"type":"new","cidr":"10.0.0.0/8"},"image":{"id":"i"}}"#,
        r#"{"size":"s","network":{"type":"default"},"image":{"family":{"project":"p"}}}"#,
        r#"{"size":"s","disk":null,"parent":{"parent":{"parent":null}}}"#,
    ] {
        match read(json) {
            Ok(_) => {}
            Err(unread) => panic!("{json}: {}", ActuatorError::from(unread)),
        }
    }
    let sample = read(r#"{"size":"s","account":9007199254740993}"#).unwrap_or_else(|_| panic!("valid"));
    assert_eq!(sample.account, 9_007_199_254_740_993);
}

#[test]
fn unknown_keys_are_named_in_every_shape() {
    assert_eq!(pointers(r#"{"size":"s","sise":"t"}"#), ["/sise"]);
    assert_eq!(pointers(r#"{"size":"s","disk":{"gib":1,"a/b":2}}"#), ["/disk/a~1b"]);
    assert_eq!(
        pointers(r#"{"size":"s","zones":[{"name":"a"},{"name":"b","x":1}]}"#),
        ["/zones/1/x"]
    );
    assert_eq!(
        pointers(r#"{"size":"s","network":{"type":"existing","id":"n","x":1}}"#),
        ["/network/x"]
    );
    assert_eq!(
        pointers(r#"{"size":"s","network":{"type":"new","cidr":"c","id":"n"}}"#),
        ["/network/id"]
    );
    assert_eq!(
        pointers(r#"{"size":"s","image":{"family":{"project":"p","x":1}}}"#),
        ["/image/family/x"]
    );
    assert_eq!(
        pointers(r#"{"size":"s","parent":{"parent":{"x":1}}}"#),
        ["/parent/parent/x"]
    );
}

#[test]
fn everything_wrong_is_told_at_once() {
    assert_eq!(
        pointers(r#"{"account":"many","disk":{"gib":0},"zones":[{}],"other":1}"#),
        ["/account", "/disk/gib", "/other", "/size", "/zones/0/name"]
    );
}

#[test]
fn numbers_beyond_their_type_are_named() {
    assert_eq!(pointers(r#"{"size":"s","account":-1}"#), ["/account"]);
    assert_eq!(pointers(r#"{"size":"s","account":1.5}"#), ["/account"]);
    assert_eq!(pointers(r#"{"size":"s","disk":{"gib":4294967297}}"#), ["/disk/gib"]);
}

#[test]
fn values_are_not_repeated() {
    let Err(Unread::Invalid(found)) = read(r#"{"size":{"k":"s3cr3t"},"account":"s3cr3t"}"#) else {
        panic!("accepted")
    };
    assert!(!format!("{found:?}").contains("s3cr3t"), "{found:?}");
}

#[test]
fn the_envelope_is_checked_first() {
    let mut config = opaque("v2", r#"{"size":"s"}"#);
    config.sha256[0] ^= 1;
    let error = refused(reader().read(Some(&config), "spec.config"));
    assert_eq!(error.reason(), ErrorReason::InvalidField);
    assert!(error.message().contains("spec.config.sha256"), "{error}");

    let error = refused(reader().read(Some(&opaque("v9", "{}")), "spec.config"));
    assert_eq!(error.reason(), ErrorReason::UnsupportedSchemaVersion);
    assert!(error.message().contains("v2, v1"), "{error}");

    let mut config = opaque("v2", "{}");
    config.kind = "OtherConfig".into();
    assert_eq!(
        refused(reader().read(Some(&config), "c")).reason(),
        ErrorReason::InvalidField
    );

    let large = format!(r#"{{"size":"{}"}}"#, "s".repeat(MAX_CONFIG_BYTES));
    assert_eq!(refused(read(&large)).reason(), ErrorReason::LimitExceeded);
}

#[test]
fn older_versions_are_read_and_upgraded() {
    let sample = reader().read(Some(&opaque("v1", r#"{"flavour":"large"}"#)), "c");
    assert_eq!(sample.map(|sample| sample.size).unwrap_or_default(), "large");
    assert!(reader().read(Some(&opaque("v1", r#"{"size":"large"}"#)), "c").is_err());
}

#[test]
fn no_config_is_an_empty_one() {
    let Err(Unread::Invalid(found)) = reader().read(None, "c") else {
        panic!("size is required")
    };
    assert_eq!(found[0].pointer, "/size");
}

#[test]
fn a_hint_never_stands_in_the_way() -> Result<(), ActuatorError> {
    let reader = reader();
    assert_eq!(reader.hint(None, "config")?, ConfigHint::Missing);
    assert!(
        reader
            .hint(Some(&opaque("v2", r#"{"size":"s"}"#)), "config")?
            .get()
            .is_some()
    );
    let unreadable = reader.hint(Some(&opaque("v2", r#"{"x":1}"#)), "config")?;
    assert!(unreadable.get().is_none());
    let error = unreadable.require().expect_err("unreadable");
    assert_eq!(error.reason(), ErrorReason::InvalidConfig);
    assert!(matches!(
        reader.hint(Some(&opaque("v9", "{}")), "config")?,
        ConfigHint::Unreadable(_)
    ));
    let mut broken = opaque("v2", "{}");
    broken.sha256.clear();
    assert!(reader.hint(Some(&broken), "config").is_err());
    Ok(())
}

#[test]
fn the_schema_that_is_handed_out_is_closed_too() {
    let reader = reader();
    let (schema, digest) = reader.schema("v2").expect("v2");
    assert_eq!(digest, sha256(schema));
    let schema: serde_json::Value = serde_json::from_slice(schema).expect("JSON");
    assert_eq!(schema["$schema"], json!("https://json-schema.org/draft/2020-12/schema"));
    let document = json!({"size": "s", "unknown": 1});
    assert!(!jsonschema::draft202012::is_valid(&schema, &document));
    assert!(reader.schema("v3").is_none());
}
