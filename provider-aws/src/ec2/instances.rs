//! Instances, and what comes with them: volumes, interfaces, images.

use serde::Deserialize;

use super::{Done, List, Page, Tag, Tags, every, matching};
use crate::client::Client;
use crate::client::action::Action;
use crate::client::failure::Failure;
use crate::client::query::{Filter, Parameters};

/// An instance.
#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Instance {
    /// `i-…`.
    #[serde(rename = "instanceId")]
    pub id: String,
    /// What it does now.
    #[serde(rename = "instanceState")]
    pub state: State,
    /// `t3.small`.
    #[serde(default)]
    pub instance_type: String,
    /// Where it is.
    #[serde(default)]
    pub placement: Placement,
    /// When it was started, in RFC 3339.
    #[serde(default)]
    pub launch_time: String,
    /// Its address in its subnet.
    pub private_ip_address: Option<String>,
    /// Its address in the world.
    #[serde(rename = "ipAddress")]
    pub public_ip_address: Option<String>,
    /// Its name in its network.
    pub private_dns_name: Option<String>,
    /// Its name in the world.
    #[serde(rename = "dnsName")]
    pub public_dns_name: Option<String>,
    /// Why it is in its state.
    pub state_reason: Option<StateReason>,
    /// Its volumes.
    #[serde(default)]
    block_device_mapping: List<BlockDevice>,
    /// Its interfaces.
    #[serde(default)]
    network_interface_set: List<InstanceInterface>,
    /// Its tags.
    #[serde(default)]
    tag_set: List<Tag>,
}

impl Instance {
    /// Its tags.
    pub fn tags(&self) -> Tags {
        self.tag_set.to_map()
    }

    /// Sets these tags and takes those off, as EC2 has done.
    pub fn retag(&mut self, write: &Tags, remove: &[String]) {
        let mut tags = self.tags();
        tags.retain(|key, _| !remove.contains(key));
        tags.extend(write.clone());
        self.tag_set = List::from_map(&tags);
    }

    /// The ids of its volumes.
    pub fn volumes(&self) -> impl Iterator<Item = &str> {
        let devices = self.block_device_mapping.items.iter();
        devices.filter_map(|device| device.ebs.as_ref().map(|ebs| ebs.volume_id.as_str()))
    }

    /// The ids of its interfaces.
    pub fn interfaces(&self) -> impl Iterator<Item = &str> {
        let interfaces = self.network_interface_set.items.iter();
        interfaces.map(|interface| interface.network_interface_id.as_str())
    }

    /// For tests of decisions: an instance with these tags.
    #[cfg(test)]
    pub fn for_tests(id: &str, state: &str, tags: &Tags) -> Self {
        Self {
            id: id.to_owned(),
            state: State { name: state.to_owned() },
            placement: Placement {
                availability_zone: "eu-central-1a".to_owned(),
            },
            tag_set: List::from_map(tags),
            ..Self::default()
        }
    }
}

/// What an instance does.
#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize)]
pub struct State {
    /// `pending`, `running`, `stopping`, `stopped`, `shutting-down`, `terminated`.
    #[serde(default)]
    pub name: String,
}

/// Where an instance is.
#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Placement {
    /// `eu-central-1a`.
    #[serde(default)]
    pub availability_zone: String,
}

/// Why an instance is in its state.
#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize)]
pub struct StateReason {
    /// `Server.SpotInstanceTermination`.
    #[serde(default)]
    pub code: String,
    /// For people.
    #[serde(default)]
    pub message: String,
}

#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
struct BlockDevice {
    ebs: Option<Ebs>,
}

#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "camelCase")]
struct Ebs {
    volume_id: String,
}

#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "camelCase")]
struct InstanceInterface {
    network_interface_id: String,
}

#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
struct InstancesPage {
    #[serde(default)]
    reservation_set: List<Reservation>,
    next_token: Option<String>,
}

#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
struct Reservation {
    #[serde(default)]
    instances_set: List<Instance>,
}

impl Page for InstancesPage {
    type Item = Instance;

    fn take(self) -> (Vec<Instance>, Option<String>) {
        let reservations = self.reservation_set.items.into_iter();
        let instances = reservations.flat_map(|reservation| reservation.instances_set.items);
        (instances.collect(), self.next_token)
    }
}

