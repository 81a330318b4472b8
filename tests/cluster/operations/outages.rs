//! One provider is away during each operation. An operation that needs the provider waits, names it, and resumes when
//! it is back. The other operations do not wait.

use std::time::Duration;

use serde_json::json;
use tenant_operator::api::Phase;

use super::{LIFE, Operation, assert_gone, world};
use crate::support::{Questions, World};

/// Several attempts, with the waits of a second that these controllers have.
const AWAY: Duration = Duration::from_secs(5);

/// From its beginning to its end questions are answered.
fn is_served(operation: Operation) -> bool {
    use Operation::{Address, Downgrade, Export, Move, Stay, Upgrade};
    matches!(operation, Upgrade | Downgrade | Stay | Move | Address | Export)
}

/// What must not wait for any provider: a key that leaked, a customer who is to be stopped, one who has left.
async fn is_in_effect(world: &World, operation: Operation, key_before: &str) -> bool {
    let phase = world.status("acme").await.phase;
    match operation {
        Operation::NewKey => world.api_key("acme").await != key_before,
        Operation::Suspend => phase == Some(Phase::Suspended),
        Operation::Leave | Operation::LeaveAgain => phase == Some(Phase::Deleting),
        _ => true,
    }
}

/// The operation is not done while the provider is away, and the controller does not give up.
async fn assert_waits(world: &World, operation: Operation) {
    let start = tokio::time::Instant::now();
    while start.elapsed() < AWAY {
        assert!(!operation.is_done(world).await, "{operation:?} needs it");
        assert_ne!(world.status("acme").await.phase, Some(Phase::Failed), "{operation:?} is given up");
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
}

/// A life in which a provider is away in each operation: these wait for it, the others are done meanwhile.
async fn life_without(provider: &str, status: u16, waits: &[Operation]) {
    let (world, exports) = world(&format!("no-{provider}")).await;
    let away = json!({"provider": provider, "status": status, "times": 1_000_000});
    for operation in LIFE {
        // What a question itself needs is not asked for in vain.
        let asks = is_served(operation) && matches!(provider, "stripe" | "smtp");
        let questions = if asks { Some(Questions::begin(&world, "acme").await) } else { None };
        if operation == Operation::Begin {
            // Stripe's own page takes the payment.
            operation.ask(&world).await;
            world.fault(away.clone()).await;
        } else {
            let key = world.api_key("acme").await;
            world.fault(away.clone()).await;
            operation.ask(&world).await;
            if operation != Operation::Erase {
                let what = format!("{operation:?} is in effect");
                world.until(&what, async || is_in_effect(&world, operation, &key).await).await;
            }
        }
        if waits.contains(&operation) {
            assert_waits(&world, operation).await;
            assert_said(&world, provider, operation).await;
        } else {
            operation.wait(&world).await;
        }
        world.clear_faults().await;
        operation.wait(&world).await;
        if let Some(questions) = questions {
            questions.more(&world, 1).await;
            questions.end().await;
        }
    }
    assert_gone(&world, &exports).await;
}

/// The status says which provider the tenant waits for. A late e-mail does not change the status; Events report it.
async fn assert_said(world: &World, provider: &str, operation: Operation) {
    let name = match provider {
        "stripe" => "Stripe",
        "pinecone" => "Pinecone",
        "openai" => "OpenAI",
        _ => return,
    };
    let what = format!("{operation:?} says that it waits for {name}");
    world.until(&what, async || world.status("acme").await.conditions.iter().any(|c| c.message.contains(name))).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn without_stripe_no_customer_pays_and_all_else_goes_on() {
    let waits: Vec<_> = LIFE.into_iter().filter(|operation| *operation != Operation::Move).collect();
    life_without("stripe", 503, &waits).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn without_pinecone_data_waits_and_all_else_goes_on() {
    use Operation::{Begin, Erase, Export, Move};
    life_without("pinecone", 503, &[Begin, Move, Export, Erase]).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn without_embeddings_only_what_embeds_waits() {
    life_without("openai", 503, &[Operation::Begin, Operation::Move]).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn without_mail_everything_is_done_and_told_later() {
    use Operation::{Address, Begin, Downgrade, Erase, Leave, LeaveAgain, Suspend, Upgrade};
    life_without("smtp", 451, &[Begin, Upgrade, Downgrade, Address, Suspend, Leave, LeaveAgain, Erase]).await;
}
