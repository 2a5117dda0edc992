//! Decisions about clusters: a network that is there already, and a security group of the
//! cluster's own, which is what carries its key. Pure: the provider observes and acts.

use std::collections::BTreeSet;
use std::time::Duration;

use provider_sdk::v1::{self, ErrorReason};
use provider_sdk::{ActuatorError, ClusterSpec, Resource};
use serde::{Deserialize, Serialize};

use crate::config::cluster::{AwsClusterConfig, Ingress, Protocol};
use crate::ec2::Tags;
use crate::ec2::network::{Peer, Rule, SecurityGroup, Subnet};
use crate::ids;
use crate::recent::Trace;
use crate::tags::{self, Applied, Kind};

/// On the group once its first rules are all there.
pub const READY: &str = "outrigger.dev/ready";

/// What is seen of a cluster.
#[derive(Debug, Clone)]
pub struct Observation {
    /// The groups with the key.
    pub groups: Vec<SecurityGroup>,
    /// What this process has done a moment ago.
    pub trace: Trace<SecurityGroup>,
}

impl Observation {
    /// The cluster's group, if there is one; refuses what belongs to others.
    pub fn group(&self, resource: &Resource) -> Result<Option<&SecurityGroup>, ActuatorError> {
        for group in &self.groups {
            tags::check_owner(Kind::Cluster, &group.id, &group.tags(), resource)?;
        }
        match (self.groups.as_slice(), &self.trace) {
            ([], Trace::Made(made)) => Ok(Some(made)),
            ([], _) => Ok(None),
            ([one], _) => Ok(Some(one)),
            (several, _) => {
                let ids: Vec<&str> = several.iter().map(|group| group.id.as_str()).collect();
                Err(ActuatorError::new(
                    ErrorReason::StateInconsistent,
                    format!(
                        "the security groups {} carry the same key; remove those that do not belong there",
                        ids.join(", ")
                    ),
                ))
            }
        }
    }

    /// How long "nothing is there" says nothing yet.
    pub fn unsettled(&self) -> Option<Duration> {
        match self.trace {
            Trace::Unsettled(left) => Some(left),
            Trace::Settled | Trace::Made(_) => None,
        }
    }
}

/// A digest of nothing: what a cluster cannot change in place is compared with the cloud.
pub fn applied(digest: &[u8], generation: i64) -> Applied {
    Applied {
        digest: digest.to_vec(),
        generation,
        shape: String::new(),
    }
}

/// Refuses a create when the key was used for another spec.
pub fn check_digest(group: &SecurityGroup, digest: &[u8]) -> Result<(), ActuatorError> {
    if tags::applied(&group.tags()).digest == digest {
        return Ok(());
    }
    Err(ActuatorError::new(
        ErrorReason::KeyConflict,
        format!(
            "{} was made with this key from another spec; it is left as it is",
            group.id
        ),
    ))
}

/// Refuses an update that cannot be made in place, or that is older than what was applied.
pub fn check_update(
    group: &SecurityGroup,
    region: &str,
    spec: &ClusterSpec<AwsClusterConfig>,
    generation: i64,
) -> Result<(), ActuatorError> {
    let there = tags::applied(&group.tags());
    if generation < there.generation {
        return Err(ActuatorError::new(
            ErrorReason::StaleGeneration,
            format!(
                "the generation {generation} is behind {}, which was applied",
                there.generation
            ),
        ));
    }
    let other_vpc = spec
        .config
        .network
        .vpc_id
        .as_ref()
        .is_some_and(|vpc| *vpc != group.vpc_id);
    if other_vpc || spec.config.region != region {
        return Err(ActuatorError::new(
            ErrorReason::ReplaceRequired,
            format!(
                "the cluster is in {} of {region}, which cannot be changed; make another one",
                group.vpc_id
            ),
        ));
    }
    Ok(())
}

/// Every rule that the group of this cluster has to have: nodes reach each other, and what
/// the config lets in.
pub fn wanted_rules(group: &str, config: &AwsClusterConfig) -> BTreeSet<Rule> {
    let among_nodes = Rule {
        protocol: "-1".to_owned(),
        ports: None,
        peer: Peer::Group(group.to_owned()),
        ours: true,
    };
    config
        .node_ingress
        .iter()
        .flat_map(|ingress| ingress.cidrs.iter().map(|range| rule(ingress, range)))
        .chain([among_nodes])
        .collect()
}

fn rule(ingress: &Ingress, range: &str) -> Rule {
    let protocol = match ingress.protocol {
        Protocol::Tcp => "tcp",
        Protocol::Udp => "udp",
        Protocol::All => "-1",
    };
    let ports = match (ingress.protocol, ingress.from_port) {
        (Protocol::All, _) => None,
        (_, None) => Some((0, 65535)),
        (_, Some(from)) => Some((i32::from(from), i32::from(ingress.to_port.unwrap_or(from)))),
    };
    let range = range.to_owned();
    Rule {
        protocol: protocol.to_owned(),
        ports,
        peer: if range.contains(':') {
            Peer::Range6(range)
        } else {
            Peer::Range(range)
        },
        ours: true,
    }
}

/// What changes in a group.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct RuleChanges {
    /// Rules to add.
    pub add: Vec<Rule>,
    /// Rules of ours that nobody wants any more. Those of others, such as the controllers
    /// of load balancers, stay.
    pub remove: Vec<Rule>,
}

