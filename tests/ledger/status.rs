//! How a ledger says it is: to monitors, and to the preflight checks.

use std::time::{Duration, Instant};

use serde_json::{Value, json};

use crate::support::{Api, Folder, LIMIT, Program, command};

fn code((status, problem): &(u16, Value)) -> (u16, Option<&str>) {
    (*status, problem["code"].as_str())
}

#[tokio::test]
async fn metrics_have_an_address_of_their_own_and_the_api_is_not_there() {
    let folder = Folder::new("metrics");
    let program = Program::start(folder.path(), 0);
    let api = program.client();
    let inside = Api::at(&program.metrics, &program.metrics);
    for path in ["/metrics", "/log-level"] {
        assert_eq!(code(&api.get(path).await), (404, Some("no_such_path")), "{path}");
        assert_eq!(inside.get(path).await.0, 200, "{path}");
    }
    assert_eq!(code(&inside.get("/v1/status").await), (404, Some("no_such_path")));
    for door in [&api, &inside] {
        for path in ["/healthz", "/readyz"] {
            assert_eq!(door.get(path).await.0, 200, "{path}");
        }
    }
    let metrics = reqwest::get(format!("{}/metrics", inside.url)).await.expect("metrics").text().await.expect("text");
    let value = |name: &str| {
        let line = metrics.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(' '));
        line.and_then(|number| number.parse::<i64>().ok()).unwrap_or_else(|| panic!("{name}: {metrics}"))
    };
    assert_eq!(value("ledger_ready"), 1);
    assert!(
        0 < value("ledger_volume_free_bytes") && value("ledger_volume_free_bytes") < value("ledger_volume_size_bytes")
    );
    assert_eq!(value("ledger_snapshot_interval_seconds"), 0, "none is taken");
}

#[tokio::test]
async fn the_status_tells_the_time_and_when_the_latest_snapshot_was_taken() {
    let folder = Folder::new("status");
    let program = Program::start(folder.path(), 0);
    let (status, plain) = program.client().get("/v1/status").await;
    assert_eq!((status, &plain["snapshots"]), (200, &json!(null)), "{plain}");
    drop(program);
    let mut started = command(folder.path(), 0);
    let storage = folder.path().join("snapshots");
    started.args(["--snapshots", &format!("file://{}", storage.display()), "--snapshot-interval", "7m"]);
    let program = Program::of(started, folder.path());
    let start = Instant::now();
    loop {
        let (status, said) = program.client().get("/v1/status").await;
        assert_eq!((status, &said["snapshots"]["every_seconds"]), (200, &json!(420)), "{said}");
        if let (Some(now), Some(latest)) = (said["now"].as_str(), said["snapshots"]["latest"].as_str()) {
            assert!(latest <= now, "{said}");
            break;
        }
        assert!(start.elapsed() < LIMIT, "{said}");
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
}
