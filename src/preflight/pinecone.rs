//! Pinecone: the key, the index of each region, room for more tenants, and that one tenant's data stays its own.

use std::collections::BTreeMap;
use std::time::Duration;

use futures::FutureExt;
use futures::future::BoxFuture;
use kube::ResourceExt;

use super::{Check, CheckOutcome, Defect, Target, pinned};
use crate::pins::Finding;
use crate::providers::ProviderError;
use crate::providers::models::Embedder;
use crate::providers::vector_store::{IndexIdentity, Values, Vector, VectorStore};

/// Waits for what was written to become visible.
const LOOKS: [Duration; 5] = [
    Duration::from_millis(100),
    Duration::from_millis(400),
    Duration::from_secs(1),
    Duration::from_secs(3),
    Duration::from_secs(6),
];
const KEY: &str = "Correct PINECONE_API_KEY";

pub const CHECKS: &[Check] = &[
    Check {
        name: "pinecone/index",
        blocks_start: true,
        title: "the key is accepted and the index is there",
        about: "All tenants are namespaces of this one index, or of the index of their region (PINECONE_REGIONS).",
        needs: None,
        writes: false,
        run: |target| each(target, |target, pinecone| index(target, pinecone).boxed()).boxed(),
    },
    Check {
        name: "pinecone/pinned",
        blocks_start: false,
        title: "each index is the pinned one, which holds the tenants' documents",
        about: "An index that was deleted and made again is empty. The controller does nothing at another index, and \
            is not ready. \
                Before the first start, nothing is pinned yet.",
        needs: Some("pinecone/index"),
        writes: false,
        run: |target| same(target).boxed(),
    },
    Check {
        name: "pinecone/regions",
        blocks_start: false,
        title: "every Plan's region has an index",
        about: "A Plan whose region has none gets no payment links, and its tenants are not served.",
        needs: None,
        writes: false,
        run: |target| regions(target).boxed(),
    },
    Check {
        name: "pinecone/dimension",
        blocks_start: true,
        title: "the index has the dimension of the Plans' embedding models",
        about: "Vectors of another dimension are refused, and every tenant of the plan would fail.",
        needs: Some("pinecone/index"),
        writes: false,
        run: |target| each(target, |target, pinecone| dimension(target, pinecone).boxed()).boxed(),
    },
    Check {
        name: "pinecone/capacity",
        blocks_start: false,
        title: "there is room for more namespaces",
        about: "Pinecone's plan allows 100, 1,000 or 100,000 namespaces in an index; --pinecone-namespace-limit says \
            how many.",
        needs: Some("pinecone/index"),
        writes: false,
        run: |target| each(target, |target, pinecone| capacity(target, pinecone).boxed()).boxed(),
    },
    Check {
        name: "pinecone/namespace",
        blocks_start: false,
        title: "a namespace can be created and deleted",
        about: "Each tenant gets one.",
        needs: Some("pinecone/index"),
        writes: true,
        run: |target| each(target, |target, pinecone| namespace(target, pinecone).boxed()).boxed(),
    },
    Check {
        name: "pinecone/isolation",
        blocks_start: false,
        title: "a query sees its own namespace only",
        about: "Tenants are kept apart by namespaces.",
        needs: Some("pinecone/namespace"),
        writes: true,
        run: |target| each(target, |target, pinecone| isolation(target, pinecone).boxed()).boxed(),
    },
];

/// Checks each index. The first problem is the result.
async fn each(
    target: &Target,
    look: for<'a> fn(&'a Target, &'a dyn VectorStore) -> BoxFuture<'a, CheckOutcome>,
) -> CheckOutcome {
    let Some(indexes) = &target.indexes else { return CheckOutcome::failed("PINECONE_API_KEY is not set", "Set it") };
    let mut facts = Vec::new();
    for (region, pinecone) in indexes.each() {
        let named = |text: String| match region {
            Some(region) if !text.is_empty() => format!("{region}: {text}"),
            _ => text,
        };
        let of_region = |Defect { reason, fix }: Defect| Defect { reason: named(reason), fix };
        match look(target, pinecone).await {
            CheckOutcome::Ok(fact) => facts.push(named(fact)),
            CheckOutcome::Warning(problem) => return CheckOutcome::Warning(of_region(problem)),
            CheckOutcome::Failed(problem) => return CheckOutcome::Failed(of_region(problem)),
            skipped @ CheckOutcome::Skipped(_) => return skipped,
        }
    }
    facts.retain(|fact| !fact.is_empty());
    CheckOutcome::Ok(facts.join(", "))
}

async fn regions(target: &Target) -> CheckOutcome {
    let Some(indexes) = &target.indexes else { return CheckOutcome::Skipped("needs PINECONE_API_KEY".into()) };
    let regions = indexes.regions();
    let unsupported =
        target.plans().await.iter().find_map(|plan| regions.unsupported(&plan.name_any(), &plan.spec.region));
    match unsupported {
        Some(why) => CheckOutcome::failed(why, "Name an index for the region in PINECONE_REGIONS, or delete the Plan"),
        None => CheckOutcome::Ok(String::new()),
    }
}