/// What changes, from what is there to what is wanted.
pub fn rule_changes(there: &[Rule], wanted: &BTreeSet<Rule>) -> RuleChanges {
    let same =
        |one: &Rule, other: &Rule| (&one.protocol, one.ports, &one.peer) == (&other.protocol, other.ports, &other.peer);
    RuleChanges {
        add: wanted
            .iter()
            .filter(|rule| !there.iter().any(|known| same(known, rule)))
            .cloned()
            .collect(),
        remove: there
            .iter()
            .filter(|rule| rule.ours && !wanted.iter().any(|other| same(other, rule)))
            .cloned()
            .collect(),
    }
}

/// What a cluster's machines have to know of it. It travels as `provider_state`, a hint:
/// it is found again by the cluster's tags when it is lost.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Network {
    /// The region.
    pub region: String,
    /// The network.
    pub vpc: String,
    /// The security group of the nodes.
    pub node_group: String,
    /// Subnets with their zones.
    pub subnets: Vec<(String, String)>,
}

impl Network {
    /// Of a group and the subnets that were found.
    pub fn new(region: &str, group: &SecurityGroup, subnets: &[Subnet]) -> Self {
        Self {
            region: region.to_owned(),
            vpc: group.vpc_id.clone(),
            node_group: group.id.clone(),
            subnets: subnets
                .iter()
                .map(|subnet| (subnet.id.clone(), subnet.zone.clone()))
                .collect(),
        }
    }

    /// From a `provider_state`, if it is one.
    pub fn read(state: &[u8]) -> Option<Self> {
        serde_json::from_slice(state).ok()
    }

    /// The subnets.
    pub fn subnets(&self) -> Vec<Subnet> {
        let subnet = |(id, zone): &(String, String)| Subnet {
            id: id.clone(),
            vpc_id: self.vpc.clone(),
            zone: zone.clone(),
        };
        self.subnets.iter().map(subnet).collect()
    }
}

/// What is told about a cluster.
pub fn status(key: &str, network: &Network, tags: &Tags, endpoint: Option<v1::Endpoint>) -> v1::ClusterStatus {
    let applied = tags::applied(tags);
    let zones: BTreeSet<&String> = network.subnets.iter().map(|(_, zone)| zone).collect();
    let phase = if tags.contains_key(READY) {
        v1::ClusterPhase::Ready
    } else {
        v1::ClusterPhase::Provisioning
    };
    v1::ClusterStatus {
        provider_id: ids::cluster(&network.region, key),
        phase: phase as i32,
        endpoint,
        failure_domains: zones
            .into_iter()
            .map(|zone| v1::FailureDomain {
                name: zone.clone(),
                control_plane: true,
                attributes: [("region".to_owned(), network.region.clone())].into(),
            })
            .collect(),
        artefacts: vec![artefact("security-group", &network.node_group)],
        observed_generation: applied.generation,
        observed_digest: applied.digest,
        provider_state: serde_json::to_vec(network).unwrap_or_default(),
        ..Default::default()
    }
}

/// Something that exists because of an object.
pub fn artefact(kind: &str, id: &str) -> v1::Artefact {
    v1::Artefact {
        r#type: kind.to_owned(),
        id: id.to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn config() -> AwsClusterConfig {
        serde_json::from_value(serde_json::json!({
            "region": "eu-central-1",
            "nodeIngress": [
                {"protocol": "tcp", "fromPort": 22, "cidrs": ["10.0.0.0/8", "fd00::/8"]},
                {"protocol": "udp", "cidrs": ["10.0.0.0/8"]},
            ],
        }))
        .expect("a config")
    }

    #[test]
    fn rules_come_to_what_is_wanted_and_those_of_others_stay() {
        let wanted = wanted_rules("sg-1", &config());
        assert_eq!(wanted.len(), 4);
        let mut there: Vec<Rule> = wanted.iter().cloned().collect();
        assert_eq!(rule_changes(&there, &wanted), RuleChanges::default());
        let former = Rule {
            ports: Some((80, 80)),
            ..there[0].clone()
        };
        let foreign = Rule {
            ports: Some((30_000, 30_000)),
            ours: false,
            ..there[0].clone()
        };
        let missing = there.remove(0);
        there.extend([former.clone(), foreign]);
        assert_eq!(
            rule_changes(&there, &wanted),
            RuleChanges {
                add: vec![missing],
                remove: vec![former]
            }
        );
    }

    #[test]
    fn a_network_survives_its_journey_and_other_bytes_are_none() {
        let group = SecurityGroup::new("sg-1", "vpc-1", &Tags::new());
        let subnet = Subnet {
            id: "subnet-1".to_owned(),
            vpc_id: "vpc-1".to_owned(),
            zone: "eu-central-1a".to_owned(),
        };
        let network = Network::new("eu-central-1", &group, std::slice::from_ref(&subnet));
        let status = status("k", &network, &Tags::new(), None);
        assert_eq!(status.phase(), v1::ClusterPhase::Provisioning);
        assert_eq!(Network::read(&status.provider_state), Some(network.clone()));
        assert_eq!(network.subnets(), [subnet]);
        assert_eq!(Network::read(b"junk"), None);
    }
}
