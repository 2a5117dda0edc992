//! The config of a machine.

use provider_sdk::{Config, Diagnostic};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::{check_id, check_region, check_tags};
use crate::ec2::Tags;

/// A machine on EC2. Only its tags can be changed in place; everything else replaces it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct AwsMachineConfig {
    /// The region; that of its cluster when left out.
    #[serde(default)]
    pub region: Option<String>,
    /// The type of instance, for example `m7g.large`.
    #[schemars(length(min = 1, max = 64))]
    pub instance_type: String,
    /// The image that it boots.
    pub image: Image,
    /// Its root volume.
    #[serde(default)]
    pub root_volume: Volume,
    /// Further volumes, empty at first, deleted with the machine.
    #[serde(default)]
    #[schemars(length(max = 20))]
    pub volumes: Vec<ExtraVolume>,
    /// The subnet; one of the cluster's, in the failure domain of the machine, when left out.
    #[serde(default)]
    pub subnet: Option<Subnet>,
    /// Security groups by id, besides that of the cluster's nodes.
    #[serde(default)]
    #[schemars(length(max = 4))]
    pub security_group_ids: Vec<String>,
    /// The instance profile, by name or ARN, whose role its software has.
    #[serde(default)]
    pub instance_profile: Option<String>,
    /// Whether it gets an address that the world reaches; what its subnet says when left out.
    #[serde(default)]
    pub public_address: Option<bool>,
    /// The name of an SSH key that is known to EC2.
    #[serde(default)]
    pub ssh_key: Option<String>,
    /// Makes it a spot instance, which AWS may take away with two minutes' notice.
    #[serde(default)]
    pub spot: Option<Spot>,
    /// How its software may ask the metadata service.
    #[serde(default)]
    pub instance_metadata: InstanceMetadata,
    /// The placement group, by name.
    #[serde(default)]
    pub placement_group: Option<String>,
    /// Whose hardware it shares.
    #[serde(default)]
    pub tenancy: Tenancy,
    /// The capacity reservation that it uses; any open one that fits when left out.
    #[serde(default)]
    pub capacity_reservation_id: Option<String>,
    /// Fewer processors than its type has.
    #[serde(default)]
    pub cpu_options: Option<CpuOptions>,
    /// What its instance, volumes and interfaces carry; at most 30. Changed in place.
    #[serde(default)]
    pub tags: Tags,
}

impl Config for AwsMachineConfig {
    const KIND: &'static str = "AWSMachineConfig";
    const VERSION: &'static str = "v1";
}

/// The image that a machine boots: exactly one of the three.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub enum Image {
    /// An AMI by its id, for example `ami-0123456789abcdef0`.
    Id(String),
    /// The newest AMI that fits.
    Filter(ImageFilter),
    /// A parameter of Systems Manager whose value is the id of an AMI, for example
    /// `/aws/service/canonical/ubuntu/server/24.04/stable/current/amd64/hvm/ebs-gp3/ami-id`.
    Parameter(String),
}

/// What an AMI has to be.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct ImageFilter {
    /// Whose it is: an account's id, `amazon`, `aws-marketplace` or `self`. Names alone can be
    /// taken by anybody, so that this is required.
    #[schemars(length(min = 1, max = 64))]
    pub owner: String,
    /// Its name, with `*` and `?` as wildcards.
    #[schemars(length(min = 1, max = 256))]
    pub name: String,
    /// Its architecture.
    #[serde(default)]
    pub architecture: Architecture,
}

/// An architecture.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub enum Architecture {
    /// Intel and AMD.
    #[default]
    Amd64,
    /// Graviton.
    Arm64,
}

impl Architecture {
    /// As EC2 calls it.
    pub fn name(self) -> &'static str {
        match self {
            Self::Amd64 => "x86_64",
            Self::Arm64 => "arm64",
        }
    }
}

/// A volume.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Volume {
    /// Its size.
    #[serde(default = "default_size", rename = "sizeGiB")]
    #[schemars(range(min = 1, max = 65536))]
    pub size_gib: u32,
    /// Its type.
    #[serde(default, rename = "type")]
    pub kind: VolumeType,
    /// Operations a second; for io1, io2 and gp3.
    #[serde(default)]
    #[schemars(range(min = 100, max = 256_000))]
    pub iops: Option<u32>,
    /// MiB a second; for gp3.
    #[serde(default)]
    #[schemars(range(min = 125, max = 2000))]
    pub throughput: Option<u32>,
    /// Whether it is encrypted.
    #[serde(default = "yes")]
    pub encrypted: bool,
    /// The key of KMS that it is encrypted with; the account's own when left out.
    #[serde(default)]
    pub kms_key: Option<String>,
}

impl Default for Volume {
    fn default() -> Self {
        Self {
            size_gib: default_size(),
            kind: VolumeType::default(),
            iops: None,
            throughput: None,
            encrypted: yes(),
            kms_key: None,
        }
    }
}

fn default_size() -> u32 {
    20
}

fn yes() -> bool {
    true
}

