//! Checks of access: the namespace of signups, and the admission policies of the chart.

use futures::FutureExt;
use k8s_openapi::api::admissionregistration::v1::ValidatingAdmissionPolicy;
use kube::api::ListParams;
use kube::{Api, ResourceExt};

use super::{Check, CheckOutcome, Target};
use crate::api::GROUP;

/// The chart notes here who is exempt from a policy.
const EXEMPT_ANNOTATION: &str = "tenant-operator.dev/exempt";

pub const CHECKS: &[Check] = &[
    Check {
        name: "access/signup-namespace",
        blocks_start: false,
        title: "signups have a namespace of their own",
        about: "Web may read every Secret of the namespace of signups. In the operator's own namespace, these include \
            the signing key and the providers' keys.",
        needs: None,
        writes: false,
        run: |target| std::future::ready(signup_namespace(target)).boxed(),
    },
    Check {
        name: "access/admission",
        blocks_start: false,
        title: "the admission policies are in force",
        about: "Shows who is exempt from them. Without them, every user who may write Tenants can approve them, and a stolen token of \
                web can write any Secret of the namespace of signups.",
        needs: None,
        writes: false,
        run: |target| admission(target).boxed(),
    },
];

fn signup_namespace(target: &Target) -> CheckOutcome {
    let own = &target.operator_namespace;
    match &target.signup_namespace {
        None => CheckOutcome::Skipped("TENANT_NAMESPACE is web's".into()),
        Some(namespace) if namespace != own => CheckOutcome::Ok(namespace.clone()),
        Some(_) => {
            let reason = format!("signups are in {own}, the operator's own namespace: web may read every key there");
            let fix = "Move the customers to another namespace (docs/operations.md), and set signupNamespace to it";
            if target.shared_signup_namespace {
                CheckOutcome::warning(reason, fix)
            } else {
                CheckOutcome::failed(reason, fix)
            }
        }
    }
}

async fn admission(target: &Target) -> CheckOutcome {
    let Ok(client) = &target.kubernetes else { return CheckOutcome::Skipped(String::new()) };
    let api: Api<ValidatingAdmissionPolicy> = Api::all(client.clone());
    let params = ListParams::default().labels("app.kubernetes.io/name=tenant-operator");
    let policies = match api.list(&params).await {
        Ok(policies) => policies.items,
        Err(kube::Error::Api(e)) if e.code == 403 => {
            return CheckOutcome::Skipped("this account may not list admission policies".into());
        }
        Err(error) => {
            return CheckOutcome::failed(
                format!("the admission policies cannot be read: {error}"),
                "Check that the cluster can be reached",
            );
        }
    };
    let ours = format!(".{}.{GROUP}", target.operator_namespace);
    let mut exempt: Vec<_> = policies
        .iter()
        .filter(|policy| policy.name_any().ends_with(&ours))
        .filter_map(|policy| policy.annotations().get(EXEMPT_ANNOTATION))
        .collect();
    exempt.sort();
    exempt.dedup();
    if exempt.is_empty() {
        return CheckOutcome::warning(
            format!("the release in namespace {} has none", target.operator_namespace),
            "Set admission.enabled=true in the chart's values",
        );
    }
    let named: Vec<&str> = exempt.into_iter().map(String::as_str).filter(|names| !names.is_empty()).collect();
    CheckOutcome::Ok(if named.is_empty() {
        "exempt: no account".into()
    } else {
        format!("exempt: {}", named.join(", "))
    })
}
