//! What the operator alone may write on a Tenant. An admission policy refuses changes to these by any other user, and
//! the controller believes none of them without proof.

use super::{
    EMAIL_LABEL, ERASED_ANNOTATION, FINALIZER, LINKS_USED_ANNOTATION, MAIL_REQUESTS_ANNOTATION, PROOF_ANNOTATION,
    SENT_ANNOTATION, SESSIONS_ANNOTATION, SETUP_SKIPPED_ANNOTATION, SIGNUP_ANNOTATION, STRIPE_EVENT_ANNOTATION,
    TAKEN_OVER_ANNOTATION, UNSUBSCRIBED_ANNOTATION, USAGE_ANNOTATION, VERIFIED_ANNOTATION,
};

/// Fields of the spec, as paths from `spec`.
pub const SPEC_FIELDS: [&str; 5] = ["tenantId", "planInForce", "billing.stripe", "login", "data"];

/// Annotations. Those that users set are not here: `retry`, `force-delete` and `legal-hold` are requests to the
/// operator.
pub const ANNOTATIONS: [&str; 20] = [
    PROOF_ANNOTATION,
    SENT_ANNOTATION,
    SIGNUP_ANNOTATION,
    STRIPE_EVENT_ANNOTATION,
    USAGE_ANNOTATION,
    TAKEN_OVER_ANNOTATION,
    VERIFIED_ANNOTATION,
    MAIL_REQUESTS_ANNOTATION,
    LINKS_USED_ANNOTATION,
    SESSIONS_ANNOTATION,
    UNSUBSCRIBED_ANNOTATION,
    SETUP_SKIPPED_ANNOTATION,
    ERASED_ANNOTATION,
    "tenant-operator.dev/reached-email-verified",
    "tenant-operator.dev/reached-first-login",
    "tenant-operator.dev/reached-sample-query",
    "tenant-operator.dev/reached-first-document",
    "tenant-operator.dev/reached-own-query",
    "tenant-operator.dev/reached-ten-queries",
    "tenant-operator.dev/reached-completed",
];

/// Labels.
pub const LABELS: [&str; 1] = [EMAIL_LABEL];

/// Finalizers.
pub const FINALIZERS: [&str; 1] = [FINALIZER];

#[cfg(test)]
mod tests {
    use kube::CustomResourceExt;
    use serde_json::json;

    use super::*;

    #[test]
    fn every_milestone_is_reserved() {
        for milestone in crate::api::MILESTONES {
            assert!(ANNOTATIONS.contains(&&*crate::api::reached_annotation(milestone)), "{milestone}");
        }
    }

    #[test]
    fn every_reserved_field_is_one_of_the_definition() {
        let crd = json!(crate::api::Tenant::crd());
        let spec = &crd["spec"]["versions"][0]["schema"]["openAPIV3Schema"]["properties"]["spec"];
        for path in SPEC_FIELDS {
            let field = path.split('.').fold(spec, |at, part| &at["properties"][part]);
            assert!(field.is_object(), "spec.{path} is not a field of the CRD");
        }
    }
}