/// A volume besides the root one.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct ExtraVolume {
    /// The device that it is attached as, for example `/dev/sdf`.
    #[schemars(length(min = 1, max = 64))]
    pub device: String,
    /// What it is.
    #[serde(default)]
    pub volume: Volume,
}

/// A type of volume.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum VolumeType {
    /// General purpose.
    #[default]
    Gp3,
    /// General purpose, the former generation.
    Gp2,
    /// Provisioned operations, the former generation.
    Io1,
    /// Provisioned operations.
    Io2,
    /// Throughput on magnetic disks; not for root volumes.
    St1,
    /// Cold data on magnetic disks; not for root volumes.
    Sc1,
}

impl VolumeType {
    /// As EC2 calls it.
    pub fn name(self) -> &'static str {
        match self {
            Self::Gp3 => "gp3",
            Self::Gp2 => "gp2",
            Self::Io1 => "io1",
            Self::Io2 => "io2",
            Self::St1 => "st1",
            Self::Sc1 => "sc1",
        }
    }
}

/// A subnet: exactly one of the three.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub enum Subnet {
    /// By its id, for example `subnet-0123456789abcdef0`.
    Id(String),
    /// One of the cluster's in this zone, for example `eu-central-1a`.
    Zone(String),
    /// One of the cluster's VPC that has all these tags.
    Tags(Tags),
}

/// How a spot instance is bought.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Spot {
    /// The most that an hour may cost, in US dollars, for example `0.05`; the on-demand price
    /// when left out.
    #[serde(default)]
    pub max_price: Option<String>,
}

/// How software on a machine may ask the metadata service.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct InstanceMetadata {
    /// Whether only version 2 is answered, which asks for a token first.
    #[serde(default = "yes")]
    pub tokens_required: bool,
    /// How many hops an answer may take: 1 keeps it from containers with a network of their
    /// own.
    #[serde(default = "one")]
    #[schemars(range(min = 1, max = 64))]
    pub hop_limit: u8,
}

impl Default for InstanceMetadata {
    fn default() -> Self {
        Self {
            tokens_required: yes(),
            hop_limit: one(),
        }
    }
}

fn one() -> u8 {
    1
}

/// Whose hardware a machine shares.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub enum Tenancy {
    /// Everybody's.
    #[default]
    Shared,
    /// Only the account's.
    Dedicated,
    /// A dedicated host of the account.
    Host,
}

/// Fewer processors than the type has.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct CpuOptions {
    /// Cores.
    #[schemars(range(min = 1, max = 1024))]
    pub core_count: u16,
    /// Threads of each core: 1 or 2.
    #[schemars(range(min = 1, max = 2))]
    pub threads_per_core: u8,
}

/// What is wrong with a config, and what of the former one cannot be changed in place.
pub fn check(config: &AwsMachineConfig, previous: Option<&AwsMachineConfig>) -> Vec<Diagnostic> {
    let mut found = Vec::new();
    found.extend(
        config
            .region
            .as_ref()
            .and_then(|region| check_region("/region", region)),
    );
    match &config.image {
        Image::Id(id) => found.extend(check_id("/image/id", id, "ami")),
        Image::Parameter(name) if !name.starts_with('/') => {
            found.push(Diagnostic::error(
                "/image/parameter",
                "the name of a public parameter begins with /",
            ));
        }
        Image::Parameter(_) | Image::Filter(_) => {}
    }
    found.extend(check_volume("/rootVolume", &config.root_volume));
    if matches!(config.root_volume.kind, VolumeType::St1 | VolumeType::Sc1) {
        found.push(Diagnostic::error(
            "/rootVolume/type",
            "EC2 does not boot from st1 and sc1; use gp3",
        ));
    }
    for (index, extra) in config.volumes.iter().enumerate() {
        found.extend(check_volume(&format!("/volumes/{index}/volume"), &extra.volume));
        if config.volumes[..index].iter().any(|other| other.device == extra.device) {
            found.push(Diagnostic::error(
                format!("/volumes/{index}/device"),
                format!("{:?} is there twice", extra.device),
            ));
        }
    }
    if let Some(Subnet::Id(id)) = &config.subnet {
        found.extend(check_id("/subnet/id", id, "subnet"));
    }
    for (index, group) in config.security_group_ids.iter().enumerate() {
        found.extend(check_id(format!("/securityGroupIds/{index}"), group, "sg"));
    }
    if let Some(price) = config.spot.as_ref().and_then(|spot| spot.max_price.as_ref())
        && !price.parse::<f64>().is_ok_and(|price| price.is_finite() && price > 0.0)
    {
        found.push(Diagnostic::error(
            "/spot/maxPrice",
            format!("{price:?} is no price; it looks like 0.05"),
        ));
    }
    found.extend(check_tags("/tags", &config.tags));
    if let Some(previous) = previous {
        found.extend(replacements(config, previous));
    }
    found
}

