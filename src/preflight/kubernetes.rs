//! The cluster: its version, the definitions, the Plans, and what this account may do.

use futures::FutureExt;
use futures::future::join_all;
use k8s_openapi::api::authorization::v1::{ResourceAttributes, SelfSubjectAccessReview, SelfSubjectAccessReviewSpec};
use k8s_openapi::apiextensions_apiserver::pkg::apis::apiextensions::v1::CustomResourceDefinition;
use kube::api::{ListParams, PostParams};
use kube::{Api, Client, ResourceExt};

use super::{Check, CheckOutcome, Target};
use crate::api::{CRD_REVISION, CRD_REVISION_ANNOTATION, GROUP, Plan};

/// The oldest minor version of Kubernetes 1.
const OLDEST: u32 = 33;
const UPGRADE: &str = "Run `helm upgrade` with crds.install=true, or `kubectl apply -f crds/`";

pub const CHECKS: &[Check] = &[
    Check {
        name: "kubernetes/version",
        blocks_start: true,
        title: "Kubernetes is 1.33 or later",
        about: "Older API servers lack what the definitions and the admission policy use.",
        needs: None,
        writes: false,
        run: |target| version(target).boxed(),
    },
    Check {
        name: "kubernetes/crds",
        blocks_start: true,
        title: "the CustomResourceDefinitions are those of this version",
        about: "With older definitions, the API server drops fields that this version writes; with newer ones, this version \
                may not know fields that are in use.",
        needs: Some("kubernetes/version"),
        writes: false,
        run: |target| crds(target).boxed(),
    },
    Check {
        name: "kubernetes/plans",
        blocks_start: false,
        title: "there is a Plan",
        about: "Without Plans, customers cannot sign up.",
        needs: Some("kubernetes/crds"),
        writes: false,
        run: |target| plans(target).boxed(),
    },
    Check {
        name: "kubernetes/permissions",
        blocks_start: true,
        title: "this account may do what the controller does",
        about: "Checked in the controller's pod, or with --permissions. A missing right makes steps fail later.",
        needs: Some("kubernetes/version"),
        writes: false,
        run: |target| permissions(target).boxed(),
    },
];

fn client(target: &Target) -> Result<&Client, CheckOutcome> {
    let fix = "Name a kubeconfig with --kubeconfig or KUBECONFIG, and check that its cluster can be reached";
    target.kubernetes.as_ref().map_err(|why| CheckOutcome::failed(why.clone(), fix))
}

async fn version(target: &Target) -> CheckOutcome {
    let client = match client(target) {
        Ok(client) => client,
        Err(outcome) => return outcome,
    };
    let said = match client.apiserver_version().await {
        Ok(said) => said,
        Err(error) => {
            return CheckOutcome::failed(
                format!("the API server does not answer: {error}"),
                "Check that the cluster can be reached",
            );
        }
    };
    let number = |text: &str| text.chars().take_while(char::is_ascii_digit).collect::<String>().parse().unwrap_or(0);
    if (number(&said.major), number(&said.minor)) >= (1, OLDEST) {
        CheckOutcome::Ok(said.git_version)
    } else {
        CheckOutcome::failed(format!("it is {}", said.git_version), "Upgrade the cluster to 1.33 or later")
    }
}

async fn crds(target: &Target) -> CheckOutcome {
    let Ok(client) = client(target) else { return CheckOutcome::Skipped(String::new()) };
    let api: Api<CustomResourceDefinition> = Api::all(client.clone());
    for kind in ["tenants", "plans"] {
        let name = format!("{kind}.{GROUP}");
        let there = match api.get_opt(&name).await {
            Ok(Some(there)) => there,
            Ok(None) => return CheckOutcome::failed(format!("{name} is not installed"), UPGRADE),
            Err(kube::Error::Api(e)) if e.code == 403 => {
                return CheckOutcome::Skipped("this account may not read definitions".into());
            }
            Err(error) => {
                return CheckOutcome::failed(
                    format!("{name} cannot be read: {error}"),
                    "Check that the cluster can be reached",
                );
            }
        };
        let revision = there.annotations().get(CRD_REVISION_ANNOTATION).and_then(|r| r.parse().ok()).unwrap_or(0u32);
        if revision < CRD_REVISION {
            return CheckOutcome::failed(
                format!("{name} is of revision {revision}; this version needs {CRD_REVISION}"),
                UPGRADE,
            );
        }
        if revision > CRD_REVISION {
            return CheckOutcome::warning(
                format!("{name} is of revision {revision}, newer than this version's {CRD_REVISION}"),
                "Upgrade the operator to the version that the definitions came with",
            );
        }
    }
    CheckOutcome::Ok(format!("revision {CRD_REVISION}"))
}

