//! From a machine's config to the parameters of `RunInstances`. Pure.

use provider_sdk::v1::ErrorReason;
use provider_sdk::{ActuatorError, MachineSpec};
use sha2::{Digest as _, Sha256};

use crate::client::query::{Filter, Parameters};
use crate::config::machine::{AwsMachineConfig, Image, ImageFilter, Tenancy, Volume, fixed_part};
use crate::ec2::Tags;
use crate::ec2::instances::Image as Found;
use crate::ec2::network::Subnet;

/// What a machine is made of besides its config.
#[derive(Debug, Clone)]
pub struct Launch<'a> {
    /// The key: the token of the request.
    pub key: &'a str,
    /// The image.
    pub image: &'a Found,
    /// The subnet.
    pub subnet: &'a str,
    /// The security groups.
    pub groups: Vec<String>,
    /// The user data, encoded; a secret.
    pub user_data: Option<String>,
    /// What instance, volumes and interfaces carry.
    pub tags: &'a Tags,
}

/// A digest of what of a spec cannot be changed in place. Labels and taints are not among
/// it: they are the node's.
pub fn shape(spec: &MachineSpec<AwsMachineConfig>) -> String {
    let mut hash = Sha256::new();
    for part in [
        spec.name.as_bytes(),
        spec.kubernetes_version.as_deref().unwrap_or_default().as_bytes(),
        spec.failure_domain.as_deref().unwrap_or_default().as_bytes(),
        &[u8::from(spec.control_plane)],
        &fixed_part(&spec.config),
    ] {
        hash.update((part.len() as u64).to_be_bytes());
        hash.update(part);
    }
    hex::encode(hash.finalize())
}

/// The question for a machine's image; `parameter` is the id that Systems Manager gave.
pub fn image_question(image: &Image, parameter: Option<&str>) -> Parameters {
    let by_id = |id: &str| Parameters::new().with_list("ImageId", [id]);
    match (image, parameter) {
        (Image::Id(id), _) => by_id(id),
        (Image::Parameter(_), id) => by_id(id.unwrap_or_default()),
        (Image::Filter(filter), _) => Parameters::new()
            .with_list("Owner", [&filter.owner])
            .with_filters(&image_filters(filter)),
    }
}

fn image_filters(filter: &ImageFilter) -> [Filter; 3] {
    [
        Filter::pattern("name", [&filter.name]),
        Filter::exactly("architecture", [filter.architecture.name()]),
        Filter::exactly("state", ["available"]),
    ]
}

/// The newest of the images that were found.
pub fn newest(found: Vec<Found>, image: &Image) -> Result<Found, ActuatorError> {
    // RFC 3339 in UTC sorts as text; the id decides between equals, so that all decide alike.
    let newest = found.into_iter().max_by(|one, other| {
        let order = |image: &Found| (image.creation_date.clone(), image.id.clone());
        order(one).cmp(&order(other))
    });
    newest.ok_or_else(|| {
        let message = match image {
            Image::Id(id) => format!("there is no image {id}"),
            Image::Parameter(name) => format!("the parameter {name} names an image that is not there"),
            Image::Filter(filter) => format!(
                "no image of {} is named {:?} with the architecture {}",
                filter.owner,
                filter.name,
                filter.architecture.name()
            ),
        };
        ActuatorError::new(ErrorReason::DependencyNotFound, message).with_field("image", "not found")
    })
}

/// One of the subnets: in this zone where one is wanted, and always the same for a key,
/// because EC2 takes a token for the same parameters only.
pub fn choose_subnet<'a>(among: &'a [Subnet], zone: Option<&str>, key: &str) -> Result<&'a Subnet, ActuatorError> {
    let mut fitting: Vec<&Subnet> = among
        .iter()
        .filter(|subnet| zone.is_none_or(|zone| subnet.zone == zone))
        .collect();
    fitting.sort_by(|one, other| one.id.cmp(&other.id));
    let hash = Sha256::digest(key);
    let number = hash
        .iter()
        .take(4)
        .fold(0_usize, |all, byte| all << 8 | usize::from(*byte));
    let chosen = number
        .checked_rem(fitting.len())
        .and_then(|index| fitting.get(index).copied());
    chosen.ok_or_else(|| {
        let message = match zone {
            Some(zone) => format!("the cluster has no subnet in the zone {zone:?}"),
            None => "the cluster has no subnet".to_owned(),
        };
        ActuatorError::new(ErrorReason::DependencyNotFound, message).with_field("subnet", "not found")
    })
}