fn check_volume(at: &str, volume: &Volume) -> Vec<Diagnostic> {
    let mut found = Vec::new();
    let kind = volume.kind.name();
    let (needs_iops, takes_iops) = match volume.kind {
        VolumeType::Io1 | VolumeType::Io2 => (true, true),
        VolumeType::Gp3 => (false, true),
        VolumeType::Gp2 | VolumeType::St1 | VolumeType::Sc1 => (false, false),
    };
    match volume.iops {
        None if needs_iops => found.push(Diagnostic::error(format!("{at}/iops"), format!("{kind} needs it"))),
        Some(_) if !takes_iops => {
            found.push(Diagnostic::error(
                format!("{at}/iops"),
                format!("{kind} does not take it"),
            ));
        }
        _ => {}
    }
    if volume.throughput.is_some() && volume.kind != VolumeType::Gp3 {
        found.push(Diagnostic::error(
            format!("{at}/throughput"),
            format!("{kind} does not take it"),
        ));
    }
    if volume.kms_key.is_some() && !volume.encrypted {
        found.push(Diagnostic::error(format!("{at}/kmsKey"), "the volume is not encrypted"));
    }
    found
}

/// The fields that differ and cannot be changed in place.
fn replacements(config: &AwsMachineConfig, previous: &AwsMachineConfig) -> Vec<Diagnostic> {
    let fields = |config: &AwsMachineConfig| match serde_json::to_value(config) {
        Ok(serde_json::Value::Object(fields)) => fields,
        _ => serde_json::Map::new(),
    };
    let (before, after) = (fields(previous), fields(config));
    let differs = |(name, value): (String, serde_json::Value)| {
        (name != "tags" && before.get(&name) != Some(&value))
            .then(|| Diagnostic::replacement(format!("/{name}"), "a change replaces the machine"))
    };
    after.into_iter().filter_map(differs).collect()
}

/// What of a config cannot be changed in place, as bytes that are the same for the same
/// config.
pub fn fixed_part(config: &AwsMachineConfig) -> Vec<u8> {
    let without_tags = AwsMachineConfig {
        tags: Tags::new(),
        ..config.clone()
    };
    // Maps are sorted and fields have an order: the same config gives the same bytes.
    serde_json::to_vec(&without_tags).unwrap_or_default()
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;

    pub fn config(json: serde_json::Value) -> AwsMachineConfig {
        serde_json::from_value(json).expect("a config")
    }

    pub fn smallest() -> AwsMachineConfig {
        config(serde_json::json!({"instanceType": "t3.small", "image": {"id": "ami-12345678"}}))
    }

    #[test]
    fn the_smallest_config_is_safe() {
        let smallest = smallest();
        assert!(check(&smallest, None).is_empty());
        assert!(smallest.root_volume.encrypted && smallest.instance_metadata.tokens_required);
        assert_eq!(
            (smallest.root_volume.size_gib, smallest.instance_metadata.hop_limit),
            (20, 1)
        );
        for missing in [
            r#"{"image":{"id":"ami-12345678"}}"#,
            r#"{"instanceType":"t3.small"}"#,
            r#"{"instanceType":"t3.small","image":{}}"#,
            r#"{"instanceType":"t3.small","image":{"id":"ami-12345678","parameter":"/x"}}"#,
        ] {
            assert!(serde_json::from_str::<AwsMachineConfig>(missing).is_err(), "{missing}");
        }
    }

    #[test]
    fn what_is_wrong_is_named_where_it_stands() {
        let wrong = config(serde_json::json!({
            "region": "moon",
            "instanceType": "t3.small",
            "image": {"id": "sg-12345678"},
            "rootVolume": {"type": "st1", "iops": 300, "encrypted": false, "kmsKey": "k"},
            "volumes": [
                {"device": "/dev/sdf", "volume": {"type": "io2"}},
                {"device": "/dev/sdf", "volume": {"type": "gp2", "throughput": 125}},
            ],
            "subnet": {"id": "x"},
            "securityGroupIds": ["y"],
            "spot": {"maxPrice": "cheap"},
            "tags": {"outrigger.dev/x": "y"},
        }));
        let found = check(&wrong, None);
        let pointers: Vec<&str> = found.iter().map(|it| it.pointer.as_str()).collect();
        assert_eq!(
            pointers,
            [
                "/region",
                "/image/id",
                "/rootVolume/iops",
                "/rootVolume/kmsKey",
                "/rootVolume/type",
                "/volumes/0/volume/iops",
                "/volumes/1/volume/throughput",
                "/volumes/1/device",
                "/subnet/id",
                "/securityGroupIds/0",
                "/spot/maxPrice",
                "/tags/outrigger.dev~1x",
            ]
        );
    }

    #[test]
    fn only_tags_change_in_place() {
        let before = smallest();
        let mut after = before.clone();
        after.tags.insert("team".to_owned(), "a".to_owned());
        assert!(check(&after, Some(&before)).is_empty());
        assert_eq!(fixed_part(&after), fixed_part(&before));
        after.instance_type = "t3.large".to_owned();
        after.root_volume.size_gib = 30;
        let found = check(&after, Some(&before));
        let pointers: Vec<&str> = found.iter().map(|it| it.pointer.as_str()).collect();
        assert_eq!(pointers, ["/instanceType", "/rootVolume"]);
        assert!(found.iter().all(|it| it.requires_replacement && !it.is_error()));
        assert_ne!(fixed_part(&after), fixed_part(&before));
    }
}
