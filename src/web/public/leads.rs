//! People who are not customers yet: those who ask for our sales team, and those who wait to be let in. Each is kept in
//! a Secret, which `kubectl tenant leads` lists, and the team is told.

use std::collections::BTreeMap;

use axum::http::StatusCode;
use k8s_openapi::ByteString;
use k8s_openapi::api::core::v1::{ConfigMap, Secret};
use kube::api::{ObjectMeta, Patch, PatchParams, PostParams};
use kube::{Api, ResourceExt};
use serde_json::json;
use strum::IntoStaticStr;

use crate::api::{
    ADMITTED_ANNOTATION, COMPONENT_LABEL, LEAD_COMPONENT, LEAD_COUNT, LEAD_COUNT_MAP, LEAD_LABEL, lead_secret,
};
use crate::email;
use crate::web::App;
use crate::web::serving::names::is_visible;
use crate::web::serving::problem::{Code, Problem};

/// Why a person writes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, IntoStaticStr)]
#[strum(serialize_all = "lowercase")]
pub enum LeadKind {
    /// To buy a plan that is sold by people.
    Sales,
    /// To be let in.
    Waitlist,
}

impl LeadKind {
    /// The name in labels and names.
    pub fn name(self) -> &'static str {
        self.into()
    }
}

/// What they write.
#[derive(Clone, Debug, Default)]
pub struct Lead {
    /// Their address.
    pub email: String,
    /// Their company.
    pub company: String,
    /// What they want to do.
    pub text: String,
    /// The plan that they ask about.
    pub plan: String,
}

/// What is wrong with each field; the normalized address when nothing is.
fn check(kind: LeadKind, lead: &Lead) -> Result<String, Problem> {
    let mut fields = BTreeMap::new();
    let visible = |text: &str| text.lines().all(is_visible);
    let email = email::parse(&lead.email).map_err(|why| fields.insert("email", why.to_string()));
    let company = lead.company.trim();
    let needed = usize::from(kind == LeadKind::Sales);
    if !(needed..=120).contains(&company.chars().count()) || !is_visible(company) {
        fields.insert("company_name", "must have 1 to 120 visible characters".into());
    }
    if !(1..=2000).contains(&lead.text.trim().chars().count()) || !visible(&lead.text) {
        fields.insert("text", "must have 1 to 2,000 characters".into());
    }
    if lead.plan.chars().count() > 253 || !is_visible(&lead.plan) {
        fields.insert("plan", "must be one of our plans".into());
    }
    match email {
        Ok(email) if fields.is_empty() => Ok(email),
        _ => Err(Problem::invalid(fields)),
    }
}

/// Keeps what a person wrote. A second message of the same person replaces it.
pub async fn keep_lead(app: &App, kind: LeadKind, lead: &Lead) -> Result<(), Problem> {
    let email = check(kind, lead)?;
    let name = lead_name(app, kind, &email);
    let text = |text: &str| ByteString(text.trim().as_bytes().to_vec());
    let data = BTreeMap::from([
        ("email".to_owned(), text(&email)),
        ("company".to_owned(), text(&lead.company)),
        ("text".to_owned(), text(&lead.text)),
        ("plan".to_owned(), text(&lead.plan)),
        ("at".to_owned(), text(&app.now().to_string())),
    ]);
    let labels = [(COMPONENT_LABEL, LEAD_COMPONENT), (LEAD_LABEL, kind.name())];
    let secret = Secret {
        metadata: ObjectMeta {
            name: Some(name.clone()),
            labels: Some(labels.map(|(k, v)| (k.into(), v.into())).into()),
            ..ObjectMeta::default()
        },
        data: Some(data.clone()),
        ..Secret::default()
    };
    if app.secrets().get_opt(&name).await?.is_none() {
        // Strangers fill neither the cluster nor the team's channel.
        app.leads.take(&()).map_err(Problem::too_many)?;
        has_room_for_leads(app).await?;
    }
    match app.secrets().create(&PostParams::default(), &secret).await {
        Ok(_) => tell_team(app, kind, lead, &email).await,
        Err(kube::Error::Api(e)) if e.code == 409 => {
            let change = Patch::Merge(json!({"data": data}));
            app.secrets().patch(&name, &PatchParams::default(), &change).await?;
        }
        Err(error) => return Err(error.into()),
    }
    tracing::info!(target: "audit", event = "lead", kind = kind.name());
    Ok(())
}

fn lead_name(app: &App, kind: LeadKind, email: &str) -> String {
    lead_secret(kind.name(), &app.identity.email_hash(email))
}

/// Whether fewer leads exist than the limit allows. Web may not list Secrets, so the controller publishes the
/// count. Until it has counted for the first time, only the limit of a day holds.
async fn has_room_for_leads(app: &App) -> Result<(), Problem> {
    let api: Api<ConfigMap> = Api::namespaced(app.client.clone(), &app.config.operator_namespace);
    let Some(map) = api.get_opt(LEAD_COUNT_MAP).await? else { return Ok(()) };
    let text = map.data.as_ref().and_then(|data| data.get(LEAD_COUNT)).map_or("", String::as_str);
    let count: u32 =
        text.parse().map_err(|e| Problem::internal("ConfigMap tenant-operator-leads holds no count", &e))?;
    if count < app.config.leads_limit.get() {
        return Ok(());
    }
    tracing::warn!(count, "the limit of leads is reached: delete old ones or raise LEADS_LIMIT");
    let detail = "We have more messages than we can answer at the moment. Please try again in a few days.";
    Err(Problem::new(StatusCode::SERVICE_UNAVAILABLE, Code::LeadsFull, detail))
}

/// Posts an alert about a lead. If the alert fails, the lead is kept.
async fn tell_team(app: &App, kind: LeadKind, lead: &Lead, email: &str) {
    let company = lead.company.trim();
    let text = match kind {
        LeadKind::Sales => {
            format!("{company} ({email}) asks for the sales team, plan {:?}: kubectl tenant leads", lead.plan)
        }
        LeadKind::Waitlist => format!("{email} joined the waitlist: kubectl tenant leads"),
    };
    if let Err(error) = app.alerts.send(&text).await {
        tracing::warn!(%error, "the team was not notified of a lead");
    }
}

/// Whether a person on a list was admitted.
pub async fn is_admitted(app: &App, kind: LeadKind, email: &str) -> Result<bool, Problem> {
    let there = app.secrets().get_opt(&lead_name(app, kind, email)).await?;
    Ok(there.is_some_and(|secret| secret.annotations().contains_key(ADMITTED_ANNOTATION)))
}
