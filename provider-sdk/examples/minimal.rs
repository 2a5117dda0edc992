//! The least that a provider is: a cloud that forgets everything when it stops. Run it:
//!
//! ```sh
//! cargo run --example minimal -- --listen unix:///tmp/minimal/actuator.sock
//! ```

use std::collections::HashMap;
use std::process::ExitCode;

use parking_lot::Mutex;
use provider_sdk::v1::{ClusterPhase, ClusterStatus, ErrorReason, MachinePhase, MachineStatus};
use provider_sdk::{
    ActuatorError, CallContext, ClusterExists, Config, CreateCluster, CreateMachine, DeleteCluster, DeleteMachine,
    Deletion, Existence, MachineExists, OperationContext, Program, Provider, ProviderInfo, Setup, UpdateCluster,
    UpdateMachine, async_trait,
};
use schemars::JsonSchema;
use serde::Deserialize;

/// What a user writes for a cluster.
#[derive(Debug, Clone, Deserialize, JsonSchema)]
struct ClusterConfig {}

impl Config for ClusterConfig {
    const KIND: &'static str = "MinimalClusterConfig";
    const VERSION: &'static str = "v1";
}

/// What a user writes for a machine.
#[derive(Debug, Clone, Deserialize, JsonSchema)]
struct MachineConfig {
    /// How large the machine is, in thousandths of a processor.
    #[schemars(range(min = 100, max = 64_000))]
    cpu_millis: u32,
}

impl Config for MachineConfig {
    const KIND: &'static str = "MinimalMachineConfig";
    const VERSION: &'static str = "v1";
}

/// The flags of this provider alone.
#[derive(Debug, clap::Args)]
struct Flags {
    /// The zone that machines are put into
    #[arg(long, env = "MINIMAL_ZONE", default_value = "zone-a")]
    zone: String,
}

struct Minimal {
    zone: String,
    clusters: Mutex<HashMap<String, ClusterStatus>>,
    machines: Mutex<HashMap<String, MachineStatus>>,
}

#[async_trait]
impl Provider for Minimal {
    type ClusterConfig = ClusterConfig;
    type MachineConfig = MachineConfig;

    fn info(&self) -> ProviderInfo {
        ProviderInfo::new("minimal", env!("CARGO_PKG_VERSION"), "minimal:///")
    }

    async fn create_cluster(
        &self,
        context: &OperationContext,
        _: CreateCluster<ClusterConfig>,
    ) -> Result<ClusterStatus, ActuatorError> {
        let mut clusters = self.clusters.lock();
        let status = clusters
            .entry(context.key().to_owned())
            .or_insert_with(|| ClusterStatus {
                provider_id: format!("network-{}", context.key()),
                phase: ClusterPhase::Ready.into(),
                ..Default::default()
            });
        Ok(status.clone())
    }

    async fn update_cluster(
        &self,
        _: &OperationContext,
        request: UpdateCluster<ClusterConfig>,
    ) -> Result<ClusterStatus, ActuatorError> {
        let clusters = self.clusters.lock();
        let status = clusters.get(&request.resource.key).cloned();
        status.ok_or_else(|| ActuatorError::new(ErrorReason::ResourceNotFound, "there is no such cluster"))
    }

    async fn delete_cluster(
        &self,
        _: &OperationContext,
        request: DeleteCluster<ClusterConfig>,
    ) -> Result<Deletion, ActuatorError> {
        self.clusters.lock().remove(&request.resource.key);
        Ok(Deletion::Gone)
    }

    async fn cluster_exists(
        &self,
        _: &CallContext,
        request: ClusterExists<ClusterConfig>,
    ) -> Result<Existence<ClusterStatus>, ActuatorError> {
        let status = self.clusters.lock().get(&request.resource.key).cloned();
        Ok(status.map_or(Existence::Absent, Existence::Present))
    }

    async fn create_machine(
        &self,
        context: &OperationContext,
        request: CreateMachine<MachineConfig>,
    ) -> Result<MachineStatus, ActuatorError> {
        let mut machines = self.machines.lock();
        if let Some(there) = machines.get(context.key()) {
            return if there.observed_digest == request.spec.digest {
                Ok(there.clone())
            } else {
                Err(ActuatorError::new(
                    ErrorReason::KeyConflict,
                    "the key belongs to a machine with another spec",
                ))
            };
        }
        let zone = request.spec.failure_domain.unwrap_or_else(|| self.zone.clone());
        let status = MachineStatus {
            provider_id: format!("minimal:///{zone}/{}", context.key()),
            phase: MachinePhase::Running.into(),
            failure_domain: zone,
            machine_type: format!("{}m", request.spec.config.cpu_millis),
            observed_digest: request.spec.digest,
            ..Default::default()
        };
        machines.insert(context.key().to_owned(), status.clone());
        Ok(status)
    }

    async fn update_machine(
        &self,
        _: &OperationContext,
        _: UpdateMachine<MachineConfig>,
    ) -> Result<MachineStatus, ActuatorError> {
        Err(ActuatorError::new(
            ErrorReason::ReplaceRequired,
            "machines of this cloud never change",
        ))
    }

    async fn delete_machine(
        &self,
        _: &OperationContext,
        request: DeleteMachine<MachineConfig>,
    ) -> Result<Deletion, ActuatorError> {
        self.machines.lock().remove(&request.resource.key);
        Ok(Deletion::Gone)
    }

    async fn machine_exists(
        &self,
        _: &CallContext,
        request: MachineExists<MachineConfig>,
    ) -> Result<Existence<MachineStatus>, ActuatorError> {
        let status = self.machines.lock().get(&request.resource.key).cloned();
        Ok(status.map_or(Existence::Absent, Existence::Present))
    }
}

fn main() -> ExitCode {
    let program = Program::new(
        "provider-minimal",
        env!("CARGO_PKG_VERSION"),
        "A cloud that forgets everything",
    )
    .with_examples("Examples:\n  provider-minimal --listen unix:///tmp/minimal/actuator.sock\n");
    provider_sdk::run(program, |flags: Flags| async move {
        Ok::<_, ActuatorError>(Setup::new(Minimal {
            zone: flags.zone,
            clusters: Mutex::default(),
            machines: Mutex::default(),
        }))
    })
}