async fn same(target: &Target) -> CheckOutcome {
    let Some(indexes) = &target.indexes else { return CheckOutcome::Skipped("needs PINECONE_API_KEY".into()) };
    let pins = match target.pins().await {
        Ok(pins) => pins,
        Err(outcome) => return outcome,
    };
    let mut found = BTreeMap::new();
    for (region, pinecone) in indexes.each() {
        match pinecone.identity().await {
            Ok(there) => drop(found.insert(region.map(str::to_owned), there)),
            Err(error) => return CheckOutcome::of(target, &error, KEY),
        }
    }
    let all: Vec<_> = indexes.each().into_iter().map(|(region, _)| pins.compare_index(region, &found)).collect();
    let another = all.iter().find(|finding| matches!(finding, Finding::Another { .. }));
    pinned(another.or(all.first()).cloned().unwrap_or(Finding::New))
}

async fn index(target: &Target, pinecone: &dyn VectorStore) -> CheckOutcome {
    match pinecone.identity().await {
        Ok(index) => CheckOutcome::Ok(format!("{} at {}", index.index, index.host)),
        Err(error) if error.is_not_found() => {
            CheckOutcome::failed(error.to_string(), "Create the index, or correct PINECONE_INDEX or PINECONE_REGIONS")
        }
        Err(error) => CheckOutcome::of(target, &error, KEY),
    }
}

async fn dimension(target: &Target, pinecone: &dyn VectorStore) -> CheckOutcome {
    let Some(openai) = &target.openai else {
        return CheckOutcome::Skipped("needs OPENAI_API_KEY, to learn the models' dimensions".into());
    };
    let index = match pinecone.identity().await {
        Ok(index) => index,
        Err(error) => return CheckOutcome::of(target, &error, KEY),
    };
    for model in target.embedding_models().await {
        let IndexIdentity { index: name, dimension, .. } = &index;
        let makes = match openai.embed(&model, Some(*dimension), &["preflight"]).await {
            Ok(embedded) => match embedded.vectors.first().map_or(0, Vec::len) {
                made if made as u64 == *dimension => continue,
                made => format!("vectors of {made} numbers"),
            },
            // More numbers than the model has.
            Err(error) if error.status == Some(400) => format!("no vectors of {dimension} numbers"),
            // A model that does not answer is reported by the check of OpenAI.
            Err(_) => continue,
        };
        return CheckOutcome::failed(
            format!("{model} makes {makes}, the index {name} takes {dimension}"),
            "Name another embedding model in the Plan, or create an index of that dimension",
        );
    }
    CheckOutcome::Ok(index.dimension.to_string())
}

async fn capacity(target: &Target, pinecone: &dyn VectorStore) -> CheckOutcome {
    let used = match pinecone.namespaces("").await {
        Ok(all) => all.len() as u64,
        Err(error) => return CheckOutcome::of(target, &error, KEY),
    };
    let limit = target.namespace_limit;
    let reason = format!("{used} of {limit} namespaces are in use");
    let fix = "Upgrade Pinecone's plan, or set --pinecone-namespace-limit to what yours allows";
    if used >= limit {
        CheckOutcome::failed(reason, fix)
    } else if used * 10 >= limit * 9 {
        CheckOutcome::warning(reason, fix)
    } else {
        CheckOutcome::Ok(reason)
    }
}

/// A random name, which no tenant's namespace has.
fn name() -> String {
    format!("preflight-{}", hex::encode(rand::random::<[u8; 6]>()))
}

async fn namespace(target: &Target, pinecone: &dyn VectorStore) -> CheckOutcome {
    let name = name();
    let made = async {
        pinecone.create_namespace(&name).await?;
        pinecone.delete_namespace(&name).await
    };
    match made.await {
        Ok(()) => CheckOutcome::Ok(String::new()),
        Err(error) => CheckOutcome::of(target, &error, "Give the key the right to write, and make room for namespaces"),
    }
}

async fn isolation(target: &Target, pinecone: &dyn VectorStore) -> CheckOutcome {
    let (own, other) = (name(), name());
    let outcome = match look(pinecone, &own, &other).await {
        Ok(Seen { own: true, other: false }) => CheckOutcome::Ok(String::new()),
        Ok(Seen { other: true, .. }) => CheckOutcome::failed(
            "a vector of one namespace was found from another",
            "Do not take customers: ask Pinecone's support, and check what is behind PINECONE_URL",
        ),
        Ok(Seen { own: false, .. }) => CheckOutcome::failed(
            "a vector was stored, and a query did not find it within 10 seconds",
            "Check Pinecone's status page: new tenants wait until their sample documents are found",
        ),
        Err(error) => CheckOutcome::of(target, &error, "Give the key the right to write and query"),
    };
    for name in [own, other] {
        drop(pinecone.delete_namespace(&name).await);
    }
    outcome
}

struct Seen {
    own: bool,
    other: bool,
}

async fn look(pinecone: &dyn VectorStore, own: &str, other: &str) -> Result<Seen, ProviderError> {
    let dimension = usize::try_from(pinecone.identity().await?.dimension).unwrap_or(0);
    let mut numbers = vec![0.0; dimension];
    if let Some(first) = numbers.first_mut() {
        *first = 1.0;
    }
    let values = Values::encode(&numbers)?;
    pinecone.create_namespace(own).await?;
    pinecone.create_namespace(other).await?;
    let vector = Vector { id: "preflight".into(), values: values.clone(), metadata: BTreeMap::new() };
    pinecone.upsert(own, &[vector]).await?;
    let mut seen = Seen { own: false, other: false };
    for wait in LOOKS {
        seen.own = !pinecone.query(own, &values, 1).await?.is_empty();
        seen.other = !pinecone.query(other, &values, 1).await?.is_empty();
        if seen.own || seen.other {
            break;
        }
        tokio::time::sleep(wait).await;
    }
    Ok(seen)
}
