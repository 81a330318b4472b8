//! What the API server accepts, every part can read, and write again. One object that cannot be read would stop every list of its kind,
//! and with it the controller, web and the owners' pages.

use kube::api::{Api, DynamicObject, Patch, PatchParams, PostParams};
use kube::core::{ApiResource, GroupVersionKind};
use serde::Serialize;
use serde::de::DeserializeOwned;
use serde_json::{Map, Value, json};
use tenant_operator::api::{Plan, Tenant};

use crate::support::{ROOT, World};

/// Where a value is: the names of fields, and `[]` for the one item of a list, and `{}` for the one entry of a map.
type Path = Vec<String>;

/// What is put into a field that takes text.
const TEXTS: [&str; 24] = [
    "tried-login",
    "2026-01-01T00:00:00Z",
    "2026-01-01t00:00:00z",
    "2026-01-01T00:00:00.123456789+05:30",
    "2026-01-01T00:00:00.1234567891Z",
    "2026-01-01T00:00:00x5Z",
    "2026-01-01T00:00:00+24:00",
    "2026-01-01T00:00:00+99:99",
    "2026-01-01T23:59:60Z",
    "2026-02-30T00:00:00Z",
    "0000-01-01T00:00:00+23:59",
    "9999-12-31T23:59:59Z",
    "8999-12-31T23:59:59-23:59",
    "9999-12-31T23:59:59-23:59",
    "",
    "acme",
    "Acme \u{202e}\u{0} & <script>",
    "ada@example.com",
    "https://example.com/",
    "0123456789abcdef0123456789abcdef",
    "2026-01-01",
    "True",
    "USD",
    "eu-1",
];

fn numbers() -> [Value; 13] {
    [
        json!(300),
        json!(0),
        json!(1),
        json!(-1),
        json!(1.0),
        json!(1.5),
        json!(2_147_483_648_i64),
        json!(4_294_967_296_i64),
        json!(999_999_999_999_999_i64),
        json!(i64::MAX),
        json!(u64::MAX),
        json!(1e19),
        json!(1e300),
    ]
}

/// Every field that holds no other fields, with its schema.
fn leaves(schema: &Value, at: &Path, found: &mut Vec<(Path, Value)>) {
    let step = |name: &str| [at.clone(), vec![name.to_owned()]].concat();
    if let Some(fields) = schema["properties"].as_object() {
        fields.iter().for_each(|(name, field)| leaves(field, &step(name), found));
    } else if schema["items"].is_object() {
        leaves(&schema["items"], &step("[]"), found);
    } else if schema["additionalProperties"].is_object() {
        leaves(&schema["additionalProperties"], &step("{}"), found);
    } else {
        found.push((at.clone(), schema.clone()));
    }
}

fn candidates(schema: &Value) -> Vec<Value> {
    let mut all: Vec<Value> = schema["enum"].as_array().cloned().unwrap_or_default();
    match schema["type"].as_str() {
        Some("integer" | "number") => all.extend(numbers()),
        Some("boolean") => all.extend([json!(true), json!(false)]),
        Some("string") => all.extend(TEXTS.map(Value::from)),
        _ => all.extend([json!({}), json!({"a": [1e300, null]}), json!("text"), json!(7)]),
    }
    all.push(Value::Null);
    all
}

/// The least that a schema requires.
fn least(schema: &Value) -> Value {
    if !schema["default"].is_null() {
        return schema["default"].clone();
    }
    match schema["type"].as_str() {
        Some("object") => {
            let required = schema["required"].as_array().into_iter().flatten().filter_map(Value::as_str);
            required.map(|name| (name.to_owned(), least(&schema["properties"][name]))).collect::<Map<_, _>>().into()
        }
        Some("array") => json!([]),
        Some("integer" | "number") => {
            json!(
                schema["minimum"].as_f64().and_then(|least| format!("{least}").parse::<i64>().ok()).unwrap_or(1).max(1)
            )
        }
        Some("boolean") => json!(false),
        _ if schema["enum"].is_array() => schema["enum"][0].clone(),
        _ if schema["format"] == "date-time" => json!("2026-01-01T00:00:00Z"),
        _ => json!("acme"),
    }
}

/// `into` with `value` at this place, and around it the least that is required.
fn put(into: &mut Value, schema: &Value, path: &[String], value: Value) {
    let Some((name, rest)) = path.split_first() else {
        *into = value;
        return;
    };
    if into.is_null() {
        *into = least(schema);
    }
    let inner = match name.as_str() {
        "[]" => &schema["items"],
        "{}" => &schema["additionalProperties"],
        field => &schema["properties"][field],
    };
    if name == "[]" {
        let mut item = least(inner);
        put(&mut item, inner, rest, value);
        *into = json!([item]);
    } else {
        let name = if name == "{}" { "any" } else { name };
        let mut there = into[name].take();
        put(&mut there, inner, rest, value);
        into[name] = there;
    }
}

struct Kind {
    api: Api<DynamicObject>,
    schema: Value,
    /// One that is accepted.
    base: Value,
}

