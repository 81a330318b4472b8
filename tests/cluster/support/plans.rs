//! The plans that every world knows.

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
