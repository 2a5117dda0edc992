//! The config of a cluster.

use ipnet::IpNet;
use provider_sdk::{Config, Diagnostic};
use schemars::JsonSchema;
use serde::Deserialize;

use super::{check_id, check_region, check_tags};
use crate::ec2::Tags;

/// What a cluster needs of EC2 besides its machines: a network that is there already, and
/// a security group of its own for its nodes, which is made.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct AwsClusterConfig {
    /// The region, for example `eu-central-1`. It cannot be changed.
    #[schemars(length(min = 1, max = 64))]
    pub region: String,
    /// The network. It is used, and never changed or deleted.
    #[serde(default)]
    pub network: Network,
    /// What nodes let in besides each other: nothing when left out.
    #[serde(default)]
    #[schemars(length(max = 50))]
    pub node_ingress: Vec<Ingress>,
    /// What everything that is made for the cluster carries, its machines not included; at
    /// most 30.
    #[serde(default)]
    pub tags: Tags,
}

impl Config for AwsClusterConfig {
    const KIND: &'static str = "AWSClusterConfig";
    const VERSION: &'static str = "v1";
}

/// A network that is there already.
#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Network {
    /// The VPC, for example `vpc-0123456789abcdef0`; the default one of the region when left
    /// out. It cannot be changed.
    #[serde(default)]
    pub vpc_id: Option<String>,
    /// The subnets that machines may be put in, all of this VPC; every subnet of the VPC when
    /// left out. Their zones are the cluster's failure domains.
    #[serde(default)]
    #[schemars(length(max = 100))]
    pub subnet_ids: Vec<String>,
}

/// Traffic that is let in.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Ingress {
    /// The protocol.
    pub protocol: Protocol,
    /// The first port; every port when left out.
    #[serde(default)]
    pub from_port: Option<u16>,
    /// The last port; the first one when left out.
    #[serde(default)]
    pub to_port: Option<u16>,
    /// From where, as ranges of addresses: `10.0.0.0/8`, `::/0`.
    #[schemars(length(min = 1, max = 50))]
    pub cidrs: Vec<String>,
}

/// A protocol.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub enum Protocol {
    /// TCP.
    Tcp,
    /// UDP.
    Udp,
    /// Every protocol.
    All,
}

/// What is wrong with a config, and what of the former one cannot be changed in place.
pub fn check(config: &AwsClusterConfig, previous: Option<&AwsClusterConfig>) -> Vec<Diagnostic> {
    let mut found: Vec<Diagnostic> = check_region("/region", &config.region).into_iter().collect();
    if let Some(vpc) = &config.network.vpc_id {
        found.extend(check_id("/network/vpcId", vpc, "vpc"));
    }
    for (index, subnet) in config.network.subnet_ids.iter().enumerate() {
        found.extend(check_id(format!("/network/subnetIds/{index}"), subnet, "subnet"));
    }
    for (index, rule) in config.node_ingress.iter().enumerate() {
        found.extend(check_ingress(&format!("/nodeIngress/{index}"), rule));
    }
    found.extend(check_tags("/tags", &config.tags));
    if let Some(previous) = previous {
        for (pointer, differs) in [
            ("/region", previous.region != config.region),
            ("/network/vpcId", previous.network.vpc_id != config.network.vpc_id),
        ] {
            if differs {
                let message = "it cannot be changed; make another cluster";
                found.push(Diagnostic::replacement(pointer, message));
            }
        }
    }
    found
}

fn check_ingress(at: &str, rule: &Ingress) -> Vec<Diagnostic> {
    let mut found = Vec::new();
    match (rule.from_port, rule.to_port) {
        (None, Some(_)) => found.push(Diagnostic::error(
            format!("{at}/toPort"),
            "there is no fromPort before it",
        )),
        (Some(from), Some(to)) if to < from => {
            found.push(Diagnostic::error(
                format!("{at}/toPort"),
                format!("it is below fromPort, which is {from}"),
            ));
        }
        (Some(_), _) if rule.protocol == Protocol::All => {
            found.push(Diagnostic::error(
                format!("{at}/fromPort"),
                "only tcp and udp have ports",
            ));
        }
        _ => {}
    }
    for (index, range) in rule.cidrs.iter().enumerate() {
        let usable = range.parse::<IpNet>().is_ok_and(|parsed| parsed.trunc() == parsed);
        if !usable {
            found.push(Diagnostic::error(
                format!("{at}/cidrs/{index}"),
                format!("{range:?} is no range of addresses; it looks like 10.0.0.0/8, without bits behind the prefix"),
            ));
        }
    }
    found
}

#[cfg(test)]
mod tests {
    use super::*;

    fn config(json: serde_json::Value) -> AwsClusterConfig {
        serde_json::from_value(json).expect("a config")
    }

    #[test]
    fn only_the_region_is_required() {
        let smallest = config(serde_json::json!({"region": "eu-central-1"}));
        assert!(check(&smallest, None).is_empty());
        assert!(serde_json::from_str::<AwsClusterConfig>("{}").is_err());
    }

    #[test]
    fn what_is_wrong_is_named_where_it_stands() {
        let wrong = config(serde_json::json!({
            "region": "moon",
            "network": {"vpcId": "subnet-12345678", "subnetIds": ["subnet-12345678", "x"]},
            "nodeIngress": [
                {"protocol": "tcp", "fromPort": 80, "toPort": 70, "cidrs": ["10.0.0.1/8"]},
                {"protocol": "all", "fromPort": 80, "cidrs": ["::/0"]},
                {"protocol": "udp", "toPort": 80, "cidrs": ["0.0.0.0/0"]},
            ],
            "tags": {"aws:x": "y"},
        }));
        let found = check(&wrong, None);
        let pointers: Vec<&str> = found.iter().map(|it| it.pointer.as_str()).collect();
        assert_eq!(
            pointers,
            [
                "/region",
                "/network/vpcId",
                "/network/subnetIds/1",
                "/nodeIngress/0/toPort",
                "/nodeIngress/0/cidrs/0",
                "/nodeIngress/1/fromPort",
                "/nodeIngress/2/toPort",
                "/tags/aws:x",
            ]
        );
        assert!(found.iter().all(Diagnostic::is_error));
    }

    #[test]
    fn another_network_is_another_cluster() {
        let before = config(serde_json::json!({"region": "eu-central-1"}));
        let after = config(serde_json::json!({"region": "eu-west-1", "network": {"vpcId": "vpc-12345678"}}));
        let found = check(&after, Some(&before));
        assert_eq!(found.len(), 2);
        assert!(found.iter().all(|it| it.requires_replacement && !it.is_error()));
    }
}