async fn plans(target: &Target) -> CheckOutcome {
    let Ok(client) = client(target) else { return CheckOutcome::Skipped(String::new()) };
    match Api::<Plan>::all(client.clone()).list(&ListParams::default().limit(1)).await {
        Ok(list) if list.items.is_empty() => {
            CheckOutcome::warning("there is none", "Apply your Plans; examples/plans.yaml shows three")
        }
        Ok(_) => CheckOutcome::Ok(String::new()),
        Err(error) => {
            CheckOutcome::failed(format!("Plans cannot be read: {error}"), "Give this account the right to list Plans")
        }
    }
}

/// Group, resource with subresource, verb: of the watched namespaces, of the cluster, and of the operator's namespace.
const IN_WATCHED: [(&str, &str, &str); 13] = [
    (GROUP, "tenants", "list"),
    (GROUP, "tenants", "watch"),
    (GROUP, "tenants", "patch"),
    (GROUP, "tenants", "delete"),
    (GROUP, "tenants/status", "update"),
    ("", "secrets", "get"),
    ("", "secrets", "list"),
    ("", "secrets", "watch"),
    ("", "secrets", "create"),
    ("", "secrets", "update"),
    ("", "secrets", "delete"),
    ("events.k8s.io", "events", "create"),
    ("events.k8s.io", "events", "patch"),
];
const IN_CLUSTER: [(&str, &str, &str); 3] =
    [(GROUP, "plans", "list"), (GROUP, "plans", "watch"), (GROUP, "plans", "patch")];
const OWN: [(&str, &str, &str); 2] = [("coordination.k8s.io", "leases", "create"), ("", "secrets", "create")];

async fn permissions(target: &Target) -> CheckOutcome {
    if !target.permissions {
        return CheckOutcome::Skipped("runs in the controller's pod, or with --permissions".into());
    }
    let Ok(client) = client(target) else { return CheckOutcome::Skipped(String::new()) };
    let scopes: Vec<Option<String>> =
        if target.namespaces.is_empty() { vec![None] } else { target.namespaces.iter().cloned().map(Some).collect() };
    let mut asked = Vec::new();
    for scope in scopes {
        asked.extend(IN_WATCHED.iter().map(|right| (*right, scope.clone())));
    }
    asked.extend(IN_CLUSTER.iter().map(|right| (*right, None)));
    asked.extend(OWN.iter().map(|right| (*right, Some(target.operator_namespace.clone()))));
    let count = asked.len();
    let answers = join_all(asked.into_iter().map(|(right, scope)| allowed(client, right, scope))).await;
    let missing: Vec<_> = answers.into_iter().filter_map(Result::err).collect();
    if missing.is_empty() {
        return CheckOutcome::Ok(format!("{count} rights"));
    }
    CheckOutcome::failed(
        format!("this account may not: {}", missing.join(", ")),
        "Run `helm upgrade`, which brings the roles of this version, or add the rights to the account's role",
    )
}

/// Err names a right that is missing.
async fn allowed(
    client: &Client,
    (group, resource, verb): (&str, &str, &str),
    namespace: Option<String>,
) -> Result<(), String> {
    let (resource, subresource) = resource.split_once('/').map_or((resource, None), |(r, s)| (r, Some(s)));
    let place = namespace.as_deref().map_or(String::new(), |n| format!(" in {n}"));
    let review = SelfSubjectAccessReview {
        spec: SelfSubjectAccessReviewSpec {
            resource_attributes: Some(ResourceAttributes {
                group: Some(group.into()),
                resource: Some(resource.into()),
                subresource: subresource.map(Into::into),
                verb: Some(verb.into()),
                namespace,
                ..ResourceAttributes::default()
            }),
            ..SelfSubjectAccessReviewSpec::default()
        },
        ..SelfSubjectAccessReview::default()
    };
    let answer = Api::<SelfSubjectAccessReview>::all(client.clone()).create(&PostParams::default(), &review).await;
    let named = subresource.map_or_else(|| resource.to_owned(), |sub| format!("{resource}/{sub}"));
    match answer {
        Ok(review) if review.status.as_ref().is_some_and(|s| s.allowed) => Ok(()),
        Ok(_) => Err(format!("{verb} {named}{place}")),
        Err(error) => Err(format!("{verb} {named}{place} ({error})")),
    }
}
