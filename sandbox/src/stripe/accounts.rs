//! Which account and mode an API key belongs to. Each has objects of its own, and answers 404 for those of another
//! (<https://docs.stripe.com/keys#test-live-modes>).

use std::collections::{BTreeMap, HashMap};
use std::sync::{Arc, Mutex};

use axum::Json;
use axum::extract::State;
use axum::http::{HeaderMap, StatusCode};
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

use super::{Account, Data};
use crate::{Shared, lock};

/// An account in one mode.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(default)]
pub struct Owner {
    /// `acct_...`
    pub account: String,
    /// Whether money moves.
    pub livemode: bool,
}

impl Default for Owner {
    fn default() -> Self {
        Self { account: "acct_sandbox".into(), livemode: false }
    }
}

/// The accounts and modes beside the sandbox's own, and the keys that open them.
#[derive(Debug, Default)]
pub struct Others {
    data: Mutex<BTreeMap<Owner, Arc<Mutex<Data>>>>,
    keys: Mutex<HashMap<String, Owner>>,
}

impl Account {
    /// Whether a key was registered for an account and a mode.
    pub(super) fn is_registered(&self, key: &str) -> bool {
        lock(&self.others.keys).contains_key(key)
    }

    /// The objects that a key reaches. A key that was never registered belongs to the sandbox's own account, in the
    /// mode that its prefix names.
    pub(super) fn of_key(&self, key: &str) -> Arc<Mutex<Data>> {
        let known = lock(&self.others.keys).get(key).cloned();
        let live = key.starts_with("sk_live") || key.starts_with("rk_live");
        let owner = known.unwrap_or_else(|| Owner { livemode: live, ..Owner::default() });
        if owner == Owner::default() {
            return self.data.clone();
        }
        let mut others = lock(&self.others.data);
        others.entry(owner.clone()).or_insert_with(|| Arc::new(Mutex::new(Data { owner, ..Data::default() }))).clone()
    }
}

/// The API key of a request: as a bearer, or as the user name of basic authentication, as curl's `-u` sends it.
pub fn bearer(headers: &HeaderMap) -> Option<String> {
    use base64::Engine;
    let value = headers.get("authorization")?.to_str().ok()?;
    if let Some(encoded) = value.strip_prefix("Basic ") {
        let decoded = base64::engine::general_purpose::STANDARD.decode(encoded).ok()?;
        return Some(String::from_utf8(decoded).ok()?.trim_end_matches(':').to_owned());
    }
    Some(value.strip_prefix("Bearer ").unwrap_or(value).to_owned())
}

/// Marks an answer as one of live mode.
pub fn mark(value: &mut Value) {
    match value {
        Value::Object(fields) => {
            for (name, field) in fields {
                if name == "livemode" { *field = json!(true) } else { mark(field) }
            }
        }
        Value::Array(all) => all.iter_mut().for_each(mark),
        _ => {}
    }
}

#[derive(Deserialize)]
pub(crate) struct Key {
    key: String,
    #[serde(flatten)]
    owner: Owner,
}

/// Makes a key known: `{"key": ..., "account": ..., "livemode": ...}`.
pub(crate) async fn add_key(State(s): State<Arc<Shared>>, Json(key): Json<Key>) -> StatusCode {
    lock(&s.stripe.others.keys).insert(key.key, key.owner);
    StatusCode::NO_CONTENT
}
