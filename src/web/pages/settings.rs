//! `/settings/advanced`: how documents are cut, and which model embeds them.

use std::sync::Arc;

use axum::extract::State;
use axum::http::{HeaderMap, StatusCode};
use kube::{Api, ResourceExt};
use minijinja::context;
use minijinja::value::Serde;
use serde::Deserialize;
use serde_json::{Value, json};

use super::PageResult;
use super::extract::{CsrfForm, Customer};
use crate::api::migration::{EmbeddingSize, MigrationState};
use crate::api::plan::Models;
use crate::api::tenant::Chunking;
use crate::api::{Plan, Tenant};
use crate::web::App;
use crate::web::serving::extract::Then;
use crate::web::serving::problem::Problem;

#[derive(Deserialize, Default)]
pub struct SettingsForm {
    /// `auto` or `custom`.
    #[serde(default)]
    chunking: String,
    #[serde(default)]
    max_characters: String,
    #[serde(default)]
    overlap_characters: String,
    /// `small` or `large`; empty where there is no choice.
    #[serde(default)]
    embedding: String,
    /// The settings as the page showed them.
    #[serde(default)]
    seen: String,
}

/// Why the settings were not changed.
enum Refusal {
    /// The documents move to another model, or have just moved. The page keeps what was entered.
    Moving,
    /// The form is of a page that showed other settings. The page shows those of now.
    Changed,
    Problem(Problem),
}

impl From<Problem> for Refusal {
    fn from(problem: Problem) -> Self {
        Self::Problem(problem)
    }
}

const MOVING: &str = "Your documents were moved to another model a moment ago, or are still moving. Please choose \
    another model later.";
const CHANGED: &str = "The settings have changed since this page was shown. Please look at them again.";

fn seen(tenant: &Tenant) -> String {
    json!(tenant.spec.settings).to_string()
}

impl SettingsForm {
    fn of(tenant: &Tenant) -> Self {
        let chosen = tenant.spec.settings.chunking;
        let Chunking { max_characters, overlap_characters } = chosen.unwrap_or_default();
        Self {
            chunking: if chosen.is_some() { "custom" } else { "auto" }.into(),
            max_characters: max_characters.to_string(),
            overlap_characters: overlap_characters.to_string(),
            embedding: match tenant.spec.settings.embedding.unwrap_or_default() {
                EmbeddingSize::Small => "small".into(),
                EmbeddingSize::Large => "large".into(),
            },
            seen: seen(tenant),
        }
    }

    /// The embedding that was chosen; what there is where nothing was.
    fn embedding(&self, tenant: &Tenant) -> Option<EmbeddingSize> {
        let before = tenant.spec.settings.embedding;
        match (&*self.embedding, before) {
            ("large", _) => Some(EmbeddingSize::Large),
            ("small", Some(_)) => Some(EmbeddingSize::Small),
            _ => before,
        }
    }

    /// What was chosen, or what is wrong with it.
    fn chosen(&self) -> Result<Option<Chunking>, &'static str> {
        if self.chunking != "custom" {
            return Ok(None);
        }
        let number = |text: &str| text.trim().parse::<u32>().ok();
        let longest = number(&self.max_characters).filter(|n| (200..=4000).contains(n));
        let max_characters = longest.ok_or("The longest passage must have 200 to 4,000 characters.")?;
        let shared = number(&self.overlap_characters).filter(|n| *n <= 1000 && n * 2 <= max_characters);
        let overlap_characters =
            shared.ok_or("Neighbours may share at most 1,000 characters, and half of a passage.")?;
        Ok(Some(Chunking { max_characters, overlap_characters }))
    }
}

