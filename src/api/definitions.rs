//! The `CustomResourceDefinitions`, with the revision that tells older ones from newer ones.

use k8s_openapi::apiextensions_apiserver::pkg::apis::apiextensions::v1::{
    CustomResourceDefinition, JSONSchemaProps, JSONSchemaPropsOrArray,
};
use kube::{CustomResourceExt, ResourceExt};

use super::{Plan, Tenant};

/// Grows with each change of the definitions.
pub const CRD_REVISION: u32 = 11;
/// On the definitions: which revision they are of.
pub const CRD_REVISION_ANNOTATION: &str = "tenant-operator.dev/crd-revision";

/// Those of Tenant and Plan.
pub fn definitions() -> [CustomResourceDefinition; 2] {
    [Tenant::crd(), Plan::crd()].map(|mut crd| {
        crd.annotations_mut().insert(CRD_REVISION_ANNOTATION.into(), CRD_REVISION.to_string());
        for version in &mut crd.spec.versions {
            if let Some(schema) = version.schema.as_mut().and_then(|s| s.open_api_v3_schema.as_mut()) {
                without_foreign_formats(schema);
            }
        }
        crd
    })
}

/// The API server warns of formats that it does not know, such as schemars' `uint32`; the minimum of 0 says the same.
fn without_foreign_formats(schema: &mut JSONSchemaProps) {
    schema.format.take_if(|format| format.starts_with("uint"));
    for property in schema.properties.iter_mut().flat_map(|p| p.values_mut()) {
        without_foreign_formats(property);
    }
    if let Some(JSONSchemaPropsOrArray::Schema(items)) = &mut schema.items {
        without_foreign_formats(items);
    }
}
