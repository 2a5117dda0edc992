//! The actuator protocol on top of AWS: observes, has it decided, acts. Not for: deciding
//! (see [`crate::machine`] and [`crate::cluster`]) nor for the wire.

mod clusters;
mod list;
mod machines;

use std::collections::HashMap;
use std::time::{Duration, Instant};

use parking_lot::Mutex;
use provider_sdk::v1::{self, ErrorReason};
use provider_sdk::{
    ActuatorError, CallContext, ClusterExists, CreateCluster, CreateMachine, DeleteCluster, DeleteMachine, Deletion,
    Diagnostic, Existence, ListMachines, MachineExists, OperationContext, Page, Provider, ProviderInfo, UpdateCluster,
    UpdateMachine, Validation, async_trait,
};

use crate::client::credentials::{self, Sources};
use crate::client::{Client, Wire};
use crate::config::cluster::AwsClusterConfig;
use crate::config::machine::AwsMachineConfig;
use crate::describes::Describes;
use crate::ec2::instances::{Image, Instance};
use crate::ec2::network::SecurityGroup;
use crate::machine::user_data;
use crate::recent::Recent;
use crate::{config, ec2, errors, ids};

/// Where the account is asked for its regions, and roles are assumed, when no region is set.
const HOME: &str = "us-east-1";
/// How many callers have their questions gathered; the least used go first.
const MAX_CALLERS: usize = 512;
/// How long the answer about an image is used again.
const IMAGE_AGE: Duration = Duration::from_mins(1);
/// How many such answers are kept.
const MAX_IMAGES: usize = 1024;

/// What a provider is started with.
#[derive(Debug, Clone)]
pub struct Settings {
    /// The regions that clusters may be in; every one of the account when empty.
    pub regions: Vec<String>,
    /// How long EC2 may hide what was made.
    pub read_after_write: Duration,
    /// The shortest time from one DescribeInstances to the next.
    pub describe_interval: Duration,
    /// How soon to look again at what is changing.
    pub poll_interval: Duration,
}

/// A caller and a region: what the answer to the same question depends on.
type CallerName = (Vec<u8>, String);

/// The provider of Amazon EC2.
#[derive(Debug)]
pub struct AwsProvider {
    settings: Settings,
    wire: Wire,
    sources: Sources,
    callers: Mutex<HashMap<CallerName, (Caller, Instant)>>,
    images: Mutex<HashMap<(CallerName, String), (Image, Instant)>>,
    machines: Recent<Instance>,
    clusters: Recent<SecurityGroup>,
}

/// AWS as one caller sees it in one region.
#[derive(Debug, Clone)]
struct Caller {
    name: CallerName,
    client: Client,
    describes: Describes,
}

impl AwsProvider {
    /// A provider that knows nothing yet; nothing is asked of AWS.
    pub fn new(wire: Wire, settings: Settings) -> Self {
        let now = Instant::now();
        Self {
            sources: Sources::new(wire.clone()),
            callers: Mutex::default(),
            images: Mutex::default(),
            machines: Recent::new(settings.read_after_write, now),
            clusters: Recent::new(settings.read_after_write, now),
            wire,
            settings,
        }
    }

    fn home(&self) -> &str {
        self.settings.regions.first().map_or(HOME, String::as_str)
    }

    /// AWS in this region, as this caller.
    fn caller(&self, context: &CallContext, region: &str) -> Result<Caller, ActuatorError> {
        if !self.settings.regions.is_empty() && !self.settings.regions.iter().any(|allowed| allowed == region) {
            return Err(ActuatorError::new(
                ErrorReason::InvalidConfig,
                format!(
                    "the region {region:?} is none of {}, which this provider was started for with --region",
                    self.settings.regions.join(", ")
                ),
            )
            .with_field("region", "not allowed"));
        }
        let (source, hash) = self.sources.of(context.credentials(), self.home())?;
        let name = (hash, region.to_owned());
        let now = Instant::now();
        let mut callers = self.callers.lock();
        if callers.len() >= MAX_CALLERS && !callers.contains_key(&name) {
            let oldest = callers.iter().min_by_key(|(_, (_, used))| *used);
            if let Some(oldest) = oldest.map(|(name, _)| name.clone()) {
                callers.remove(&oldest);
            }
        }
        let (caller, used) = callers.entry(name.clone()).or_insert_with(|| {
            let client = Client::new(self.wire.clone(), region, source);
            let caller = Caller {
                name,
                describes: Describes::new(client.clone(), self.settings.describe_interval),
                client,
            };
            (caller, now)
        });
        *used = now;
        Ok(caller.clone())
    }

    /// Every region that something may be in, where nothing tells which.
    async fn every_region(&self, context: &CallContext) -> Result<Vec<String>, ActuatorError> {
        if !self.settings.regions.is_empty() {
            return Ok(self.settings.regions.clone());
        }
        let home = self.caller(context, HOME)?;
        let regions = ec2::describe_regions(&home.client).await;
        let mut regions = regions.map_err(|failure| errors::error(&failure))?;
        regions.retain(|region| config::is_region(region));
        regions.sort();
        Ok(regions)
    }
}

