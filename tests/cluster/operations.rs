//! Every operation on a tenant, one after the other, from the first payment to the certificate of erasure. The files
//! below test what may go wrong with each, so an operation that is added here is tested there as well.

mod kills;
mod outages;

use std::path::{Path, PathBuf};

use kube::api::Patch;
use serde_json::{Value, json};
use tenant_operator::api::status::{ExportState, PlanChangeState as State};
use tenant_operator::api::tenant::BillingMode;
use tenant_operator::api::{Phase, Tenant, conditions};
use tenant_operator_dev::apply_yaml;

use crate::support::{
    Size, World, closed, day_comes, document_limit, files, folder, paid, plan_change, plan_of_size, stripe_objects,
};

const LARGE: &str = "text-embedding-3-large";

/// The plans, as `support` knows them: both let the customer choose the embedding model.
const PLANS: [Size; 2] = [
    ("life-small", 1000, 10, "models: {embeddingLarge: text-embedding-3-large}"),
    ("life-large", 9000, 100, "models: {embeddingLarge: text-embedding-3-large}"),
];

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Operation {
    /// A payment, and everything that is set up after it.
    Begin,
    Upgrade,
    /// A smaller plan, scheduled for the end of the period.
    Downgrade,
    /// The larger plan after all.
    Stay,
    /// Another embedding model.
    Move,
    Address,
    NewKey,
    Suspend,
    Resume,
    Export,
    Leave,
    TakeBack,
    LeaveAgain,
    /// The day of the erasure comes.
    Erase,
}

/// In this order.
pub const LIFE: [Operation; 14] = [
    Operation::Begin,
    Operation::Upgrade,
    Operation::Downgrade,
    Operation::Stay,
    Operation::Move,
    Operation::Address,
    Operation::NewKey,
    Operation::Suspend,
    Operation::Resume,
    Operation::Export,
    Operation::Leave,
    Operation::TakeBack,
    Operation::LeaveAgain,
    Operation::Erase,
];

/// A world in which every operation works, and the folder of its exports.
pub async fn world(name: &str) -> (World, PathBuf) {
    let mut world = World::without_controller(name).await;
    let exports = folder(&format!("{}-exports", world.namespace));
    world.environment("EXPORTS_URL", &format!("file://{}", exports.display()));
    world.controller_args(&["--migration-overlap=1"]);
    for size in PLANS {
        apply_yaml(&world.client, &plan_of_size(size)).await.expect("the plan applies");
        world.sandbox.add_price(&format!("price_{}", size.0), size.1, "usd");
    }
    world.start_controller();
    world.start_web(&[]);
    world.create("acme", "life-small", BillingMode::Stripe).await;
    world.wait("acme", "waiting", |s| s.checkout.is_some()).await;
    (world, exports)
}

impl Operation {
    /// Asks for the operation, as a customer or an admin does.
    pub async fn ask(self, world: &World) {
        if self == Self::LeaveAgain {
            // A closure is named by its second: another one in the same second is the same.
            tokio::time::sleep(std::time::Duration::from_secs(1)).await;
        }
        let spec = match self {
            Self::Begin => return world.pay("acme").await,
            Self::Erase => return day_comes(world, "acme").await,
            Self::Upgrade | Self::Stay => json!({"plan": "life-large"}),
            Self::Downgrade => json!({"plan": "life-small"}),
            Self::Move => json!({"settings": {"embedding": "Large"}}),
            Self::Address => json!({"adminEmail": "grace@example.com"}),
            Self::NewKey => json!({"apiKeyGeneration": 2}),
            Self::Suspend => json!({"desired": "Suspended"}),
            Self::Export => json!({"exportRequest": "one"}),
            Self::Leave | Self::LeaveAgain => json!({"desired": "Deleted"}),
            Self::Resume | Self::TakeBack => json!({"desired": "Active"}),
        };
        let patch = Patch::Merge(json!({"spec": spec}));
        world.tenants().patch("acme", &Default::default(), &patch).await.expect("patched");
    }

