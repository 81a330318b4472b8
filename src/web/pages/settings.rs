//! `/settings/advanced`: how documents are cut.

use std::sync::Arc;

use axum::Form;
use axum::extract::State;
use axum::http::{HeaderMap, StatusCode};
use axum::response::Response;
use kube::ResourceExt;
use minijinja::context;
use serde::Deserialize;
use serde_json::json;

use crate::api::Tenant;
use crate::api::tenant::Chunking;
use crate::web::App;

#[derive(Deserialize, Default)]
pub struct SettingsForm {
    #[serde(default)]
    csrf: String,
    /// `auto` or `custom`.
    #[serde(default)]
    chunking: String,
    #[serde(default)]
    max_characters: String,
    #[serde(default)]
    overlap_characters: String,
}

impl SettingsForm {
    fn of(tenant: &Tenant) -> Self {
        let chosen = tenant.spec.settings.chunking;
        let Chunking { max_characters, overlap_characters } = chosen.unwrap_or_default();
        Self {
            csrf: String::new(),
            chunking: if chosen.is_some() { "custom" } else { "auto" }.into(),
            max_characters: max_characters.to_string(),
            overlap_characters: overlap_characters.to_string(),
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

/// `GET /settings/advanced`
pub async fn show(State(app): State<Arc<App>>, headers: HeaderMap) -> Response {
    match app.customer(&headers).await {
        Ok(tenant) => page(&app, &headers, StatusCode::OK, &tenant, &SettingsForm::of(&tenant), "", false),
        Err(other) => other,
    }
}

fn page(
    app: &App,
    headers: &HeaderMap,
    status: StatusCode,
    tenant: &Tenant,
    form: &SettingsForm,
    error: &str,
    saved: bool,
) -> Response {
    let config = tenant.status.as_ref().and_then(|s| s.config.as_ref());
    let values = context! {
        custom => form.chunking == "custom", max_characters => form.max_characters,
        overlap_characters => form.overlap_characters, error, saved,
        embedding => config.map(|c| c.models.embedding.clone()),
    };
    app.show(status, "settings.html", headers, values)
}

/// `POST /settings/advanced`
pub async fn save(State(app): State<Arc<App>>, headers: HeaderMap, Form(form): Form<SettingsForm>) -> Response {
    let tenant = match app.own_customer(&headers, &form.csrf).await {
        Ok(tenant) => tenant,
        Err(other) => return other,
    };
    let chosen = match form.chosen() {
        Ok(chosen) => chosen,
        Err(error) => return page(&app, &headers, StatusCode::BAD_REQUEST, &tenant, &form, error, false),
    };
    let set = |tenant: &Tenant| {
        let changes = tenant.spec.settings.chunking != chosen;
        Ok(changes.then(|| json!({"spec": {"settings": {"chunking": chosen}}})))
    };
    match app.change_tenant(&tenant, set).await {
        Ok(changed) => {
            tracing::info!(target: "audit", event = "settings_changed", tenant = tenant.name_any());
            let tenant = changed.unwrap_or(tenant);
            page(&app, &headers, StatusCode::OK, &tenant, &SettingsForm::of(&tenant), "", true)
        }
        Err(problem) => app.sorry(&headers, problem),
    }
}