impl Kind {
    fn load(world: &World, file: &str, kind: &str, mut base: Value) -> Self {
        let text = std::fs::read_to_string(format!("{ROOT}/crds/{file}")).expect("a definition");
        let crd: Value = serde_yaml::from_str(&text).expect("YAML");
        let version = &crd["spec"]["versions"][0];
        let group = GroupVersionKind::gvk(
            crd["spec"]["group"].as_str().expect("a group"),
            version["name"].as_str().expect("a name"),
            kind,
        );
        let resource =
            ApiResource::from_gvk_with_plural(&group, crd["spec"]["names"]["plural"].as_str().expect("plural"));
        let api = if crd["spec"]["scope"] == "Namespaced" {
            Api::namespaced_with(world.client.clone(), &world.namespace, &resource)
        } else {
            Api::all_with(world.client.clone(), &resource)
        };
        base["apiVersion"] = json!(resource.api_version);
        base["kind"] = json!(kind);
        Self { api, schema: version["schema"]["openAPIV3Schema"].clone(), base }
    }

    /// Tries every field of the spec in a create, and of the status in a write of the status. What is accepted is read.
    /// Answers the fields that took a value, and those that took none.
    async fn try_all<K: DeserializeOwned + Serialize>(&self, part: &str) -> (usize, Vec<String>) {
        let schema = &self.schema["properties"][part];
        let mut fields = Vec::new();
        leaves(schema, &Vec::new(), &mut fields);
        let (mut taken, mut refused, mut unreadable) = (0, Vec::new(), Vec::new());
        for (path, leaf) in fields {
            let place = format!("{part}.{}", path.join("."));
            let mut accepted = 0;
            for value in candidates(&leaf) {
                let mut object = self.base.clone();
                put(&mut object[part], schema, &path, value.clone());
                let Some(answer) = self.offer(part, &object).await else { continue };
                accepted += 1;
                match serde_json::from_value::<K>(answer) {
                    Ok(read) if leaf["format"] == "date-time" => {
                        let again = serde_json::to_value(&read).expect("JSON");
                        let mut object = self.base.clone();
                        object[part] = again[part].clone();
                        let taken = self.offer(part, &object).await.is_some();
                        assert!(taken, "{place}: {value} is accepted, and not as it is written again: {object}");
                    }
                    Ok(_) => {}
                    Err(error) => unreadable.push(format!("{place}: {value}: {error}")),
                }
            }
            if accepted > 0 { taken += 1 } else { refused.push(place) }
        }
        assert!(unreadable.is_empty(), "accepted, and cannot be read:\n{}", unreadable.join("\n"));
        (taken, refused)
    }

    /// What the API server would keep, if it accepts the object.
    async fn offer(&self, part: &str, object: &Value) -> Option<Value> {
        let answer = if part == "status" {
            let name = object["metadata"]["name"].as_str().expect("a name");
            let params = PatchParams { dry_run: true, ..PatchParams::default() };
            self.api.patch_status(name, &params, &Patch::Merge(json!({"status": object["status"]}))).await
        } else {
            let params = PostParams { dry_run: true, ..PostParams::default() };
            self.api.create(&params, &serde_json::from_value(object.clone()).expect("an object")).await
        };
        match answer {
            Ok(kept) => Some(serde_json::to_value(kept).expect("JSON")),
            Err(kube::Error::Api(error)) if error.code < 500 => None,
            Err(error) => panic!("{error}"),
        }
    }
}

fn tenant(name: &str) -> Value {
    json!({"metadata": {"name": name}, "spec": {
        "companyName": "Acme", "adminEmail": "ada@example.com", "plan": "enterprise", "billing": {"mode": "Manual"}}})
}

#[tokio::test]
async fn every_tenant_that_is_accepted_can_be_read() {
    let world = World::without_controller("readable").await;
    let kind = Kind::load(&world, "tenants.yaml", "Tenant", tenant("tried"));
    let (taken, refused) = kind.try_all::<Tenant>("spec").await;
    println!("spec: {taken} fields; refused: {refused:?}");
    let there = serde_json::from_value(kind.base.clone()).expect("an object");
    kind.api.create(&PostParams::default(), &there).await.expect("a Tenant whose status is written");
    let (status, unwritten) = kind.try_all::<Tenant>("status").await;
    println!("status: {status} fields; refused: {unwritten:?}");
    assert!(refused.len() * 10 < taken, "no value fits these: {refused:?}");
    assert!(unwritten.len() * 10 < status, "no value fits these: {unwritten:?}");
}

#[tokio::test]
async fn every_plan_that_is_accepted_can_be_read() {
    let world = World::without_controller("readable-plans").await;
    let text = std::fs::read_to_string(format!("{ROOT}/examples/plans.yaml")).expect("examples");
    let first = text.split("\n---").next().expect("a Plan");
    let mut base: Value = serde_yaml::from_str(first).expect("YAML");
    base["metadata"] = json!({"name": "tried"});
    let kind = Kind::load(&world, "plans.yaml", "Plan", base);
    let (taken, refused) = kind.try_all::<Plan>("spec").await;
    println!("spec: {taken} fields; refused: {refused:?}");
    assert!(refused.len() * 10 < taken, "no value fits these: {refused:?}");
}
