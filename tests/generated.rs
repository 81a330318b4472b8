//! Fails if a generated file differs from the code, or if lists that must name the same things differ.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};
use std::process::Command;

const ROOT: &str = env!("CARGO_MANIFEST_DIR");
const BINARY: &str = env!("CARGO_BIN_EXE_tenant-operator");

fn read(path: &str) -> String {
    std::fs::read_to_string(Path::new(ROOT).join(path)).unwrap_or_else(|e| panic!("{path}: {e}"))
}

fn printed(args: &[&str]) -> String {
    let output = Command::new(BINARY).args(args).output().expect("it runs");
    assert!(output.status.success(), "{args:?}");
    String::from_utf8(output.stdout).expect("text")
}

#[test]
fn references_are_those_of_the_code() {
    for (args, path) in [
        (&["crds", "--reference"][..], "docs/crds.md"),
        (&["preflight", "--reference"], "docs/preflight.md"),
        (&["manual", "cli"], "docs/cli.md"),
        (&["manual", "metrics"], "docs/metrics.md"),
        (&["manual", "http"], "docs/http.md"),
        (&["manual", "lifecycle"], "docs/lifecycle.md"),
        (&["manual", "milestones"], "docs/milestones.md"),
    ] {
        assert!(printed(args) == read(path), "{path} has drifted: run `make generate`");
    }
    let programs = tenant_operator_dev::cli::page().expect("it is written");
    assert!(programs == read("docs/dev.md"), "docs/dev.md has drifted: run `make generate`");
    let check = Command::new(format!("{ROOT}/charts/generate")).arg("--check").output().expect("python3 runs");
    assert!(check.status.success(), "{}", String::from_utf8_lossy(&check.stderr));
}

#[test]
fn the_chart_has_the_definitions_and_reserved_fields_of_the_code() {
    let folder = PathBuf::from(env!("CARGO_TARGET_TMPDIR")).join("chart");
    printed(&["crds", "--chart", &folder.display().to_string()]);
    for file in ["crds/tenants.yaml", "crds/plans.yaml", "reserved.json"] {
        let fresh = std::fs::read_to_string(folder.join(file)).expect("made");
        let path = format!("charts/tenant-operator/files/{file}");
        assert!(fresh == read(&path), "{path} has drifted: run `make generate`");
    }
}

#[test]
fn the_chart_is_of_the_same_version() {
    let chart = read("charts/tenant-operator/Chart.yaml");
    let version = env!("CARGO_PKG_VERSION");
    assert!(
        chart.contains(&format!("\nversion: {version}\n")) && chart.contains(&format!("\nappVersion: {version}\n"))
    );
}

/// A setting of the chart starts with the default of the argument that it sets.
#[test]
fn the_chart_starts_with_the_defaults_of_the_code() {
    let column =
        |row: &str, column: usize| row.split('|').nth(column).unwrap_or_default().trim().replace(['`', '"'], "");
    let values = read("docs/values.md");
    let values = values.lines().filter(|row| row.starts_with("| `"));
    let values: BTreeMap<_, _> = values.map(|row| (column(row, 1), column(row, row.split('|').count() - 2))).collect();
    let commands = read("docs/cli.md");
    let template = read("charts/tenant-operator/templates/_helpers.tpl");
    let mut compared = 0;
    for entry in template.split("- name: ").skip(1) {
        let Some((name, rest)) = entry.split_once("\n  value: {{ .Values.") else { continue };
        let Some((value, _)) = rest.split_once(" | quote }}\n") else { continue };
        let arguments = commands.lines().filter(|row| row.starts_with("| `--") && column(row, 2) == name);
        for default in arguments.map(|row| column(row, 3)).filter(|default| !default.is_empty()) {
            assert_eq!(values.get(value), Some(&default), "{value} of the chart, and the default of {name}");
            compared += 1;
        }
    }
    assert!(compared > 15, "{compared}");
}

/// The words after a marker, to the end of their line.
fn after(text: &str, marker: &str) -> BTreeSet<String> {
    text.lines().filter_map(|line| line.trim().strip_prefix(marker)).map(|rest| rest.trim().to_owned()).collect()
}

