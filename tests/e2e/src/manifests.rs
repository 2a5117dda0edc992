//! The manifests that the tests apply: the sample that people use, and variations of it.

/// `deploy/samples/fake.yaml`, the sample of the README.
pub const SAMPLE: &str = include_str!("../../../deploy/samples/fake.yaml");

/// A cluster `demo` with a MachineDeployment `demo-workers` of so many machines.
pub fn deployment(replicas: usize) -> String {
    let changed = SAMPLE.replacen("replicas: 3", &format!("replicas: {replicas}"), 1);
    assert!(
        replicas == 3 || changed != SAMPLE,
        "the sample has no line `replicas: 3`"
    );
    changed
}
