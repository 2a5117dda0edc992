//! What a user writes into `providerSpec` for this provider. Not for: what the cloud
//! makes of it.

use std::collections::BTreeMap;
use std::fmt;
use std::time::Duration;

use actuator_proto::errors::table;
use actuator_proto::v1::ErrorReason;
use ipnet::Ipv4Net;
use provider_sdk::Config;
use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};
use serde::{Deserialize, Deserializer};

use crate::cloud::settings;

/// A machine of the simulated cloud.
#[derive(Debug, Clone, PartialEq, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct FakeMachineConfig {
    /// The type of machine: fake.small, fake.medium, fake.large, fake.xlarge, fake.arm
    /// or fake.gpu. Another one replaces the machine.
    pub machine_type: String,
    /// The image that it boots. Another one replaces the machine.
    #[serde(default = "default_image")]
    pub image: String,
    /// The size of its disk. It grows in place; a smaller one replaces the machine.
    #[serde(default = "default_disk_gib", rename = "diskGiB")]
    #[schemars(range(min = 10, max = 16384))]
    pub disk_gib: u32,
    /// Whether it gets an address that the world reaches. A change replaces the machine.
    #[serde(default)]
    pub public_address: bool,
    /// What its instance carries besides the labels of its node.
    #[serde(default)]
    pub labels: BTreeMap<String, String>,
    /// How long it boots, instead of what the cloud is set to: `5s`.
    #[serde(default)]
    pub boot_delay: Option<ConfigDuration>,
    /// How long it lives until it dies by itself: `10m`.
    #[serde(default)]
    pub lifetime: Option<ConfigDuration>,
    /// Its creation fails with this reason of the protocol's error table.
    #[serde(default)]
    pub fail_create: Option<FailureReason>,
    /// It is created, and its boot ends in a failure.
    #[serde(default)]
    pub fail_boot: bool,
    /// How many KiB its console says beyond the boot messages.
    #[serde(default, rename = "consoleKiB")]
    #[schemars(range(max = 1024))]
    pub console_kib: u32,
}

impl Config for FakeMachineConfig {
    const KIND: &'static str = "FakeMachineConfig";
    const VERSION: &'static str = "v1";
}

/// What a cluster needs of the simulated cloud besides its machines. Everything has a
/// default.
#[derive(Debug, Clone, PartialEq, Default, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct FakeClusterConfig {
    /// The region; the only one of the cloud when left out.
    #[serde(default)]
    pub region: Option<String>,
    /// Where machines may be put; every zone of the region when left out.
    #[serde(default)]
    pub zones: Vec<String>,
    /// The network of its machines.
    #[serde(default)]
    pub network: NetworkConfig,
    /// The load balancer in front of its control plane.
    #[serde(default)]
    pub load_balancer: LoadBalancerConfig,
    /// What its network carries.
    #[serde(default)]
    pub labels: BTreeMap<String, String>,
    /// Its creation fails with this reason of the protocol's error table.
    #[serde(default)]
    pub fail_create: Option<FailureReason>,
}

impl Config for FakeClusterConfig {
    const KIND: &'static str = "FakeClusterConfig";
    const VERSION: &'static str = "v1";
}

/// The network of a cluster.
#[derive(Debug, Clone, PartialEq, Default, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct NetworkConfig {
    /// Its range. It cannot be changed.
    #[serde(default)]
    pub cidr: NetworkRange,
}

/// The load balancer of a cluster.
#[derive(Debug, Clone, PartialEq, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct LoadBalancerConfig {
    /// Whether there is one. It cannot be changed.
    #[serde(default = "yes")]
    pub enabled: bool,
    /// Its port. It cannot be changed.
    #[serde(default = "default_port")]
    #[schemars(range(min = 1, max = 65535))]
    pub port: u16,
}

impl Default for LoadBalancerConfig {
    fn default() -> Self {
        Self {
            enabled: yes(),
            port: default_port(),
        }
    }
}

fn yes() -> bool {
    true
}

fn default_port() -> u16 {
    6443
}

fn default_image() -> String {
    crate::cloud::catalogue::IMAGES
        .first()
        .copied()
        .unwrap_or_default()
        .to_owned()
}

fn default_disk_gib() -> u32 {
    20
}

/// A range of IPv4 addresses, from /8 to /28.
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct NetworkRange(pub Ipv4Net);

impl Default for NetworkRange {
    fn default() -> Self {
        Self(Ipv4Net::new_assert(std::net::Ipv4Addr::new(10, 0, 0, 0), 12))
    }
}

