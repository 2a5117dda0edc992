//! Builds requests, from the config file and what the provider tells of itself. No I/O.

use std::collections::BTreeMap;

use actuator_proto::digest;
use actuator_proto::v1::{self, ConfigTarget};
use serde_json::Value;
use uuid::Uuid;

use crate::config::{Config, Configs};

/// What every request of a run is built from.
#[derive(Debug, Clone)]
pub struct Plan {
    /// In every name and ownership: what a run has made can be told from everything else.
    pub run: String,
    /// The config file.
    pub config: Config,
    /// What the provider is.
    pub info: v1::GetInfoResponse,
    /// Credentials that work.
    pub good: v1::Credentials,
    /// Others that work, where the config has some.
    pub rotated: Option<v1::Credentials>,
    /// Ones that the cloud refuses, where the config has some.
    pub bad: Option<v1::Credentials>,
}

/// Credentials of these entries; ambient ones of none.
pub fn credentials(entries: BTreeMap<String, Vec<u8>>) -> v1::Credentials {
    let source = if entries.is_empty() {
        v1::credentials::Source::Ambient(v1::AmbientCredentials {})
    } else {
        v1::credentials::Source::Data(v1::CredentialData { entries })
    };
    v1::Credentials { source: Some(source) }
}

/// A key as the core makes one, from the UID of an object.
pub fn new_key() -> String {
    Uuid::new_v4().to_string()
}

/// A config, digest included, of these bytes.
pub fn opaque(kind: &str, schema_version: &str, json: Vec<u8>) -> v1::OpaqueConfig {
    v1::OpaqueConfig {
        kind: kind.to_owned(),
        schema_version: schema_version.to_owned(),
        sha256: digest::sha256(&json),
        json,
    }
}

/// Bootstrap data, digest included.
pub fn bootstrap(data: Vec<u8>, format: v1::BootstrapFormat) -> v1::BootstrapData {
    v1::BootstrapData {
        sha256: digest::sha256(&data),
        data,
        format: format.into(),
    }
}

impl Plan {
    /// The configs for clusters or machines.
    pub fn configs(&self, target: ConfigTarget) -> &Configs {
        match target {
            ConfigTarget::Cluster => &self.config.cluster,
            _ => &self.config.machine,
        }
    }

    /// Kind and schema version of a target.
    pub fn kind(&self, target: ConfigTarget) -> (String, String) {
        let configs = self.configs(target);
        let told = self.info.config_kinds.iter().find(|kind| match &configs.kind {
            Some(wanted) => kind.kind == *wanted,
            None => kind.target() == target,
        });
        let kind = configs
            .kind
            .clone()
            .or_else(|| told.map(|kind| kind.kind.clone()))
            .unwrap_or_default();
        let version = configs
            .schema_version
            .clone()
            .or_else(|| told.and_then(|kind| kind.schema_versions.first().cloned()))
            .unwrap_or_default();
        (kind, version)
    }

    /// A config of a target, as the user would write it.
    pub fn opaque(&self, target: ConfigTarget, value: &Value) -> v1::OpaqueConfig {
        self.opaque_bytes(target, value.to_string().into_bytes())
    }

    /// A config of a target, of these bytes.
    pub fn opaque_bytes(&self, target: ConfigTarget, json: Vec<u8>) -> v1::OpaqueConfig {
        let (kind, version) = self.kind(target);
        opaque(&kind, &version, json)
    }

    /// The valid config of a target.
    pub fn valid(&self, target: ConfigTarget) -> v1::OpaqueConfig {
        self.opaque(target, &self.configs(target).valid)
    }

    /// `ManagementCluster` of this run.
    pub fn management_cluster_id(&self) -> String {
        format!("conformance-{}", self.run)
    }

    /// A name that the cloud takes, and that tells where it comes from.
    pub fn name(&self, label: &str) -> String {
        let longest = match self.info.limits.as_ref().map_or(0, |limits| limits.max_name_length) {
            length if length > 0 => length as usize,
            _ => 63,
        };
        let name = format!("oc-{}-{label}", self.run);
        name.chars()
            .take(longest)
            .collect::<String>()
            .trim_end_matches('-')
            .to_owned()
    }