#[test]
fn every_alert_has_a_runbook_and_is_seen_to_fire() {
    let alerts = after(&read("charts/tenant-operator/files/alerts.yaml"), "- alert:");
    assert!(alerts.len() >= 8, "{alerts:?}");
    let runbooks = after(&read("docs/runbooks.md"), "## ");
    assert!(alerts == runbooks, "alerts {alerts:?} and runbooks {runbooks:?} differ");
    let tests = read("tests/alerts/rules_test.yaml");
    for alert in alerts {
        let fires = tests
            .match_indices(&format!("alertname: {alert}\n"))
            .any(|(at, name)| tests[at + name.len()..].trim_start().starts_with("exp_alerts"));
        assert!(fires, "{alert} is never seen to fire in tests/alerts");
        assert!(
            tests.contains(&format!("alertname: {alert}}}")),
            "{alert} is never seen to stay silent in tests/alerts"
        );
    }
}

/// Metrics that alerts and dashboard read are metrics that the code has.
#[test]
fn alerts_and_dashboard_read_metrics_that_exist() {
    let dashboard: serde_json::Value =
        serde_json::from_str(&read("charts/tenant-operator/files/dashboard.json")).expect("JSON");
    let panels = dashboard["panels"].as_array().expect("panels");
    let exprs = panels.iter().filter_map(|panel| panel["targets"][0]["expr"].as_str());
    let alerts = exprs.fold(read("charts/tenant-operator/files/alerts.yaml"), |all, expr| all + "\n" + expr);
    let code = read("src/telemetry/metrics.rs");
    let names = alerts.split(|c: char| !c.is_ascii_alphanumeric() && c != '_').filter(|w| {
        ["controller_", "onboarding_", "stripe_", "workqueue_", "provider_", "step_", "kubernetes_", "ledger_"]
            .iter()
            .any(|p| w.starts_with(p))
    });
    let mut count = 0;
    for name in names {
        let base =
            ["_total", "_count", "_bucket"].iter().fold(name, |name, end| name.strip_suffix(end).unwrap_or(name));
        assert!(code.contains(&format!("\"{base}\"")), "{name} is not a metric");
        count += 1;
    }
    assert!(count > 18);
}

/// The reference has every metric that the code registers.
#[test]
fn the_reference_of_metrics_is_complete() {
    let (code, page) = (read("src/telemetry/metrics.rs"), read("docs/metrics.md"));
    let names = code.split("register(").skip(1).filter_map(|rest| rest.split('"').nth(1));
    let names: BTreeSet<_> =
        names.filter(|name| name.contains('_') || *name == "resyncs" || *name == "reconciles").collect();
    assert!(names.len() > 12, "{names:?}");
    for name in names {
        assert!(page.contains(&format!("`{name}`")) || page.contains(&format!("`{name}_total`")), "{name} is missing");
    }
}

/// What the README shows of an installation is part of docs/install.md, whose examples the tests on a node run.
#[test]
fn the_readme_installs_as_the_documentation_does() {
    let (readme, install) = (read("README.md"), read("docs/install.md"));
    let blocks = readme.split("\n```").skip(1).step_by(2).filter_map(|b| b.strip_prefix("sh trial\n"));
    let lines: Vec<_> = blocks.flat_map(str::lines).collect();
    assert!(!lines.is_empty());
    for line in lines {
        assert!(install.contains(&format!("\n{line}\n")), "docs/install.md has no {line:?}");
    }
}

/// The graph is one that can be drawn: each line an edge between two phases, and every phase that the table enters is
/// in it.
#[test]
fn the_lifecycle_is_printed_as_a_graph() {
    let (graph, table) = (printed(&["lifecycle", "--dot"]), printed(&["lifecycle"]));
    assert!(graph.starts_with("digraph lifecycle {") && graph.ends_with("}\n"), "{graph}");
    let edges = graph.lines().filter(|line| line.contains(" -> ")).count();
    assert_eq!(edges, table.lines().count() - 1, "{graph}\n{table}");
    for arrow in tenant_operator::lifecycle::TRANSITIONS {
        assert!(graph.contains(&format!(" -> {} [label=", arrow.to)), "{arrow:?}: {graph}");
    }
}

