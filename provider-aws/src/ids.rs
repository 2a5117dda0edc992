//! The ids that the core knows: `aws:///eu-central-1a/i-0123456789abcdef0` for a machine,
//! as in `Node.spec.providerID`, and `aws:///eu-central-1/cluster/KEY` for a cluster,
//! which is known before anything of it is made. Pure.

use provider_sdk::ActuatorError;
use provider_sdk::v1::ErrorReason;

use crate::config::{is_id, is_region};

/// What each id begins with.
pub const PREFIX: &str = "aws:///";

/// The id of a machine.
pub fn machine(zone: &str, instance: &str) -> String {
    format!("{PREFIX}{zone}/{instance}")
}

/// The id of a cluster.
pub fn cluster(region: &str, key: &str) -> String {
    format!("{PREFIX}{region}/cluster/{key}")
}

/// The region and the instance of a machine's id.
pub fn parse_machine(id: &str) -> Result<(String, String), ActuatorError> {
    let parts = id.strip_prefix(PREFIX).and_then(|rest| rest.split_once('/'));
    parts
        .filter(|(_, instance)| is_id(instance, "i"))
        .and_then(|(zone, instance)| Some((region_of(zone)?, instance.to_owned())))
        .ok_or_else(|| malformed(id, &machine("eu-central-1a", "i-0123456789abcdef0")))
}

/// The region of a cluster's id; `OWNERSHIP_MISMATCH` when it is that of another key.
pub fn parse_cluster(id: &str, key: &str) -> Result<String, ActuatorError> {
    let parts = id.strip_prefix(PREFIX).and_then(|rest| rest.split_once("/cluster/"));
    match parts {
        Some((region, its_key)) if is_region(region) && its_key == key => Ok(region.to_owned()),
        Some((region, _)) if is_region(region) => Err(ActuatorError::new(
            ErrorReason::OwnershipMismatch,
            format!("{id:?} is the id of another cluster; it is left alone"),
        )),
        _ => Err(malformed(id, &cluster("eu-central-1", "KEY"))),
    }
}

fn malformed(id: &str, example: &str) -> ActuatorError {
    ActuatorError::new(
        ErrorReason::MalformedProviderId,
        format!("{id:?} is no id of this provider; they look like {example}"),
    )
}

/// The region of a zone: `eu-central-1` of `eu-central-1a`, `us-west-2` of the local zone
/// `us-west-2-lax-1a`.
pub fn region_of(zone: &str) -> Option<String> {
    let mut region: Vec<&str> = Vec::new();
    for part in zone.split('-') {
        let digits = part.len()
            - part
                .trim_start_matches(|character: char| character.is_ascii_digit())
                .len();
        if digits > 0 {
            region.push(&part[..digits]);
            return Some(region.join("-")).filter(|region| is_region(region));
        }
        region.push(part);
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn regions_are_told_from_zones() {
        for (zone, region) in [
            ("eu-central-1a", "eu-central-1"),
            ("us-west-2-lax-1a", "us-west-2"),
            ("us-east-1-wl1-bos-wlz-1", "us-east-1"),
            ("us-gov-west-1b", "us-gov-west-1"),
        ] {
            assert_eq!(region_of(zone).as_deref(), Some(region), "{zone}");
        }
        for other in ["", "zone-a", "1a", "eu-central", "evil.example/x-y-1"] {
            assert_eq!(region_of(other), None, "{other}");
        }
    }

    #[test]
    fn ids_are_read_back_and_others_refused() {
        let id = machine("eu-central-1a", "i-0123456789abcdef0");
        assert_eq!(
            parse_machine(&id).expect("an id"),
            ("eu-central-1".to_owned(), "i-0123456789abcdef0".to_owned())
        );
        for other in [
            "",
            "x",
            "aws:///eu-central-1a/vol-0123456789abcdef0",
            "aws:///zone/i-0123456789abcdef0",
            "fake:///eu-central-1a/i-0123456789abcdef0",
        ] {
            let error = parse_machine(other).expect_err(other);
            assert_eq!(error.reason(), ErrorReason::MalformedProviderId);
        }
        let id = cluster("eu-central-1", "k");
        assert_eq!(parse_cluster(&id, "k").expect("an id"), "eu-central-1");
        assert_eq!(
            parse_cluster(&id, "other").expect_err("refused").reason(),
            ErrorReason::OwnershipMismatch
        );
        assert_eq!(
            parse_cluster("aws:///x", "k").expect_err("refused").reason(),
            ErrorReason::MalformedProviderId
        );
    }
}