    /// Whose something is.
    pub fn ownership(&self, cluster_uid: &str, object_uid: &str, name: &str) -> v1::Ownership {
        v1::Ownership {
            management_cluster_id: self.management_cluster_id(),
            cluster_uid: cluster_uid.to_owned(),
            object_uid: object_uid.to_owned(),
            namespace: "conformance".to_owned(),
            cluster_name: self.name("cluster"),
            object_name: name.to_owned(),
        }
    }

    /// Asks for a cluster with the valid config.
    pub fn create_cluster(&self, label: &str) -> v1::CreateClusterRequest {
        let key = new_key();
        let name = self.name(label);
        v1::CreateClusterRequest {
            meta: Some(meta(&key, 1)),
            ownership: Some(self.ownership(&key, &key, &name)),
            spec: Some(self.cluster_spec(&name, self.valid(ConfigTarget::Cluster))),
            credentials: Some(self.good.clone()),
            provider_state: Vec::new(),
        }
    }

    /// What a cluster shall be.
    pub fn cluster_spec(&self, name: &str, config: v1::OpaqueConfig) -> v1::ClusterSpec {
        let mut spec = v1::ClusterSpec {
            name: name.to_owned(),
            config: Some(config),
            pod_cidr_blocks: vec!["192.168.0.0/16".to_owned()],
            service_cidr_blocks: vec!["10.96.0.0/12".to_owned()],
            control_plane_endpoint: None,
            digest: Vec::new(),
        };
        spec.digest = digest::cluster_spec(&spec);
        spec
    }

    /// What a machine shall be.
    pub fn machine_spec(
        &self,
        name: &str,
        config: v1::OpaqueConfig,
        cluster: Option<v1::ClusterStatus>,
    ) -> v1::MachineSpec {
        let mut spec = v1::MachineSpec {
            name: name.to_owned(),
            kubernetes_version: self.config.kubernetes_version.clone().unwrap_or_default(),
            node_labels: [("outrigger.dev/conformance".to_owned(), self.run.clone())].into(),
            config: Some(config),
            cluster,
            ..Default::default()
        };
        spec.digest = digest::machine_spec(&spec);
        spec
    }

