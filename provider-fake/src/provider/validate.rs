//! What is wrong with a config beyond its schema. Pure.

use provider_sdk::Diagnostic;

use crate::cloud::Settings;
use crate::cloud::catalogue;
use crate::config::{FakeClusterConfig, FakeMachineConfig};

/// Without asking the cloud.
pub(super) fn machine(config: &FakeMachineConfig, previous: Option<&FakeMachineConfig>) -> Vec<Diagnostic> {
    let mut found = Vec::new();
    if catalogue::find_machine_type(&config.machine_type).is_none() {
        let names = catalogue::machine_type_names();
        found.push(Diagnostic::error(
            "/machineType",
            format!(
                "there is no machine type {:?}; allowed are {names}",
                config.machine_type
            ),
        ));
    }
    if !(10..=16_384).contains(&config.disk_gib) {
        let message = format!(
            "a disk of {} GiB cannot be had; 10 to 16384 are allowed",
            config.disk_gib
        );
        found.push(Diagnostic::error("/diskGiB", message));
    }
    if config.console_kib > 1024 {
        found.push(Diagnostic::error("/consoleKiB", "at most 1024 are allowed"));
    }
    if config.fail_create.is_some() {
        found.push(Diagnostic::warning(
            "/failCreate",
            "no machine will be created with this config",
        ));
    }
    if config.fail_boot {
        found.push(Diagnostic::warning("/failBoot", "no machine will run with this config"));
    }
    if let Some(previous) = previous {
        let fixed = [
            (
                "/machineType",
                "another machine type",
                config.machine_type != previous.machine_type,
            ),
            ("/image", "another image", config.image != previous.image),
            (
                "/publicAddress",
                "another kind of address",
                config.public_address != previous.public_address,
            ),
            ("/diskGiB", "a smaller disk", config.disk_gib < previous.disk_gib),
        ];
        let changed = fixed.into_iter().filter(|(_, _, differs)| *differs);
        found.extend(changed.map(|(pointer, what, _)| {
            Diagnostic::replacement(
                pointer,
                format!("{what} cannot be had in place: the machine is replaced"),
            )
        }));
    }
    found
}

/// With what the cloud has.
pub(super) fn machine_in(config: &FakeMachineConfig, settings: &Settings) -> Vec<Diagnostic> {
    if settings.images.contains(&config.image) {
        return Vec::new();
    }
    let names = settings.images.join(", ");
    vec![Diagnostic::error(
        "/image",
        format!("there is no image {:?}; there are {names}", config.image),
    )]
}

/// Without asking the cloud.
pub(super) fn cluster(config: &FakeClusterConfig, previous: Option<&FakeClusterConfig>) -> Vec<Diagnostic> {
    let mut found = Vec::new();
    for (index, zone) in config.zones.iter().enumerate() {
        if config.zones[..index].contains(zone) {
            found.push(Diagnostic::error(
                format!("/zones/{index}"),
                format!("the zone {zone:?} is there twice"),
            ));
        }
    }
    if config.load_balancer.port == 0 {
        found.push(Diagnostic::error("/loadBalancer/port", "1 to 65535 are allowed"));
    }
    if config.fail_create.is_some() {
        found.push(Diagnostic::warning(
            "/failCreate",
            "no cluster will be created with this config",
        ));
    }
    if let Some(previous) = previous {
        let fixed = [
            ("/region", config.region != previous.region),
            ("/network/cidr", config.network != previous.network),
            ("/loadBalancer", config.load_balancer != previous.load_balancer),
        ];
        let changed = fixed.into_iter().filter(|(_, differs)| *differs);
        found.extend(changed.map(|(pointer, _)| {
            Diagnostic::replacement(
                pointer,
                "this cannot be changed in place: the cluster would have to be made anew",
            )
        }));
    }
    found
}

/// With what the cloud has.
pub(super) fn cluster_in(config: &FakeClusterConfig, settings: &Settings) -> Vec<Diagnostic> {
    let mut found = Vec::new();
    if let Some(region) = config.region.as_ref().filter(|region| **region != settings.region) {
        let message = format!("there is no region {region:?}; there is {}", settings.region);
        found.push(Diagnostic::error("/region", message));
    }
    for (index, zone) in config.zones.iter().enumerate() {
        if !settings.zones.contains(zone) {
            let names = settings.zones.join(", ");
            let message = format!("there is no zone {zone:?}; there are {names}");
            found.push(Diagnostic::error(format!("/zones/{index}"), message));
        }
    }
    found
}

#[cfg(test)]
mod tests {
    use super::*;

    fn config(json: &str) -> FakeMachineConfig {
        serde_json::from_str(json).expect("a config")
    }

    #[test]
    fn what_is_wrong_is_named_by_its_pointer() {
        let found = machine(&config(r#"{"machineType":"fake.huge","diskGiB":1}"#), None);
        let pointers: Vec<&str> = found.iter().map(|it| it.pointer.as_str()).collect();
        assert_eq!(pointers, ["/machineType", "/diskGiB"]);
        assert!(found.iter().all(Diagnostic::is_error));
        let found = machine_in(
            &config(r#"{"machineType":"fake.small","image":"dos"}"#),
            &Settings::default(),
        );
        assert_eq!(found[0].pointer, "/image");
    }

    #[test]
    fn changes_that_replace_are_told_and_growth_is_none() {
        let small = config(r#"{"machineType":"fake.small","diskGiB":20}"#);
        let grown = config(r#"{"machineType":"fake.small","diskGiB":40}"#);
        assert_eq!(machine(&grown, Some(&small)), []);
        let shrunk = machine(&small, Some(&grown));
        assert!(shrunk.len() == 1 && shrunk[0].requires_replacement && !shrunk[0].is_error());
    }

    #[test]
    fn unknown_places_are_found_with_the_cloud_only() {
        let wrong: FakeClusterConfig =
            serde_json::from_str(r#"{"region":"moon-1","zones":["zone-a","zone-q"]}"#).expect("a config");
        assert_eq!(cluster(&wrong, None), []);
        let found = cluster_in(&wrong, &Settings::default());
        let pointers: Vec<&str> = found.iter().map(|it| it.pointer.as_str()).collect();
        assert_eq!(pointers, ["/region", "/zones/1"]);
    }
}
