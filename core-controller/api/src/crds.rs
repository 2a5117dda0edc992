//! The CustomResourceDefinitions that the types give, as the API server wants them.
//!
//! Not for installing them: that takes a client.

use k8s_openapi::apiextensions_apiserver::pkg::apis::apiextensions::v1::CustomResourceDefinition;
use kube_core::CustomResourceExt;

use crate::{Cluster, Machine, MachineDeployment, MachineSet, Provider};

/// The definition of every kind, ready to be applied.
pub fn crds() -> Vec<CustomResourceDefinition> {
    vec![
        Provider::crd(),
        Cluster::crd(),
        Machine::crd(),
        MachineSet::crd(),
        MachineDeployment::crd(),
    ]
}
