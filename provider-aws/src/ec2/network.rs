//! Networks, subnets and security groups.

use serde::Deserialize;

use super::instances::gone;
use super::{Done, List, Page, Tag, Tags, matching};
use crate::client::Client;
use crate::client::action::Action;
use crate::client::failure::Failure;
use crate::client::query::{Filter, Parameters};

macro_rules! page {
    ($page:ident of $item:ident in $set:literal) => {
        #[derive(Debug, Deserialize)]
        struct $page {
            #[serde(rename = $set, default)]
            set: List<$item>,
            #[serde(rename = "nextToken")]
            next_token: Option<String>,
        }

        impl Page for $page {
            type Item = $item;

            fn take(self) -> (Vec<$item>, Option<String>) {
                (self.set.items, self.next_token)
            }
        }
    };
}

/// A network.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
pub struct Vpc {
    /// `vpc-…`.
    #[serde(rename = "vpcId")]
    pub id: String,
}

page!(VpcsPage of Vpc in "vpcSet");

/// All networks that fit the filters.
pub async fn describe_vpcs(client: &Client, filters: &[Filter]) -> Result<Vec<Vpc>, Failure> {
    matching::<VpcsPage>(client, Action::DescribeVpcs, filters).await
}

/// A subnet.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Subnet {
    /// `subnet-…`.
    #[serde(rename = "subnetId")]
    pub id: String,
    /// The network that it is in.
    #[serde(default)]
    pub vpc_id: String,
    /// Where it is.
    #[serde(rename = "availabilityZone", default)]
    pub zone: String,
}

page!(SubnetsPage of Subnet in "subnetSet");

/// All subnets that fit the filters.
pub async fn describe_subnets(client: &Client, filters: &[Filter]) -> Result<Vec<Subnet>, Failure> {
    matching::<SubnetsPage>(client, Action::DescribeSubnets, filters).await
}

/// A security group.
#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct SecurityGroup {
    /// `sg-…`.
    #[serde(rename = "groupId")]
    pub id: String,
    /// The network that it is in.
    #[serde(default)]
    pub vpc_id: String,
    /// What it lets in.
    #[serde(default)]
    ip_permissions: List<PermissionAnswer>,
    #[serde(default)]
    tag_set: List<Tag>,
}

impl SecurityGroup {
    /// Its tags.
    pub fn tags(&self) -> Tags {
        self.tag_set.to_map()
    }

    /// What it lets in, one rule for each source.
    pub fn rules(&self) -> Vec<Rule> {
        let permissions = self.ip_permissions.items.iter();
        let mut rules: Vec<Rule> = permissions.flat_map(PermissionAnswer::rules).collect();
        rules.sort();
        rules
    }

    /// One that was made a moment ago: it lets nothing in.
    pub fn new(id: &str, vpc_id: &str, tags: &Tags) -> Self {
        Self {
            id: id.to_owned(),
            vpc_id: vpc_id.to_owned(),
            tag_set: List::from_map(tags),
            ..Self::default()
        }
    }
}

page!(GroupsPage of SecurityGroup in "securityGroupInfo");

/// Who is let in.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub enum Peer {
    /// A range of addresses.
    Range(String),
    /// A range of IPv6 addresses.
    Range6(String),
    /// The members of a security group.
    Group(String),
    /// A list of ranges that is kept elsewhere.
    PrefixList(String),
}

/// One rule of a security group.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct Rule {
    /// `tcp`, `udp`, `icmp`, a number, or `-1` for everything.
    pub protocol: String,
    /// The ports, or type and code of ICMP; `None` for all.
    pub ports: Option<(i32, i32)>,
    /// Who is let in.
    pub peer: Peer,
    /// Whether this provider made it: its description says so.
    pub ours: bool,
}

/// The description of the rules that this provider makes.
const DESCRIPTION: &str = "outrigger.dev";

#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "camelCase")]
struct PermissionAnswer {
    #[serde(default)]
    ip_protocol: String,
    from_port: Option<i32>,
    to_port: Option<i32>,
    #[serde(default)]
    groups: List<GroupAnswer>,
    #[serde(default)]
    ip_ranges: List<RangeAnswer>,
    #[serde(default)]
    ipv6_ranges: List<Range6Answer>,
    #[serde(default)]
    prefix_list_ids: List<PrefixListAnswer>,
}

#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "camelCase")]
struct GroupAnswer {
    #[serde(default)]
    group_id: String,
    description: Option<String>,
}

#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "camelCase")]
struct RangeAnswer {
    cidr_ip: String,
    description: Option<String>,
}

#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "camelCase")]
struct Range6Answer {
    cidr_ipv6: String,
    description: Option<String>,
}

#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "camelCase")]
struct PrefixListAnswer {
    prefix_list_id: String,
    description: Option<String>,
}

