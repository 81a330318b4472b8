//! The plans that every world knows, and how a test makes its own.

use kube::Api;
use kube::api::PostParams;
use serde_json::json;
use tenant_operator::api::Plan;

use super::World;

pub const PLANS: &str = include_str!("../../../examples/plans.yaml");
pub const PAID_PLAN: &str = "
apiVersion: tenant-operator.dev/v1alpha1
kind: Plan
metadata: {name: paid}
spec:
  stripePriceId: price_paid
  monthlyPrice: {amount: 4900}
  trialDays: 0
  sampleDocuments: [{id: sample_1, text: RAG means retrieval-augmented generation.}]
";
/// A plan: its name, what it costs in cents, the documents it holds, and what else it says.
pub type Size = (&'static str, i64, i64, &'static str);

/// Plans of every size, known to every world.
pub const SIZES: [Size; 4] = [
    ("tiny", 100, 1, "downgrades: Immediately"),
    ("small", 900, 1, ""),
    ("middle", 4900, 10, ""),
    ("large", 19_900, 100, ""),
];

pub fn plan_of_size((size, amount, documents, extra): Size) -> String {
    format!(
        "apiVersion: tenant-operator.dev/v1alpha1\nkind: Plan\nmetadata: {{name: {size}}}\nspec:\n  stripePriceId: price_{size}\n  \
         monthlyPrice: {{amount: {amount}}}\n  trialDays: 0\n  limits: {{documents: {documents}, queriesPerMonth: {amount}}}\n  \
         {extra}\n  sampleDocuments: [{{id: sample_1, text: RAG means retrieval-augmented generation.}}]\n"
    )
}

/// A plan without sample documents.
pub async fn create_plan(plans: &Api<Plan>, name: &str) {
    let plan: Plan = serde_json::from_value(json!({
        "apiVersion": "tenant-operator.dev/v1alpha1", "kind": "Plan", "metadata": {"name": name},
        "spec": {"monthlyPrice": {"amount": 1}, "sampleData": "None"},
    }))
    .expect("a plan");
    plans.create(&PostParams::default(), &plan).await.expect("the plan is taken");
}

/// A plan whose sample documents no other plan has, so that they must be embedded.
pub async fn create_plan_with_samples(world: &World, name: &str) {
    let plan: Plan = serde_json::from_value(json!({
        "apiVersion": "tenant-operator.dev/v1alpha1", "kind": "Plan", "metadata": {"name": name},
        "spec": {"monthlyPrice": {"amount": 1},
            "sampleDocuments": [{"id": "s", "text": format!("{name} in {}", world.namespace)}]},
    }))
    .expect("a plan");
    Api::all(world.client.clone()).create(&PostParams::default(), &plan).await.expect("the plan is taken");
}

/// A Plan without a price, with these limits.
pub fn plan_with(name: &str, limits: &str) -> String {
    format!(
        "apiVersion: tenant-operator.dev/v1alpha1
kind: Plan
metadata: {{name: {name}}}
spec:
  monthlyPrice: {{amount: 0}}
  limits: {{{limits}}}
  sampleDocuments: [{{id: sample_1, text: RAG means retrieval-augmented generation.}}]
"
    )
}