impl fmt::Debug for NetworkRange {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(&self.0, f)
    }
}

impl<'de> Deserialize<'de> for NetworkRange {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = String::deserialize(deserializer)?;
        let range: Option<Ipv4Net> = text.parse().ok();
        match range {
            Some(range) if (8..=28).contains(&range.prefix_len()) && range.network() == range.addr() => Ok(Self(range)),
            _ => Err(serde::de::Error::custom(format!(
                "{text:?} is not usable: an IPv4 range from /8 to /28 such as 10.0.0.0/12 is allowed, without bits behind the prefix"
            ))),
        }
    }
}

impl JsonSchema for NetworkRange {
    fn schema_name() -> std::borrow::Cow<'static, str> {
        "NetworkRange".into()
    }

    fn json_schema(_: &mut SchemaGenerator) -> Schema {
        json_schema!({
            "type": "string",
            "description": "An IPv4 range in CIDR notation, from /8 to /28.",
            "pattern": r"^[0-9]{1,3}(\.[0-9]{1,3}){3}/[0-9]{1,2}$",
            "default": Self::default().0.to_string(),
        })
    }
}

/// A duration such as `500ms`, `2s` or `1m30s`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ConfigDuration(pub Duration);

impl<'de> Deserialize<'de> for ConfigDuration {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = String::deserialize(deserializer)?;
        settings::duration(&text)
            .map(Self)
            .map_err(|problem| serde::de::Error::custom(format!("{text:?} is not usable: {problem}")))
    }
}

impl JsonSchema for ConfigDuration {
    fn schema_name() -> std::borrow::Cow<'static, str> {
        "Duration".into()
    }

    fn json_schema(_: &mut SchemaGenerator) -> Schema {
        json_schema!({
            "type": "string",
            "description": "A duration such as 500ms, 2s, 1m30s or 24h, at most 720h.",
            "maxLength": 64,
        })
    }
}

/// A reason of the protocol's error table.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct FailureReason(pub ErrorReason);

impl<'de> Deserialize<'de> for FailureReason {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = String::deserialize(deserializer)?;
        ErrorReason::from_wire_name(&text).map(Self).ok_or_else(|| {
            let names: Vec<&str> = table::RULES.iter().map(|rule| rule.reason.wire_name()).collect();
            serde::de::Error::custom(format!(
                "{text:?} is no reason of the error table; allowed are {}",
                names.join(", ")
            ))
        })
    }
}

impl JsonSchema for FailureReason {
    fn schema_name() -> std::borrow::Cow<'static, str> {
        "FailureReason".into()
    }

    fn json_schema(_: &mut SchemaGenerator) -> Schema {
        let names: Vec<&str> = table::RULES.iter().map(|rule| rule.reason.wire_name()).collect();
        json_schema!({
            "type": "string",
            "description": "A reason of the protocol's error table.",
            "enum": names,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn machine(json: &str) -> Result<FakeMachineConfig, String> {
        serde_json::from_str(json).map_err(|error| error.to_string())
    }

    #[test]
    fn only_the_machine_type_is_required() {
        let config = machine(r#"{"machineType":"fake.small"}"#).expect("valid");
        assert_eq!((config.image.as_str(), config.disk_gib), ("fakeos-1", 20));
        assert!(machine("{}").expect_err("refused").contains("machineType"));
        let cluster: FakeClusterConfig = serde_json::from_str("{}").expect("valid");
        assert_eq!(cluster.network.cidr.0.to_string(), "10.0.0.0/12");
        assert_eq!(
            (cluster.load_balancer.enabled, cluster.load_balancer.port),
            (true, 6443)
        );
    }

    #[test]
    fn wrong_values_are_refused_with_what_is_allowed() {
        for (json, word) in [
            (r#"{"machineType":"fake.small","bootDelay":"soon"}"#, "500ms"),
            (r#"{"machineType":"fake.small","failCreate":"OOPS"}"#, "QUOTA_EXCEEDED"),
            (r#"{"machineType":"fake.small","colour":"red"}"#, "colour"),
        ] {
            let error = machine(json).expect_err(json);
            assert!(error.contains(word), "{error}");
        }
        for range in ["10.0.0.0/30", "10.0.0.0/4", "10.0.0.1/16", "fd00::/64", "x"] {
            let json = format!(r#"{{"network":{{"cidr":"{range}"}}}}"#);
            let error = serde_json::from_str::<FakeClusterConfig>(&json).expect_err(range);
            assert!(error.to_string().contains("/28"), "{error}");
        }
    }
}
