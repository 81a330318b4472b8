//! Kills the controller at each call that changes something, in each operation: before the call is done, and after it
//! is done but before its answer arrives. One life without kills finds out which calls there are.

use std::collections::BTreeSet;

use futures::{StreamExt, stream};
use serde_json::{Value, json};

use super::{LIFE, Operation, assert_gone, changes, log_length, world};
use crate::support::World;

/// Lives at the same time.
const AT_ONCE: usize = 4;

/// A call that changes something at a provider, without the ids of the object in its path.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
struct Call {
    provider: String,
    method: String,
    path: String,
}

impl Call {
    fn of(call: &Value) -> Self {
        let text = |key: &str| call[key].as_str().unwrap_or_default().to_owned();
        let (provider, path) = (text("provider"), text("path"));
        // Up to the first part of the path that names an object.
        let named = |part: &&str| !part.starts_with("tenant_") && !part.contains('_');
        let kind: Vec<_> = path.split('/').take_while(named).collect();
        let path = if provider == "smtp" { String::new() } else { kind.join("/") };
        Self { provider, method: text("method"), path }
    }

    async fn hold(&self, world: &World, how: &str) {
        let Self { provider, method, path } = self;
        world.fault(json!({"provider": provider, "method": method, "path": path, how: 60_000})).await;
    }
}

/// The calls of each operation, each once, in their order.
async fn calls() -> Vec<Vec<Call>> {
    let (world, exports) = world("kills-none").await;
    let mut all = Vec::new();
    for operation in LIFE {
        let before = log_length(&world).await;
        operation.ask(&world).await;
        operation.wait(&world).await;
        let mut calls: Vec<Call> = Vec::new();
        for call in changes(&world, before).await.iter().map(Call::of) {
            if !calls.contains(&call) {
                calls.push(call);
            }
        }
        all.push(calls);
    }
    assert_gone(&world, &exports).await;
    all
}

/// Asks for it, and kills the controller as soon as that call is made. False when it was never made.
async fn killed_at(world: &mut World, operation: Operation, call: &Call, how: &str) -> bool {
    let before = log_length(world).await;
    call.hold(world, how).await;
    operation.ask(world).await;
    let made = async |world: &World| changes(world, before).await.iter().any(|there| Call::of(there) == *call);
    world.until("it is called, or done", async || made(world).await || operation.is_done(world).await).await;
    let made = made(world).await;
    if made {
        // Long enough for the work, where it is done before the answer is held.
        tokio::time::sleep(std::time::Duration::from_millis(200)).await;
        world.replace_controller();
    }
    world.clear_faults().await;
    made
}

/// A whole life, killed at the nth call of each operation. What it was killed at.
async fn life(n: usize, calls: &[Vec<Call>], how: &str) -> Vec<(usize, Call)> {
    let (mut world, exports) = world(&format!("kills-{n}")).await;
    let mut killed = Vec::new();
    for (index, operation) in LIFE.into_iter().enumerate() {
        match calls[index].get(n) {
            Some(call) => {
                if killed_at(&mut world, operation, call, how).await {
                    killed.push((index, call.clone()));
                }
            }
            None => operation.ask(&world).await,
        }
        operation.wait(&world).await;
    }
    assert_gone(&world, &exports).await;
    killed
}

async fn killed_at_each(how: &str) {
    let calls = calls().await;
    let most = calls.iter().map(Vec::len).max().unwrap_or_default();
    let lives = stream::iter(0..most).map(|n| life(n, &calls, how)).buffer_unordered(AT_ONCE);
    let killed: BTreeSet<_> = lives.collect::<Vec<_>>().await.into_iter().flatten().collect();
    let all: BTreeSet<_> = calls
        .iter()
        .enumerate()
        .flat_map(|(index, calls)| calls.iter().map(move |call| (index, call.clone())))
        .collect();
    // The operation before may have an echo: what it changed is looked at again when Stripe tells of it.
    let is_echo = |(index, call): &&(usize, Call)| *index > 0 && calls[index - 1].contains(call);
    let missed: Vec<_> = all.difference(&killed).filter(|missed| !is_echo(missed)).collect();
    assert!(missed.is_empty() && killed.len() > 20, "killed at {} calls, and never at {missed:?}", killed.len());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_controller_killed_before_a_call_is_done_makes_it_in_the_next_life() {
    killed_at_each("delay_ms").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_controller_killed_after_a_call_was_done_does_it_once() {
    killed_at_each("answer_delay_ms").await;
}
