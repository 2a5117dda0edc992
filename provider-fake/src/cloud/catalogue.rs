//! What the simulated cloud sells: machine types and images. Fixed data.

/// A type of machine.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct MachineTypeInfo {
    /// Its name.
    pub name: &'static str,
    /// Processors.
    pub cpus: u32,
    /// Memory.
    pub memory_gib: u32,
    /// As in `Node.status.nodeInfo.architecture`.
    pub architecture: &'static str,
    /// Graphics processors.
    pub gpus: u32,
    /// In micro US dollars per hour.
    pub price_micros_per_hour: i64,
}

/// Every machine type, by name.
pub const MACHINE_TYPES: &[MachineTypeInfo] = &[
    machine_type("fake.arm", 4, 16, "arm64", 0, 120_000),
    machine_type("fake.gpu", 8, 64, "amd64", 1, 2_900_000),
    machine_type("fake.large", 8, 32, "amd64", 0, 380_000),
    machine_type("fake.medium", 4, 16, "amd64", 0, 190_000),
    machine_type("fake.small", 2, 4, "amd64", 0, 42_000),
    machine_type("fake.xlarge", 16, 64, "amd64", 0, 760_000),
];

/// The images that are there when none are named in the settings; the first is the
/// default of a machine.
pub const IMAGES: &[&str] = &["fakeos-1", "fakeos-2"];

/// The zones that are there when none are named in the settings.
pub const ZONES: &[&str] = &["zone-a", "zone-b", "zone-c"];

const fn machine_type(
    name: &'static str,
    cpus: u32,
    memory_gib: u32,
    architecture: &'static str,
    gpus: u32,
    price_micros_per_hour: i64,
) -> MachineTypeInfo {
    MachineTypeInfo {
        name,
        cpus,
        memory_gib,
        architecture,
        gpus,
        price_micros_per_hour,
    }
}

/// The machine type of this name.
pub fn find_machine_type(name: &str) -> Option<&'static MachineTypeInfo> {
    MACHINE_TYPES.iter().find(|machine_type| machine_type.name == name)
}

/// The names of all machine types, for messages.
pub fn machine_type_names() -> String {
    let names: Vec<&str> = MACHINE_TYPES.iter().map(|machine_type| machine_type.name).collect();
    names.join(", ")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_sorted_and_found() {
        assert!(MACHINE_TYPES.is_sorted_by_key(|machine_type| machine_type.name));
        for machine_type in MACHINE_TYPES {
            assert_eq!(find_machine_type(machine_type.name), Some(machine_type));
        }
        assert_eq!(find_machine_type("fake.huge"), None);
    }
}