/// Each route of web has an entry in the table of limits, and each entry has a route.
#[test]
fn every_route_says_who_may_call_it_and_how_often() {
    let page = read("docs/http.md");
    let rows =
        page.lines().filter_map(|line| line.strip_prefix("| `")?.split_once("` |")).map(|(route, _)| route.to_owned());
    let listed: BTreeSet<_> = rows.collect();
    let code = read("src/web/routes.rs");
    let internet = code.split("pub fn metrics(").next().expect("the internet's routes");
    let mut routes = BTreeSet::new();
    for route in internet.split(".route(\"").skip(1) {
        let (path, rest) = route.split_once('"').expect("a path");
        let handlers = rest.split(".route(").next().expect("its handlers").lines().next().expect("one line");
        let methods = [
            ("GET", ["get(", " to("]),
            ("POST", ["post(", "post("]),
            ("DELETE", ["delete(", "delete("]),
            ("ANY", ["any(", "any("]),
        ];
        for (method, _) in methods.iter().filter(|(_, calls)| calls.iter().any(|call| handlers.contains(call))) {
            routes.insert(format!("{method} {path}"));
        }
    }
    let api = page.lines().filter_map(|line| line.strip_prefix("## ")).filter(|heading| heading.contains(' '));
    // A route of any method is described once.
    let any = |route: &&str| route.split_once(' ').is_some_and(|(_, path)| routes.contains(&format!("ANY {path}")));
    let api: Vec<_> = api.filter(|route| !any(route)).map(str::to_owned).collect();
    routes.extend(api);
    assert!(routes.len() > 60, "{routes:?}");
    let missing: Vec<_> = routes.difference(&listed).collect();
    assert!(missing.is_empty(), "no entry in src/web/serving/guards.rs: {missing:?}");
    let idle: Vec<_> = listed.difference(&routes).collect();
    assert!(idle.is_empty(), "entries of src/web/serving/guards.rs without a route: {idle:?}");
}

/// What only the cluster asks for: probes, what tells of the operator itself, gateways, and the owner's own services.
const INTERNAL: [&str; 7] =
    ["/health", "/healthz", "/readyz", "/authz", "/authz/", "/authz/{*rest}", "/v1/usage/events"];

/// A path that is forgotten in the chart is a page that works everywhere but behind an ingress.
#[test]
fn the_chart_routes_what_customers_reach_and_nothing_else() {
    let chart = read("charts/tenant-operator/templates/routes.yaml");
    let list = |name: &str| {
        let list = chart.split(name).nth(1).and_then(|rest| rest.split("}}").next()).expect("a list");
        list.split('"').skip(1).step_by(2).collect::<Vec<_>>()
    };
    let (exact, listed) = (list("$exact := list "), list("$paths := list "));
    let routed = |path: &str| {
        exact.contains(&path)
            || listed.iter().any(|p| path.strip_prefix(p).is_some_and(|rest| rest.is_empty() || rest.starts_with('/')))
    };
    let code = read("src/web/routes.rs");
    let internet = code.split("pub fn metrics(").next().expect("the internet's routes");
    let pages = internet.split(".route(\"").skip(1).filter_map(|rest| rest.split('"').next());
    let reference = read("docs/http.md");
    let api = reference.lines().filter_map(|line| line.strip_prefix("## "));
    let api: Vec<_> = api.filter_map(|line| line.split_whitespace().nth(1)).collect();
    assert!(api.len() > 15, "docs/http.md lists the API: {api:?}");
    let all: BTreeSet<_> = pages.chain(api).filter(|path| !INTERNAL.contains(path)).collect();
    let missing: Vec<_> = all.iter().filter(|path| !routed(path)).collect();
    assert!(missing.is_empty(), "not in $paths of charts/tenant-operator/templates/routes.yaml: {missing:?}");
    let served = |p: &str| all.iter().any(|path| if exact.contains(&p) { *path == p } else { path.starts_with(p) });
    let idle: Vec<_> = listed.iter().chain(&exact).filter(|p| !served(p)).collect();
    assert!(idle.is_empty(), "nothing is served at {idle:?}");
    for path in INTERNAL.into_iter().chain(["/metrics", "/admin", "/preflight"]) {
        assert!(!routed(path), "{path} stays inside");
    }
}
