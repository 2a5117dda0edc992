//! The CustomResourceDefinitions that the types give, as the API server wants them.
//!
//! The derives write most of it. What they cannot: rules about metadata, and that an optional field is left out rather than
//! null. Not for installing the definitions: that takes a client.

use k8s_openapi::apiextensions_apiserver::pkg::apis::apiextensions::v1::{
    CustomResourceDefinition, JSONSchemaProps, JSONSchemaPropsOrArray, JSONSchemaPropsOrBool, ValidationRule,
};
use kube_core::CustomResourceExt;

use crate::{Cluster, Machine, MachineDeployment, MachineSet, Provider};

/// Longest name of an object whose name becomes the value of a label, or a host name: a DNS label.
const LABEL_LENGTH: usize = 63;
/// What a MachineSet adds to its name to name a Machine: a dash and five characters.
const MACHINE_SUFFIX: usize = 6;
/// What a MachineDeployment adds to its name to name a MachineSet: a dash and ten characters.
const SET_SUFFIX: usize = 11;

/// The definition of every kind, ready to be applied.
pub fn crds() -> Vec<CustomResourceDefinition> {
    vec![
        finish(
            Provider::crd(),
            LABEL_LENGTH,
            "it is the value of a field and part of a path",
        ),
        finish(Cluster::crd(), LABEL_LENGTH, "it is the value of a label"),
        finish(Machine::crd(), LABEL_LENGTH, "it is a host name"),
        finish(
            MachineSet::crd(),
            LABEL_LENGTH - MACHINE_SUFFIX,
            "the names of its Machines are longer and must be host names",
        ),
        finish(
            MachineDeployment::crd(),
            LABEL_LENGTH - MACHINE_SUFFIX - SET_SUFFIX,
            "the names of its MachineSets and Machines are longer and must be host names",
        ),
    ]
}

/// Adds the rule about the object's name, and takes away what the derives write too much.
fn finish(mut crd: CustomResourceDefinition, longest_name: usize, why: &str) -> CustomResourceDefinition {
    for version in &mut crd.spec.versions {
        let Some(root) = version
            .schema
            .as_mut()
            .and_then(|schema| schema.open_api_v3_schema.as_mut())
        else {
            continue;
        };
        drop_null(root);
        root.x_kubernetes_validations
            .get_or_insert_default()
            .push(ValidationRule {
                rule: format!("size(self.metadata.name) <= {longest_name} && !self.metadata.name.contains('.')"),
                message: Some(format!(
                    "metadata.name must have at most {longest_name} characters and no dots: {why}"
                )),
                ..ValidationRule::default()
            });
    }
    crd
}

/// An optional field that is null would be stored as null, and its default would not come in: with null disallowed the API
/// server drops it before it fills in the default.
fn drop_null(schema: &mut JSONSchemaProps) {
    schema.nullable = None;
    if let Some(values) = schema.enum_.as_mut() {
        values.retain(|value| !value.0.is_null());
    }
    for property in schema
        .properties
        .iter_mut()
        .flat_map(|properties| properties.values_mut())
    {
        drop_null(property);
    }
    match schema.items.as_mut() {
        Some(JSONSchemaPropsOrArray::Schema(items)) => drop_null(items),
        Some(JSONSchemaPropsOrArray::Schemas(items)) => items.iter_mut().for_each(drop_null),
        None => {}
    }
    if let Some(JSONSchemaPropsOrBool::Schema(values)) = schema.additional_properties.as_mut() {
        drop_null(values);
    }
}