/// The parameters of `RunInstances`.
pub fn parameters(config: &AwsMachineConfig, launch: &Launch<'_>) -> Parameters {
    let all = Parameters::new()
        .with("MinCount", 1)
        .with("MaxCount", 1)
        .with("ClientToken", launch.key)
        .with("ImageId", &launch.image.id)
        .with("InstanceType", &config.instance_type)
        .with_some("UserData", launch.user_data.as_ref())
        .with_some("KeyName", config.ssh_key.as_ref())
        .with("NetworkInterface.1.DeviceIndex", 0)
        .with("NetworkInterface.1.SubnetId", launch.subnet)
        .with("NetworkInterface.1.DeleteOnTermination", true)
        .with_some("NetworkInterface.1.AssociatePublicIpAddress", config.public_address)
        .with_list("NetworkInterface.1.SecurityGroupId", &launch.groups)
        .with("MetadataOptions.HttpEndpoint", "enabled")
        .with(
            "MetadataOptions.HttpTokens",
            if config.instance_metadata.tokens_required {
                "required"
            } else {
                "optional"
            },
        )
        .with(
            "MetadataOptions.HttpPutResponseHopLimit",
            config.instance_metadata.hop_limit,
        );
    let all = ["instance", "volume", "network-interface"]
        .iter()
        .enumerate()
        .fold(all, |all, (index, kind)| {
            all.with_tag_specification(index + 1, kind, launch.tags)
        });
    placement(volumes(all, config, launch.image), config)
}

fn volumes(all: Parameters, config: &AwsMachineConfig, image: &Found) -> Parameters {
    let root = image.root_device_name.as_deref().unwrap_or("/dev/xvda");
    let extra = config
        .volumes
        .iter()
        .map(|extra| (extra.device.as_str(), &extra.volume));
    std::iter::once((root, &config.root_volume))
        .chain(extra)
        .enumerate()
        .fold(all, |all, (index, (device, volume))| {
            volume_parameters(all, index + 1, device, volume)
        })
}

fn volume_parameters(all: Parameters, number: usize, device: &str, volume: &Volume) -> Parameters {
    let name = format!("BlockDeviceMapping.{number}");
    let ebs = format!("{name}.Ebs");
    all.with(format!("{name}.DeviceName"), device)
        .with(format!("{ebs}.DeleteOnTermination"), true)
        .with(format!("{ebs}.VolumeSize"), volume.size_gib)
        .with(format!("{ebs}.VolumeType"), volume.kind.name())
        .with(format!("{ebs}.Encrypted"), volume.encrypted)
        .with_some(format!("{ebs}.Iops"), volume.iops)
        .with_some(format!("{ebs}.Throughput"), volume.throughput)
        .with_some(format!("{ebs}.KmsKeyId"), volume.kms_key.as_ref())
}