    /// Bootstrap data that does nothing, in a format that the provider takes. It holds a
    /// text that is found wherever it is told on.
    pub fn bootstrap(&self, words: &str) -> v1::BootstrapData {
        let format = self
            .info
            .bootstrap_formats()
            .next()
            .unwrap_or(v1::BootstrapFormat::CloudConfig);
        let secret = self.bootstrap_secret();
        let text = match format {
            v1::BootstrapFormat::Ignition => {
                format!(r#"{{"ignition":{{"version":"3.4.0"}},"x-conformance":"{words} {secret}"}}"#)
            }
            v1::BootstrapFormat::Raw => format!("#!/bin/sh\n# {words} {secret}\n"),
            _ => format!("#cloud-config\n# {words} {secret}\n"),
        };
        bootstrap(text.into_bytes(), format)
    }

    /// What stands in all bootstrap data of the run, and may stand nowhere else.
    pub fn bootstrap_secret(&self) -> String {
        format!("bootstrap-secret-{}", self.run)
    }

    /// Asks for a machine with the valid config.
    pub fn create_machine(&self, cluster: &Cluster, label: &str) -> v1::CreateMachineRequest {
        let key = new_key();
        let name = self.name(label);
        v1::CreateMachineRequest {
            meta: Some(meta(&key, 1)),
            ownership: Some(self.ownership(&cluster.uid, &key, &name)),
            spec: Some(self.machine_spec(&name, self.valid(ConfigTarget::Machine), Some(cluster.status.clone()))),
            bootstrap: Some(self.bootstrap(label)),
            credentials: Some(self.good.clone()),
            provider_state: Vec::new(),
        }
    }
}

/// A cluster that is ready for machines.
#[derive(Debug, Clone)]
pub struct Cluster {
    /// Its UID, which is its key too.
    pub uid: String,
    /// How it was asked for.
    pub request: v1::CreateClusterRequest,
    /// As last seen.
    pub status: v1::ClusterStatus,
}

/// What makes a replay recognisable.
pub fn meta(key: &str, generation: i64) -> v1::OperationMeta {
    v1::OperationMeta {
        idempotency_key: key.to_owned(),
        generation,
        fencing_epoch: 0,
        attempt: 1,
    }
}

/// What a create request will be found by.
pub trait Created {
    /// Its idempotency key.
    fn key(&self) -> String;
    /// What names it in Update, Delete and Exists: by key alone.
    fn reference(&self) -> v1::ResourceRef;
}

macro_rules! created {
    ($($request:ty),*) => {
        $(impl Created for $request {
            fn key(&self) -> String {
                self.meta.as_ref().map(|meta| meta.idempotency_key.clone()).unwrap_or_default()
            }

            fn reference(&self) -> v1::ResourceRef {
                v1::ResourceRef {
                    ownership: self.ownership.clone(),
                    idempotency_key: self.key(),
                    provider_id: String::new(),
                }
            }
        })*
    };
}

created!(v1::CreateMachineRequest, v1::CreateClusterRequest);

/// Asks whether it is there, by key alone.
pub fn machine_exists(request: &v1::CreateMachineRequest) -> v1::MachineExistsRequest {
    v1::MachineExistsRequest {
        r#ref: Some(request.reference()),
        config: request.spec.as_ref().and_then(|spec| spec.config.clone()),
        credentials: request.credentials.clone(),
        provider_state: Vec::new(),
    }
}

/// Asks for its removal, by key alone.
pub fn delete_machine(request: &v1::CreateMachineRequest) -> v1::DeleteMachineRequest {
    v1::DeleteMachineRequest {
        meta: request.meta.clone(),
        r#ref: Some(request.reference()),
        config: request.spec.as_ref().and_then(|spec| spec.config.clone()),
        credentials: request.credentials.clone(),
        provider_state: Vec::new(),
    }
}

/// Asks for a change to this spec, at this generation.
pub fn update_machine(
    request: &v1::CreateMachineRequest,
    spec: v1::MachineSpec,
    generation: i64,
) -> v1::UpdateMachineRequest {
    v1::UpdateMachineRequest {
        meta: Some(meta(&request.key(), generation)),
        r#ref: Some(request.reference()),
        spec: Some(spec),
        credentials: request.credentials.clone(),
        provider_state: Vec::new(),
    }
}

/// Asks whether it is there, by key alone.
pub fn cluster_exists(request: &v1::CreateClusterRequest) -> v1::ClusterExistsRequest {
    v1::ClusterExistsRequest {
        r#ref: Some(request.reference()),
        config: request.spec.as_ref().and_then(|spec| spec.config.clone()),
        credentials: request.credentials.clone(),
        provider_state: Vec::new(),
    }
}

/// Asks for its removal, by key alone.
pub fn delete_cluster(request: &v1::CreateClusterRequest) -> v1::DeleteClusterRequest {
    v1::DeleteClusterRequest {
        meta: request.meta.clone(),
        r#ref: Some(request.reference()),
        config: request.spec.as_ref().and_then(|spec| spec.config.clone()),
        credentials: request.credentials.clone(),
        provider_state: Vec::new(),
    }
}

/// Asks for a change to this spec, at this generation.
pub fn update_cluster(
    request: &v1::CreateClusterRequest,
    spec: v1::ClusterSpec,
    generation: i64,
) -> v1::UpdateClusterRequest {
    v1::UpdateClusterRequest {
        meta: Some(meta(&request.key(), generation)),
        r#ref: Some(request.reference()),
        spec: Some(spec),
        credentials: request.credentials.clone(),
        provider_state: Vec::new(),
    }
}

/// Changes a spec and makes its digest anew.
#[must_use]
pub fn changed(mut spec: v1::MachineSpec, change: impl FnOnce(&mut v1::MachineSpec)) -> v1::MachineSpec {
    change(&mut spec);
    spec.digest = digest::machine_spec(&spec);
    spec
}