    /// Whether everything about it is done: the phase, the providers, the e-mail.
    pub async fn is_done(self, world: &World) -> bool {
        let tenant = world.tenants().get("acme").await.expect("there");
        let status = tenant.status.clone().unwrap_or_default();
        let subscription = stripe_objects(world, "subscription").await.into_iter().next().unwrap_or_default();
        let price = subscription["items"]["data"][0]["price"]["unit_amount"].as_i64();
        let told = async |key: &str, times: usize| world.mails(key).await >= times;
        let (phase, change) = (status.phase, plan_change(&status));
        match self {
            Self::Begin => conditions::is_true(&status.conditions, "WelcomeEmailSent"),
            Self::Upgrade => {
                let applied =
                    (phase, change, document_limit(&status)) == (Some(Phase::Active), Some(State::Applied), 100);
                applied && price == Some(9000) && told("plan-changed", 1).await
            }
            Self::Downgrade => {
                change == Some(State::Scheduled) && price == Some(1000) && told("plan-scheduled", 1).await
            }
            Self::Stay => change != Some(State::Scheduled) && document_limit(&status) == 100 && price == Some(9000),
            Self::Move => is_moved(world, &tenant).await,
            Self::Address => {
                let email = stripe_objects(world, "customer").await[0]["email"].clone();
                email == "grace@example.com" && told("address-changed", 1).await
            }
            Self::NewKey => status.key_generation_at_stripe == Some(2),
            Self::Suspend => {
                let paused = !subscription["pause_collection"].is_null();
                phase == Some(Phase::Suspended) && paused && told("suspended", 1).await
            }
            Self::Resume => phase == Some(Phase::Active) && subscription["pause_collection"].is_null(),
            Self::Export => status.export.is_some_and(|e| e.state == ExportState::Ready),
            Self::Leave => closed(&status) && told("deletion-requested", 1).await,
            Self::TakeBack => phase == Some(Phase::Active) && subscription["cancel_at_period_end"] == false,
            Self::LeaveAgain => closed(&status) && told("deletion-requested", 2).await,
            Self::Erase => phase == Some(Phase::Deleted) && told("erased", 1).await,
        }
    }

    pub async fn wait(self, world: &World) {
        world.until(&format!("{self:?} is done"), async || self.is_done(world).await).await;
    }
}

async fn is_moved(world: &World, tenant: &Tenant) -> bool {
    let embedding = tenant.spec.data.as_ref().map(|data| data.embedding.to_string());
    let over = tenant.status.as_ref().is_some_and(|s| s.migration.is_none());
    let namespaces = world.sandbox_get("/_sandbox/pinecone").await["namespaces"].as_object().map(serde_json::Map::len);
    embedding.as_deref() == Some(LARGE) && over && namespaces == Some(1)
}

/// After the whole life: everything was made once and charged once, and nothing is left.
pub async fn assert_gone(world: &World, exports: &Path) {
    world.assert_transitions("acme").await;
    let (customers, subscriptions) =
        (stripe_objects(world, "customer").await, stripe_objects(world, "subscription").await);
    assert!(customers.len() == 1 && customers[0]["deleted"] == true, "{customers:?}");
    assert!(subscriptions.len() == 1 && subscriptions[0]["status"] == "canceled", "{subscriptions:?}");
    assert_eq!(paid(world).await, [1000, 8000], "the first period, and the larger plan for the whole of it");
    assert_eq!(world.sandbox_get("/_sandbox/state").await["refund"].as_array().map_or(0, Vec::len), 0);
    let pinecone = world.sandbox_get("/_sandbox/pinecone").await;
    assert_eq!((&pinecone["namespaces"], &pinecone["created"]), (&json!({}), &json!(2)), "{pinecone}");
    let secrets = world.secrets().list(&Default::default()).await.expect("listed");
    assert!(!secrets.items.iter().any(|s| s.metadata.name.as_deref().unwrap_or_default().starts_with("acme")));
    let tenant = world.tenants().get("acme").await.expect("the record");
    assert!(!json!(tenant).to_string().contains("@example.com"), "{tenant:#?}");
    let erasure = tenant.status.and_then(|status| status.erasure).expect("a certificate");
    assert!(erasure.lines.iter().all(|line| line.after == Some(0)), "{erasure:#?}");
    let left = files(exports);
    assert!(left.is_empty(), "{:?}", left.keys());
    for (key, times) in [("welcome", 1), ("plan-changed", 1), ("address-changed", 1), ("suspended", 1), ("erased", 1)] {
        assert_eq!(world.mails(key).await, times, "{key}");
    }
}

/// What the controller asked the providers from this call on, except for reads. Stripe's page is the customer's.
async fn changes(world: &World, from: usize) -> Vec<Value> {
    let log = world.sandbox_get("/_sandbox/requests").await;
    let calls = log.as_array().expect("a list").iter().skip(from);
    let ours = |call: &&Value| call["method"] != "GET" && !call["path"].as_str().is_some_and(|p| p.starts_with("/c/"));
    calls.filter(ours).cloned().collect()
}

async fn log_length(world: &World) -> usize {
    world.sandbox_get("/_sandbox/requests").await.as_array().expect("a list").len()
}
