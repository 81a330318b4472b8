//! The `CustomResourceDefinitions`, with the revision that tells older ones from newer ones.

use k8s_openapi::apiextensions_apiserver::pkg::apis::apiextensions::v1::{
    CustomResourceDefinition, JSONSchemaProps, JSONSchemaPropsOrArray,
};
use kube::{CustomResourceExt, ResourceExt};

use super::{Plan, Tenant};

/// Grows with each change of the definitions.
pub const CRD_REVISION: u32 = 13;
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

/// The API server warns of formats that it does not know, such as schemars' `uint32`. The minimum of 0 and a maximum say
/// the same. Without the maximum, the API server takes a number that no part can read, and one such object makes every
/// list unreadable.
fn without_foreign_formats(schema: &mut JSONSchemaProps) {
    if let Some(format) = schema.format.take_if(|format| format.starts_with("uint")) {
        schema.maximum.get_or_insert(if format == "uint64" { LARGEST_EXACT } else { f64::from(u32::MAX) });
    }
    for property in schema.properties.iter_mut().flat_map(|p| p.values_mut()) {
        without_foreign_formats(property);
    }
    if let Some(JSONSchemaPropsOrArray::Schema(items)) = &mut schema.items {
        without_foreign_formats(items);
    }
}

/// The largest integer that JSON's numbers hold exactly (RFC 8259, 6), 2^53 - 1.
const LARGEST_EXACT: f64 = 9_007_199_254_740_991.0;
