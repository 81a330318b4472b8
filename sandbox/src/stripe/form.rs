//! Stripe's form encoding: `a[b][0][c]=v`.

use serde_json::{Map, Value};

/// The nested object that a form or query spells. Numbers as keys stay keys: `{"line_items": {"0": {...}}}`.
pub fn parse(text: &str) -> Value {
    let mut root = Value::Object(Map::new());
    for (key, value) in url::form_urlencoded::parse(text.as_bytes()) {
        let mut place = &mut root;
        for part in key.split('[').map(|p| p.trim_end_matches(']')) {
            if !place.is_object() {
                *place = Value::Object(Map::new());
            }
            place = &mut place[if part.is_empty() { "0" } else { part }];
        }
        *place = Value::String(value.into_owned());
    }
    root
}

#[cfg(test)]
mod tests {
    #[test]
    fn brackets_nest() {
        let form = super::parse("mode=subscription&line_items[0][price]=p%201&metadata[a]=b&expand[]=x");
        let wanted = serde_json::json!({
            "mode": "subscription", "line_items": {"0": {"price": "p 1"}}, "metadata": {"a": "b"}, "expand": {"0": "x"},
        });
        assert_eq!(form, wanted);
    }
}