impl PermissionAnswer {
    fn rules(&self) -> impl Iterator<Item = Rule> + '_ {
        let groups = self.groups.items.iter();
        let groups = groups.map(|it| (Peer::Group(it.group_id.clone()), &it.description));
        let ranges = self.ip_ranges.items.iter();
        let ranges = ranges.map(|it| (Peer::Range(it.cidr_ip.clone()), &it.description));
        let ranges6 = self.ipv6_ranges.items.iter();
        let ranges6 = ranges6.map(|it| (Peer::Range6(it.cidr_ipv6.clone()), &it.description));
        let lists = self.prefix_list_ids.items.iter();
        let lists = lists.map(|it| (Peer::PrefixList(it.prefix_list_id.clone()), &it.description));
        groups
            .chain(ranges)
            .chain(ranges6)
            .chain(lists)
            .map(|(peer, description)| Rule {
                protocol: self.ip_protocol.clone(),
                ports: self.from_port.zip(self.to_port).filter(|_| self.ip_protocol != "-1"),
                peer,
                ours: description.as_deref() == Some(DESCRIPTION),
            })
    }
}

/// All security groups that fit the filters.
pub async fn describe_security_groups(client: &Client, filters: &[Filter]) -> Result<Vec<SecurityGroup>, Failure> {
    matching::<GroupsPage>(client, Action::DescribeSecurityGroups, filters).await
}

/// Makes a security group with its tags; returns its id.
pub async fn create_security_group(
    client: &Client,
    name: &str,
    description: &str,
    vpc: &str,
    tags: &Tags,
) -> Result<String, Failure> {
    #[derive(Deserialize)]
    struct Answer {
        #[serde(rename = "groupId")]
        id: String,
    }
    let parameters = Parameters::new()
        .with("GroupName", name)
        .with("GroupDescription", description)
        .with("VpcId", vpc)
        .with_tag_specification(1, "security-group", tags);
    let answer: Answer = client.query(Action::CreateSecurityGroup, parameters).await?;
    Ok(answer.id)
}

/// Removes a security group; one that is gone is gone.
pub async fn delete_security_group(client: &Client, id: &str) -> Result<(), Failure> {
    let parameters = Parameters::new().with("GroupId", id);
    gone(
        client.query::<Done>(Action::DeleteSecurityGroup, parameters).await,
        "InvalidGroup.NotFound",
    )
}

/// Lets traffic in; what is let in already stays so.
pub async fn authorize_ingress(client: &Client, group: &str, rules: &[Rule]) -> Result<(), Failure> {
    let parameters = with_rules(group, rules);
    gone(
        client
            .query::<Done>(Action::AuthorizeSecurityGroupIngress, parameters)
            .await,
        "InvalidPermission.Duplicate",
    )
}

/// Stops letting traffic in; what is not let in stays so.
pub async fn revoke_ingress(client: &Client, group: &str, rules: &[Rule]) -> Result<(), Failure> {
    let parameters = with_rules(group, rules);
    gone(
        client
            .query::<Done>(Action::RevokeSecurityGroupIngress, parameters)
            .await,
        "InvalidPermission.NotFound",
    )
}

fn with_rules(group: &str, rules: &[Rule]) -> Parameters {
    let start = Parameters::new().with("GroupId", group);
    rules.iter().enumerate().fold(start, |all, (index, rule)| {
        let name = format!("IpPermissions.{}", index + 1);
        let all = all
            .with(format!("{name}.IpProtocol"), &rule.protocol)
            .with_some(format!("{name}.FromPort"), rule.ports.map(|ports| ports.0))
            .with_some(format!("{name}.ToPort"), rule.ports.map(|ports| ports.1));
        let (list, field, value) = match &rule.peer {
            Peer::Range(range) => ("IpRanges", "CidrIp", range),
            Peer::Range6(range) => ("Ipv6Ranges", "CidrIpv6", range),
            Peer::Group(group) => ("Groups", "GroupId", group),
            Peer::PrefixList(list) => ("PrefixListIds", "PrefixListId", list),
        };
        all.with(format!("{name}.{list}.1.{field}"), value)
            .with_some(format!("{name}.{list}.1.Description"), rule.ours.then_some(DESCRIPTION))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rules_are_read_one_for_each_source() {
        let page: GroupsPage = quick_xml::de::from_str(
            r"<R><securityGroupInfo><item><groupId>sg-1</groupId><vpcId>vpc-1</vpcId>
<ipPermissions>
 <item><ipProtocol>tcp</ipProtocol><fromPort>22</fromPort><toPort>22</toPort><groups/>
  <ipRanges><item><cidrIp>10.0.0.0/8</cidrIp></item><item><cidrIp>192.168.0.0/16</cidrIp><description>outrigger.dev</description></item></ipRanges><ipv6Ranges/></item>
 <item><ipProtocol>-1</ipProtocol><groups><item><userId>1</userId><groupId>sg-1</groupId></item></groups></item>
</ipPermissions></item></securityGroupInfo></R>",
        )
        .expect("an answer");
        let group = &page.set.items[0];
        let rules = group.rules();
        assert_eq!(rules.len(), 3);
        assert!(rules.contains(&Rule {
            protocol: "-1".to_owned(),
            ports: None,
            peer: Peer::Group("sg-1".to_owned()),
            ours: false,
        }));
        assert!(rules.contains(&Rule {
            protocol: "tcp".to_owned(),
            ports: Some((22, 22)),
            peer: Peer::Range("192.168.0.0/16".to_owned()),
            ours: true,
        }));
    }
}