/// All instances that fit the filters, those that ended within the hour among them.
pub async fn describe(client: &Client, filters: &[Filter]) -> Result<Vec<Instance>, Failure> {
    matching::<InstancesPage>(client, Action::DescribeInstances, filters).await
}

/// The instance of this id; `None` when there is none.
pub async fn find(client: &Client, id: &str) -> Result<Option<Instance>, Failure> {
    let parameters = Parameters::new().with_list("InstanceId", [id]);
    match every::<InstancesPage>(client, Action::DescribeInstances, parameters).await {
        Ok(found) => Ok(found.into_iter().next()),
        Err(failure) if failure.code() == Some("InvalidInstanceID.NotFound") => Ok(None),
        Err(failure) => Err(failure),
    }
}

/// Makes an instance. `None`: EC2 answered without one.
pub async fn run(client: &Client, parameters: Parameters) -> Result<Option<Instance>, Failure> {
    let reservation: Reservation = client.query(Action::RunInstances, parameters).await?;
    Ok(reservation.instances_set.items.into_iter().next())
}

/// Ends instances; those that ended already stay as they are.
pub async fn terminate(client: &Client, ids: &[String]) -> Result<(), Failure> {
    let parameters = Parameters::new().with_list("InstanceId", ids);
    client
        .query::<Done>(Action::TerminateInstances, parameters)
        .await
        .map(|_| ())
}

/// What an instance may leave behind: a volume or an interface.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
pub struct Leftover {
    /// `vol-…`, `eni-…`.
    #[serde(alias = "volumeId", alias = "networkInterfaceId")]
    pub id: String,
    /// `available` when nothing uses it.
    #[serde(default)]
    pub status: String,
    /// Its tags.
    #[serde(default, alias = "tagSet")]
    tag_set: List<Tag>,
}

impl Leftover {
    /// Its tags.
    pub fn tags(&self) -> Tags {
        self.tag_set.to_map()
    }

    /// Whether it can be removed.
    pub fn is_free(&self) -> bool {
        self.status == "available"
    }

    /// For tests of decisions.
    #[cfg(test)]
    pub fn for_tests(id: &str, status: &str) -> Self {
        Self {
            id: id.to_owned(),
            status: status.to_owned(),
            tag_set: List::default(),
        }
    }
}

#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
struct LeftoversPage {
    #[serde(default, alias = "volumeSet", alias = "networkInterfaceSet")]
    set: List<Leftover>,
    next_token: Option<String>,
}

impl Page for LeftoversPage {
    type Item = Leftover;

    fn take(self) -> (Vec<Leftover>, Option<String>) {
        (self.set.items, self.next_token)
    }
}

/// All volumes that fit the filters.
pub async fn describe_volumes(client: &Client, filters: &[Filter]) -> Result<Vec<Leftover>, Failure> {
    matching::<LeftoversPage>(client, Action::DescribeVolumes, filters).await
}

/// All network interfaces that fit the filters.
pub async fn describe_interfaces(client: &Client, filters: &[Filter]) -> Result<Vec<Leftover>, Failure> {
    matching::<LeftoversPage>(client, Action::DescribeNetworkInterfaces, filters).await
}

/// Removes a volume; one that is gone is gone.
pub async fn delete_volume(client: &Client, id: &str) -> Result<(), Failure> {
    let parameters = Parameters::new().with("VolumeId", id);
    gone(
        client.query::<Done>(Action::DeleteVolume, parameters).await,
        "InvalidVolume.NotFound",
    )
}

/// Removes a network interface; one that is gone is gone.
pub async fn delete_interface(client: &Client, id: &str) -> Result<(), Failure> {
    let parameters = Parameters::new().with("NetworkInterfaceId", id);
    gone(
        client.query::<Done>(Action::DeleteNetworkInterface, parameters).await,
        "InvalidNetworkInterfaceID.NotFound",
    )
}

pub(super) fn gone<T>(answer: Result<T, Failure>, code: &str) -> Result<(), Failure> {
    match answer {
        Ok(_) => Ok(()),
        Err(failure) if failure.code() == Some(code) => Ok(()),
        Err(failure) => Err(failure),
    }
}

/// An image.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Image {
    /// `ami-…`.
    #[serde(rename = "imageId")]
    pub id: String,
    /// When it was made, in RFC 3339.
    #[serde(default)]
    pub creation_date: String,
    /// The device that it boots from.
    pub root_device_name: Option<String>,
}