fn placement(all: Parameters, config: &AwsMachineConfig) -> Parameters {
    let profile = config.instance_profile.as_ref();
    let (arn, name) = (
        profile.filter(|profile| profile.starts_with("arn:")),
        profile.filter(|profile| !profile.starts_with("arn:")),
    );
    let tenancy = match config.tenancy {
        Tenancy::Shared => None,
        Tenancy::Dedicated => Some("dedicated"),
        Tenancy::Host => Some("host"),
    };
    let reservation = config.capacity_reservation_id.as_ref();
    let cpus = config.cpu_options.as_ref();
    let all = all
        .with_some("IamInstanceProfile.Arn", arn)
        .with_some("IamInstanceProfile.Name", name)
        .with_some("Placement.GroupName", config.placement_group.as_ref())
        .with_some("Placement.Tenancy", tenancy)
        .with_some(
            "CapacityReservationSpecification.CapacityReservationTarget.CapacityReservationId",
            reservation,
        )
        .with_some("CpuOptions.CoreCount", cpus.map(|cpus| cpus.core_count))
        .with_some("CpuOptions.ThreadsPerCore", cpus.map(|cpus| cpus.threads_per_core));
    match &config.spot {
        None => all,
        Some(spot) => all
            .with("InstanceMarketOptions.MarketType", "spot")
            .with("InstanceMarketOptions.SpotOptions.SpotInstanceType", "one-time")
            .with_some("InstanceMarketOptions.SpotOptions.MaxPrice", spot.max_price.as_ref()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::machine::tests::{config, smallest};

    fn image(id: &str, date: &str) -> Found {
        Found {
            id: id.to_owned(),
            creation_date: date.to_owned(),
            root_device_name: Some("/dev/sda1".to_owned()),
        }
    }

    fn body(config: &AwsMachineConfig) -> String {
        let tags: Tags = [("a".to_owned(), "b".to_owned())].into();
        let launch = Launch {
            key: "key-1",
            image: &image("ami-1", ""),
            subnet: "subnet-1",
            groups: vec!["sg-1".to_owned(), "sg-2".to_owned()],
            user_data: Some("ZGF0YQ".to_owned()),
            tags: &tags,
        };
        parameters(config, &launch).encode()
    }

    #[test]
    fn the_key_is_the_token_and_everything_that_is_made_is_tagged() {
        let body = body(&smallest());
        for part in [
            "MinCount=1&MaxCount=1&ClientToken=key-1&ImageId=ami-1&InstanceType=t3.small",
            "TagSpecification.1.ResourceType=instance&TagSpecification.1.Tag.1.Key=a",
            "TagSpecification.2.ResourceType=volume&",
            "TagSpecification.3.ResourceType=network-interface&",
            "NetworkInterface.1.SecurityGroupId.2=sg-2",
            "NetworkInterface.1.DeleteOnTermination=true",
            "MetadataOptions.HttpTokens=required",
            "BlockDeviceMapping.1.DeviceName=%2Fdev%2Fsda1&BlockDeviceMapping.1.Ebs.DeleteOnTermination=true",
            "BlockDeviceMapping.1.Ebs.Encrypted=true",
        ] {
            assert!(body.contains(part), "{part} is not in {body}");
        }
        assert!(!body.contains("AssociatePublicIpAddress") && !body.contains("InstanceMarketOptions"));
    }

    #[test]
    fn every_field_reaches_ec2() {
        let body = body(&config(serde_json::json!({
            "instanceType": "c7g.large",
            "image": {"id": "ami-12345678"},
            "rootVolume": {"sizeGiB": 30, "type": "gp3", "iops": 4000, "throughput": 200, "kmsKey": "alias/k"},
            "volumes": [{"device": "/dev/sdf", "volume": {"type": "io2", "iops": 500, "encrypted": false}}],
            "instanceProfile": "nodes",
            "publicAddress": false,
            "sshKey": "mine",
            "spot": {"maxPrice": "0.05"},
            "instanceMetadata": {"tokensRequired": false, "hopLimit": 2},
            "placementGroup": "near",
            "tenancy": "dedicated",
            "capacityReservationId": "cr-1",
            "cpuOptions": {"coreCount": 2, "threadsPerCore": 1},
        })));
        for part in [
            "KeyName=mine",
            "NetworkInterface.1.AssociatePublicIpAddress=false",
            "MetadataOptions.HttpTokens=optional&MetadataOptions.HttpPutResponseHopLimit=2",
            "BlockDeviceMapping.1.Ebs.VolumeSize=30&BlockDeviceMapping.1.Ebs.VolumeType=gp3",
            "BlockDeviceMapping.1.Ebs.Iops=4000&BlockDeviceMapping.1.Ebs.Throughput=200&BlockDeviceMapping.1.Ebs.KmsKeyId=alias%2Fk",
            "BlockDeviceMapping.2.DeviceName=%2Fdev%2Fsdf",
            "BlockDeviceMapping.2.Ebs.VolumeType=io2&BlockDeviceMapping.2.Ebs.Encrypted=false&BlockDeviceMapping.2.Ebs.Iops=500",
            "IamInstanceProfile.Name=nodes&Placement.GroupName=near&Placement.Tenancy=dedicated",
            "CapacityReservationTarget.CapacityReservationId=cr-1",
            "CpuOptions.CoreCount=2&CpuOptions.ThreadsPerCore=1",
            "InstanceMarketOptions.MarketType=spot&InstanceMarketOptions.SpotOptions.SpotInstanceType=one-time&InstanceMarketOptions.SpotOptions.MaxPrice=0.05",
        ] {
            assert!(body.contains(part), "{part} is not in {body}");
        }
    }

    #[test]
    fn the_newest_image_is_taken() {
        let found = vec![
            image("ami-a", "2026-01-01T00:00:00.000Z"),
            image("ami-c", "2026-02-01T00:00:00.000Z"),
            image("ami-b", "2026-02-01T00:00:00.000Z"),
        ];
        let wanted = Image::Id("x".to_owned());
        assert_eq!(newest(found, &wanted).expect("an image").id, "ami-c");
        let error = newest(Vec::new(), &wanted).expect_err("none");
        assert_eq!(error.reason(), ErrorReason::DependencyNotFound);
    }

    #[test]
    fn a_key_gets_the_same_subnet_every_time_and_keys_are_spread() {
        let subnet = |id: &str, zone: &str| Subnet {
            id: id.to_owned(),
            vpc_id: "vpc-1".to_owned(),
            zone: zone.to_owned(),
        };
        let subnets = [subnet("s-1", "a"), subnet("s-2", "b"), subnet("s-3", "b")];
        let mut turned = subnets.clone();
        turned.reverse();
        let mut used = std::collections::BTreeSet::new();
        for number in 0..50 {
            let key = number.to_string();
            let chosen = choose_subnet(&subnets, None, &key).expect("a subnet");
            assert_eq!(choose_subnet(&turned, None, &key).expect("a subnet"), chosen);
            used.insert(chosen.id.clone());
            assert_eq!(choose_subnet(&subnets, Some("a"), &key).expect("a subnet").id, "s-1");
        }
        assert_eq!(used.len(), 3);
        for zone in [Some("c"), None] {
            let among = if zone.is_some() { &subnets[..] } else { &[] };
            let error = choose_subnet(among, zone, "k").expect_err("none");
            assert_eq!(error.reason(), ErrorReason::DependencyNotFound);
        }
    }
}
