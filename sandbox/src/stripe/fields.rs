//! Fields that many objects have.

use serde_json::{Map, Value, json};

use super::Data;
use super::problem::Problem;

/// A parameter that must be there, with at most so many characters.
pub fn required<'a>(value: &'a Value, name: &str, longest: usize) -> Result<&'a str, Problem> {
    match value.as_str() {
        None | Some("") => Err(Problem {
            code: Some("parameter_missing"),
            ..Problem::invalid(format!("Missing required param: {name}."))
        }),
        Some(text) if text.chars().count() > longest => Err(Problem::invalid(format!(
            "Invalid string: {}; must be at most {longest} characters",
            text.chars().take(10).chain("…".chars()).collect::<String>()
        ))),
        Some(text) => Ok(text),
    }
}

pub fn text(p: &Value, key: &str) -> Value {
    p.get(key).cloned().unwrap_or(Value::Null)
}

pub fn metadata(p: &Value) -> Value {
    p.get("metadata").filter(|m| m.is_object()).cloned().unwrap_or_else(|| json!({}))
}

pub fn update(data: &mut Data, kind: &str, id: &str, p: &Value, fields: &[&str]) -> Result<Value, Problem> {
    let object = data.find(kind, id)?;
    for field in fields {
        if let Some(value) = p.get(field) {
            object[*field] = value.clone();
        }
    }
    for (key, value) in p["metadata"].as_object().unwrap_or(&Map::new()) {
        // An empty value removes a key: <https://docs.stripe.com/metadata#delete-metadata>
        match (value.as_str(), object["metadata"].as_object_mut()) {
            (Some(""), Some(there)) => drop(there.remove(key)),
            _ => object["metadata"][key] = value.clone(),
        }
    }
    Ok(object.clone())
}