/// What a config names and is not there is a finding; that nobody can tell is an error.
fn missing(pointer: &str, looked: Result<(), ActuatorError>) -> Result<Option<Diagnostic>, ActuatorError> {
    match looked {
        Ok(()) => Ok(None),
        Err(error) if error.reason() == ErrorReason::DependencyNotFound => {
            Ok(Some(Diagnostic::error(pointer, error.message())))
        }
        Err(error) => Err(error),
    }
}

#[async_trait]
impl Provider for AwsProvider {
    type ClusterConfig = AwsClusterConfig;
    type MachineConfig = AwsMachineConfig;

    fn info(&self) -> ProviderInfo {
        let mut info = ProviderInfo::new("aws", env!("CARGO_PKG_VERSION"), ids::PREFIX);
        info.limits.max_bootstrap_bytes = user_data::MAX_BOOTSTRAP_BYTES;
        info.timings.read_after_write = Some(self.settings.read_after_write);
        info.timings.poll_interval = Some(self.settings.poll_interval);
        info.credential_keys = credentials::keys();
        info
    }

    fn capabilities(&self) -> v1::Capabilities {
        v1::Capabilities {
            list_machines: Some(v1::ListMachinesCapability {}),
            ..Default::default()
        }
    }

    async fn validate_cluster(
        &self,
        context: &CallContext,
        request: &Validation<AwsClusterConfig>,
    ) -> Result<Vec<Diagnostic>, ActuatorError> {
        let mut found = config::cluster::check(&request.config, request.previous.as_ref());
        if request.preflight && !found.iter().any(Diagnostic::is_error) {
            let looked = self.look_for_network(context, &request.config).await;
            found.extend(missing("/network", looked)?);
        }
        Ok(found)
    }

    async fn validate_machine(
        &self,
        context: &CallContext,
        request: &Validation<AwsMachineConfig>,
    ) -> Result<Vec<Diagnostic>, ActuatorError> {
        let mut found = config::machine::check(&request.config, request.previous.as_ref());
        // Images are those of a region; without one there is nothing to look at.
        let region = request
            .config
            .region
            .as_deref()
            .or(match self.settings.regions.as_slice() {
                [only] => Some(only.as_str()),
                _ => None,
            });
        if let Some(region) = region.filter(|_| request.preflight && !found.iter().any(Diagnostic::is_error)) {
            let caller = self.caller(context, region)?;
            let looked = self.image(&caller, &request.config.image).await;
            found.extend(missing("/image", looked.map(|_| ()))?);
        }
        Ok(found)
    }

    async fn create_cluster(
        &self,
        context: &OperationContext,
        request: CreateCluster<AwsClusterConfig>,
    ) -> Result<v1::ClusterStatus, ActuatorError> {
        self.make_cluster(context, request).await
    }

    async fn update_cluster(
        &self,
        context: &OperationContext,
        request: UpdateCluster<AwsClusterConfig>,
    ) -> Result<v1::ClusterStatus, ActuatorError> {
        self.change_cluster(context, request).await
    }

    async fn delete_cluster(
        &self,
        context: &OperationContext,
        request: DeleteCluster<AwsClusterConfig>,
    ) -> Result<Deletion, ActuatorError> {
        self.remove_cluster(context, request).await
    }

    async fn cluster_exists(
        &self,
        context: &CallContext,
        request: ClusterExists<AwsClusterConfig>,
    ) -> Result<Existence<v1::ClusterStatus>, ActuatorError> {
        self.look_at_cluster(context, request).await
    }

    async fn create_machine(
        &self,
        context: &OperationContext,
        request: CreateMachine<AwsMachineConfig>,
    ) -> Result<v1::MachineStatus, ActuatorError> {
        self.make_machine(context, request).await
    }

    async fn update_machine(
        &self,
        context: &OperationContext,
        request: UpdateMachine<AwsMachineConfig>,
    ) -> Result<v1::MachineStatus, ActuatorError> {
        self.change_machine(context, request).await
    }

    async fn delete_machine(
        &self,
        context: &OperationContext,
        request: DeleteMachine<AwsMachineConfig>,
    ) -> Result<Deletion, ActuatorError> {
        self.remove_machine(context, request).await
    }

    async fn machine_exists(
        &self,
        context: &CallContext,
        request: MachineExists<AwsMachineConfig>,
    ) -> Result<Existence<v1::MachineStatus>, ActuatorError> {
        self.look_at_machine(context, request).await
    }

    async fn list_machines(
        &self,
        context: &CallContext,
        request: ListMachines<AwsClusterConfig>,
    ) -> Result<Page<v1::ListedMachine>, ActuatorError> {
        self.page_of_machines(context, request).await
    }
}