/// The tenant's models, and how far a move to another one is.
fn embeddings(tenant: &Tenant, models: Option<&Models>) -> Value {
    let migration = tenant.status.as_ref().and_then(|status| status.migration.as_deref());
    let state = migration.map(|migration| match migration.state {
        MigrationState::Copying | MigrationState::Copied | MigrationState::Switching => "moving",
        MigrationState::Switched => "moved",
        MigrationState::Failed => "failed",
    });
    json!({
        "now": tenant.embedding(), "small": models.map(|m| &m.embedding), "large": models.and_then(|m| m.embedding_large.as_ref()),
        "state": state, "to": migration.map(|m| &m.embedding), "vectors": migration.map(|m| m.vectors),
    })
}

/// The models of the tenant's plan: those that it was set up with, and what the Plan offers beside them.
async fn models(app: &App, tenant: &Tenant) -> Option<Models> {
    let config = tenant.status.as_ref()?.config.as_ref()?;
    let plan = match config.models.embedding_large {
        Some(_) => None,
        None => Api::<Plan>::all(app.client.clone()).get_opt(&config.plan).await.ok().flatten(),
    };
    Some(config.models.with_offer(plan.as_ref().map(|plan| &plan.spec.models)))
}

/// Whether a change of the embedding has to wait: each change has all documents of the tenant embedded again.
fn must_wait(tenant: &Tenant) -> bool {
    let migration = tenant.status.as_ref().and_then(|status| status.migration.as_deref());
    migration.is_some_and(|migration| migration.state != MigrationState::Failed)
}

/// `GET /settings/advanced`
pub async fn show(State(app): State<Arc<App>>, headers: HeaderMap, Customer(tenant): Customer) -> PageResult {
    page(&app, &headers, StatusCode::OK, &tenant, &SettingsForm::of(&tenant), "", false).await
}

async fn page(
    app: &App,
    headers: &HeaderMap,
    status: StatusCode,
    tenant: &Tenant,
    form: &SettingsForm,
    error: &str,
    saved: bool,
) -> PageResult {
    let models = models(app, tenant).await;
    let values = context! {
        custom => form.chunking == "custom", max_characters => &*form.max_characters,
        overlap_characters => &*form.overlap_characters, error, saved, seen => seen(tenant),
        large => form.embedding == "large", embedding => Serde(embeddings(tenant, models.as_ref())),
    };
    app.page(status, "settings.html", headers, values)
}

/// `POST /settings/advanced`
pub async fn save(
    State(app): State<Arc<App>>,
    headers: HeaderMap,
    Then(CsrfForm(form), Customer(tenant)): Then<CsrfForm<SettingsForm>, Customer>,
) -> PageResult {
    let chosen = match form.chosen() {
        Ok(chosen) => chosen,
        Err(error) => return page(&app, &headers, StatusCode::BAD_REQUEST, &tenant, &form, error, false).await,
    };
    let set = |tenant: &Tenant| {
        let (now, embedding) = (&tenant.spec.settings, form.embedding(tenant));
        // Of the very object that is written: of two forms that were sent at the same moment, one changes the settings.
        if embedding != now.embedding && must_wait(tenant) {
            return Err(Refusal::Moving);
        }
        if form.seen != seen(tenant) {
            return Err(Refusal::Changed);
        }
        let changes = now.chunking != chosen || now.embedding != embedding;
        Ok(changes.then(|| json!({"spec": {"settings": {"chunking": chosen, "embedding": embedding}}})))
    };
    match app.change_tenant_unless(&tenant, set).await {
        Ok(changed) => {
            tracing::info!(target: "audit", event = "settings_changed", tenant = tenant.name_any());
            let tenant = changed.unwrap_or(tenant);
            page(&app, &headers, StatusCode::OK, &tenant, &SettingsForm::of(&tenant), "", true).await
        }
        Err(Refusal::Moving) => page(&app, &headers, StatusCode::CONFLICT, &tenant, &form, MOVING, false).await,
        Err(Refusal::Changed) => {
            let tenant = app.tenants().get_opt(&tenant.name_any()).await.ok().flatten().unwrap_or(tenant);
            page(&app, &headers, StatusCode::CONFLICT, &tenant, &SettingsForm::of(&tenant), CHANGED, false).await
        }
        Err(Refusal::Problem(problem)) => Err(problem.into()),
    }
}
