//! `OpenAI`, or what speaks its protocol: the key and the models of the Plans.

use futures::FutureExt;

use super::{Check, CheckOutcome, Target};

const KEY: &str = "Correct OPENAI_API_KEY and OPENAI_BASE_URL";

pub const CHECKS: &[Check] = &[
    Check {
        name: "openai/embedding",
        blocks_start: true,
        title: "the Plans' embedding models answer",
        about: "Sample documents, uploads and questions are embedded with them.",
        needs: None,
        writes: false,
        run: |target| embedding(target).boxed(),
    },
    Check {
        name: "openai/chat",
        blocks_start: false,
        title: "the Plans' chat models answer",
        about: "They write the answers.",
        needs: None,
        writes: false,
        run: |target| chat(target).boxed(),
    },
];

async fn embedding(target: &Target) -> CheckOutcome {
    let Some(openai) = &target.openai else { return CheckOutcome::failed("OPENAI_API_KEY is not set", "Set it") };
    let models = target.embedding_models().await;
    for model in &models {
        if let Err(error) = openai.embed(model, None, &["preflight"]).await {
            return refused(target, model, &error);
        }
    }
    CheckOutcome::Ok(models.join(", "))
}

async fn chat(target: &Target) -> CheckOutcome {
    let Some(openai) = &target.openai else { return CheckOutcome::Skipped("OPENAI_API_KEY is not set".into()) };
    let models = target.models(|models| vec![models.chat.to_string()]).await;
    for model in &models {
        if let Err(error) = openai.chat(model, "Answer with one word.", "Ready?").await {
            return refused(target, model, &error);
        }
    }
    CheckOutcome::Ok(models.join(", "))
}

fn refused(target: &Target, model: &str, error: &crate::providers::ProviderError) -> CheckOutcome {
    let fix = if error.status == Some(401) {
        KEY.to_owned()
    } else {
        format!("Name a model in the Plans that this key may use, instead of {model}")
    };
    CheckOutcome::of(target, error, &fix)
}
