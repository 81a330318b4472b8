//! `POST /activation/track`: what a customer's page or app says happened. The server's own knowledge counts; what
//! differs from it is counted too.

use std::num::NonZeroU32;
use std::sync::Arc;

use axum::Json;
use axum::extract::State;
use axum::http::{HeaderMap, StatusCode};
use kube::ResourceExt;
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};
use utoipa::ToSchema;

use crate::api::{MILESTONES, Tenant, reached_at};
use crate::events::Event;
use crate::web::App;
use crate::web::serving::problem::{Code, Problem, ProblemBody};

/// What only a client can know.
const SEEN_BY_CLIENTS: [&str; 3] = ["page_view", "setup_opened", "call_opened"];
/// Other names of milestones, as frontends that exist already send them, and our own.
const SYNONYMS: [(&str, &str); 6] = [
    ("first_query_executed", "sample_query"),
    ("first_query_success", "sample_query"),
    ("first_document_uploaded", "first_document"),
    ("own_documents", "first_document"),
    ("first_real_query_run", "own_query"),
    ("activation_completed", "completed"),
];
/// Fields of an event's metadata.
const FIELDS: usize = 20;
/// Characters of a field's name and of its value.
const LONGEST: usize = 200;
/// Bytes of an event's metadata in all, as JSON: a control character takes six.
const METADATA_BYTES: usize = 2048;
/// Events that the pages and apps of one tenant may send in a minute: each one is stored.
pub const CLAIMS_PER_MINUTE: NonZeroU32 = NonZeroU32::new(60).expect("not zero");

/// Something that happened.
#[derive(Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct Claim {
    /// The tenant's id.
    #[schema(example = "0b8f6f0e-6d1f-4d6e-9d55-8a1c7a2f4e10")]
    tenant_id: String,
    /// What happened: a milestone such as `sample_query` (or another name of it, such as `first_query_executed`), or
    /// `page_view`, `setup_opened`, `call_opened`.
    #[schema(example = "page_view")]
    event_type: String,
    /// What else is known: 20 texts, numbers and truths at most, 2048 bytes as JSON in all.
    #[serde(default)]
    #[schema(value_type = Object, example = json!({"page": "/account"}))]
    metadata: Map<String, Value>,
}

/// What became of it.
#[derive(Serialize, ToSchema)]
pub struct Tracked {
    /// Whether the server saw it too; null for what only a client can know.
    #[schema(example = true)]
    confirmed: Option<bool>,
}

/// Takes an event of a page or an app, 60 a minute for each tenant.
#[utoipa::path(
    post, path = "/activation/track", tag = "setup", request_body = Claim, security(("signup_token" = [])),
    responses((status = 202, body = Tracked, description = "The event is kept"), (status = 400, body = ProblemBody))
)]
pub async fn track(
    State(app): State<Arc<App>>,
    headers: HeaderMap,
    Json(claim): Json<Claim>,
) -> Result<(StatusCode, Json<Tracked>), Problem> {
    let tenant = app.by_token(&headers, &claim.tenant_id).await?;
    app.claims.take(&tenant.uid().unwrap_or_default()).map_err(Problem::too_many)?;
    check(&claim)?;
    let name = ours(&claim.event_type);
    let confirmed = seen(&tenant, name);
    if confirmed == Some(false) {
        app.metrics.activation_unconfirmed.get_or_create(&name.into()).inc();
    }
    app.happened(&Event::claim(&tenant, name, claim.metadata, app.now()));
    Ok((StatusCode::ACCEPTED, Json(Tracked { confirmed })))
}

/// Whether the server saw it too; None for what only a client can know.
fn seen(tenant: &Tenant, event_type: &str) -> Option<bool> {
    let milestone = event_type.replace('_', "-");
    MILESTONES.contains(&&*milestone).then(|| reached_at(tenant, &milestone).is_some())
}

/// Our name of an event.
fn ours(event_type: &str) -> &str {
    SYNONYMS.iter().find(|(theirs, _)| *theirs == event_type).map_or(event_type, |(_, ours)| ours)
}

fn check(claim: &Claim) -> Result<(), Problem> {
    let bad = |detail: String| Err(Problem::new(StatusCode::BAD_REQUEST, Code::Invalid, detail));
    let milestones = MILESTONES.map(|name| name.replace('-', "_"));
    let mut known = milestones.iter().map(String::as_str).chain(SEEN_BY_CLIENTS);
    if !known.any(|name| name == ours(&claim.event_type)) {
        let names: Vec<_> = milestones.iter().map(String::as_str).chain(SEEN_BY_CLIENTS).collect();
        return bad(format!("event_type must be one of {}", names.join(", ")));
    }
    let short = |text: &str| text.chars().count() <= LONGEST;
    let plain = |value: &Value| match value {
        Value::String(text) => short(text),
        other => !other.is_array() && !other.is_object(),
    };
    if claim.metadata.len() > FIELDS || !claim.metadata.iter().all(|(name, value)| short(name) && plain(value)) {
        return bad(format!(
            "metadata must have at most {FIELDS} fields, each a number, a truth or a text of {LONGEST} characters"
        ));
    }
    let bytes = serde_json::to_vec(&claim.metadata).map_err(|e| Problem::internal("metadata", &e))?.len();
    if bytes > METADATA_BYTES {
        return bad(format!(
            "metadata takes {bytes} bytes as JSON, and may take {METADATA_BYTES}: send fewer or shorter fields"
        ));
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn refused(metadata: impl IntoIterator<Item = (String, Value)>) -> Option<String> {
        let metadata = metadata.into_iter().collect();
        let claim = Claim { tenant_id: "a".into(), event_type: "page_view".into(), metadata };
        check(&claim).err().map(|problem| problem.detail().to_owned())
    }

    #[test]
    fn the_metadata_of_an_event_is_small() {
        let fields = |count: usize, text: &str| {
            let text = text.to_owned();
            (0..count).map(move |n| (n.to_string(), Value::from(text.clone()))).collect::<Vec<_>>()
        };
        assert_eq!(refused(fields(FIELDS, &"x".repeat(80))), None);
        let why = refused(fields(FIELDS, &"x".repeat(LONGEST))).expect("more than 2048 bytes");
        assert!(why.contains("bytes as JSON, and may take 2048"), "{why}");
        assert!(refused(fields(2, &"\u{1}".repeat(LONGEST))).is_some(), "a control character takes six bytes");
        assert!(refused(fields(FIELDS + 1, "x")).is_some_and(|why| why.contains("at most 20 fields")));
    }
}