/// The images that fit.
pub async fn describe_images(client: &Client, parameters: Parameters) -> Result<Vec<Image>, Failure> {
    #[derive(Deserialize)]
    #[serde(rename_all = "camelCase")]
    struct ImagesPage {
        #[serde(default)]
        images_set: List<Image>,
        next_token: Option<String>,
    }
    impl Page for ImagesPage {
        type Item = Image;

        fn take(self) -> (Vec<Image>, Option<String>) {
            (self.images_set.items, self.next_token)
        }
    }
    every::<ImagesPage>(client, Action::DescribeImages, parameters).await
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn instances_are_read_from_what_ec2_answers() {
        let page: InstancesPage = quick_xml::de::from_str(
            r#"<?xml version="1.0" encoding="UTF-8"?>
<DescribeInstancesResponse xmlns="http://ec2.amazonaws.com/doc/2016-11-15/">
  <requestId>r</requestId>
  <reservationSet><item><reservationId>r-1</reservationId><groupSet/>
    <instancesSet><item>
      <instanceId>i-1</instanceId><imageId>ami-1</imageId>
      <instanceState><code>16</code><name>running</name></instanceState>
      <privateDnsName>ip-10-0-0-1.internal</privateDnsName><dnsName/>
      <instanceType>t3.small</instanceType><launchTime>2026-01-01T00:00:00.000Z</launchTime>
      <placement><availabilityZone>eu-central-1a</availabilityZone><groupName/><tenancy>default</tenancy></placement>
      <privateIpAddress>10.0.0.1</privateIpAddress>
      <blockDeviceMapping>
        <item><deviceName>/dev/xvda</deviceName><ebs><volumeId>vol-1</volumeId><status>attached</status></ebs></item>
        <item><deviceName>/dev/sdb</deviceName><ebs><volumeId>vol-2</volumeId></ebs></item>
      </blockDeviceMapping>
      <tagSet><item><key>a</key><value>1</value></item><item><key>b</key><value/></item></tagSet>
      <networkInterfaceSet><item><networkInterfaceId>eni-1</networkInterfaceId></item></networkInterfaceSet>
    </item></instancesSet>
  </item><item><instancesSet><item><instanceId>i-2</instanceId><instanceState><name>pending</name></instanceState></item></instancesSet></item></reservationSet>
  <nextToken>more</nextToken>
</DescribeInstancesResponse>"#,
        )
        .expect("an answer");
        let (instances, next) = page.take();
        assert_eq!(next.as_deref(), Some("more"));
        assert_eq!(instances.len(), 2);
        let first = &instances[0];
        assert_eq!((first.id.as_str(), first.state.name.as_str()), ("i-1", "running"));
        assert_eq!(first.volumes().collect::<Vec<_>>(), ["vol-1", "vol-2"]);
        assert_eq!(first.interfaces().collect::<Vec<_>>(), ["eni-1"]);
        assert_eq!(first.placement.availability_zone, "eu-central-1a");
        assert_eq!(first.tags().get("b").map(String::as_str), Some(""));
    }

    #[test]
    fn an_empty_answer_is_an_empty_list() {
        let page: InstancesPage = quick_xml::de::from_str(
            "<DescribeInstancesResponse><requestId>r</requestId><reservationSet/></DescribeInstancesResponse>",
        )
        .expect("an answer");
        assert_eq!(page.take(), (Vec::new(), None));
    }

    #[test]
    fn volumes_and_interfaces_are_both_leftovers() {
        for body in [
            "<R><volumeSet><item><volumeId>x-1</volumeId><status>available</status><tagSet><item><key>k</key><value>v</value></item></tagSet></item></volumeSet></R>",
            "<R><networkInterfaceSet><item><networkInterfaceId>x-1</networkInterfaceId><status>available</status><tagSet><item><key>k</key><value>v</value></item></tagSet></item></networkInterfaceSet></R>",
        ] {
            let page: LeftoversPage = quick_xml::de::from_str(body).expect("an answer");
            let (found, _) = page.take();
            assert_eq!((found[0].id.as_str(), found[0].is_free()), ("x-1", true));
            assert_eq!(found[0].tags().get("k").map(String::as_str), Some("v"));
        }
    }
}
