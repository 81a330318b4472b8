//! Signing up by JSON, and reading the answers.

use serde_json::{Value, json};

use super::World;

pub fn signup_form(email: &str) -> Value {
    json!({"email": email, "company_name": "Analytical Engines", "password": "difference-engine", "plan": "starter",
        "accept_terms": true})
}

pub async fn sign_up(world: &World, form: &Value) -> reqwest::Response {
    world.http.post(format!("{}/signup", world.web)).json(form).send().await.expect("web answers")
}

/// The answer to a signup that must succeed.
pub async fn signed_up(world: &World, email: &str) -> Value {
    let answer = sign_up(world, &signup_form(email)).await;
    assert!(answer.status().is_success(), "{}", answer.status());
    answer.json().await.expect("JSON")
}

/// A field of an answer.
pub fn text<'a>(body: &'a Value, key: &str) -> &'a str {
    body[key].as_str().unwrap_or_else(|| panic!("{key} in {body}"))
}

/// The name of the Tenant, which its token begins with.
pub fn name(body: &Value) -> String {
    text(body, "token").split('.').next().expect("a name").to_owned()
}
