//! A volume that is lost: the ledger begins with its latest snapshot.

use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use tenant_operator::api::Timestamp;
use tenant_operator::ledger::snapshots::Snapshots;
use tenant_operator::ledger::store::Store;
use tenant_operator::ledger::store::sqlite::Sqlite;

use crate::conformance::{Client, NOON, queries};
use crate::support::Folder;

/// A ledger's folder, and the storage of its snapshots.
struct Volume {
    folder: Folder,
    storage: Folder,
}

impl Volume {
    fn new() -> Self {
        Self { folder: Folder::new("volume"), storage: Folder::new("snapshots") }
    }

    fn snapshots(&self) -> Snapshots {
        let url = format!("file://{}", self.storage.path().display());
        Snapshots::open(&url, Duration::from_mins(5)).expect("a folder")
    }

    async fn open(&self) -> Result<Arc<Sqlite>, String> {
        let opened = Sqlite::open_or_restore(self.folder.path(), &self.snapshots()).await;
        opened.map(Arc::new).map_err(|error| error.to_string())
    }

    fn lose(&self) {
        std::fs::remove_dir_all(self.folder.path()).expect("removed");
    }

    /// The files of the storage, in order.
    fn files(&self) -> Vec<std::path::PathBuf> {
        let below = |folder: &Path| {
            std::fs::read_dir(folder).expect("a folder").flatten().map(|entry| entry.path()).collect::<Vec<_>>()
        };
        let mut files: Vec<_> = below(self.storage.path()).iter().flat_map(|folder| below(folder)).collect();
        files.sort();
        files
    }
}

fn client(ledger: &Arc<Sqlite>) -> Client {
    Client::of(&(ledger.clone() as Arc<dyn Store>), "acme")
}

fn at(minute: i64) -> Timestamp {
    Timestamp::from_second(NOON + minute * 60)
}

#[tokio::test(flavor = "multi_thread")]
async fn a_lost_volume_begins_with_the_latest_snapshot_and_no_line_has_a_number_twice() {
    let volume = Volume::new();
    let ledger = volume.open().await.expect("a new ledger");
    let counted = client(&ledger);
    counted.settle("first", queries(3)).await.expect("settled");
    volume.snapshots().take(&ledger, at(0)).await.expect("a snapshot");
    counted.settle("second", queries(4)).await.expect("settled");
    volume.snapshots().take(&ledger, at(5)).await.expect("a snapshot");
    counted.settle("lost", queries(100)).await.expect("settled");
    let known = ledger.lines(0, 10).await.expect("lines");
    drop((ledger, counted));
    volume.lose();
    let restored = volume.open().await.expect("the snapshot");
    client(&restored).has("after the loss", queries(7), queries(0)).await.expect("what the latest snapshot holds");
    // The client that was told of the lost one repeats nothing; one that was not does, and counts once.
    client(&restored).settle("second", queries(4)).await.expect("settled");
    client(&restored).settle("third", queries(1)).await.expect("settled");
    client(&restored).has("after more", queries(8), queries(0)).await.expect("counted");
    let lines = restored.lines(0, 10).await.expect("lines");
    assert_eq!(lines.len(), 3);
    let last = known.last().expect("the lost line").seq;
    assert!(lines[2].seq > last, "{} was the number of a lost line, and {} is given now", last, lines[2].seq);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_damaged_snapshot_gives_way_to_the_one_before_and_none_is_guessed() {
    let volume = Volume::new();
    let ledger = volume.open().await.expect("a new ledger");
    client(&ledger).settle("first", queries(3)).await.expect("settled");
    volume.snapshots().take(&ledger, at(0)).await.expect("a snapshot");
    client(&ledger).settle("second", queries(4)).await.expect("settled");
    volume.snapshots().take(&ledger, at(5)).await.expect("a snapshot");
    drop(ledger);
    let files = volume.files();
    assert_eq!(files.len(), 2);
    std::fs::write(
        &files[1],
        "nonsense that is no database at all, and longer than a header of one would be: 100 bytes and more of it",
    )
    .expect("damaged");
    volume.lose();
    let restored = volume.open().await.expect("the one before");
    client(&restored).has("from the one before", queries(3), queries(0)).await.expect("what it holds");
    drop(restored);
    // Without any that can be used, it does not begin anew.
    std::fs::copy(&files[1], &files[0]).expect("damaged too");
    volume.lose();
    let said = volume.open().await.expect_err("no ledger");
    assert!(said.contains("none of the 2 snapshots") && said.contains("is not a ledger"), "{said}");
    // Nor does it take another's.
    let other = volume.storage.path().join("ledger-ffffffffffffffff");
    std::fs::create_dir_all(&other).expect("a folder");
    std::fs::copy(&files[0], other.join("001800014400.db")).expect("another's");
    let said = volume.open().await.expect_err("no ledger");
    assert!(said.contains("holds snapshots of 2 ledgers"), "{said}");
}

#[tokio::test(flavor = "multi_thread")]
async fn the_log_of_a_database_that_is_gone_is_set_aside_and_not_written_into_the_copy() {
    let volume = Volume::new();
    let ledger = volume.open().await.expect("a new ledger");
    client(&ledger).settle("first", queries(3)).await.expect("settled");
    volume.snapshots().take(&ledger, at(0)).await.expect("a snapshot");
    for n in 0..200 {
        client(&ledger).settle(&format!("lost {n}"), queries(1)).await.expect("settled");
    }
    let log = volume.folder.path().join("ledger.db-wal");
    let crashed = std::fs::read(&log).expect("the log of a ledger that runs");
    drop(ledger);
    assert!(!log.exists(), "a ledger that ends writes its log into the database");
    std::fs::write(&log, &crashed).expect("as a crash leaves it");
    std::fs::remove_file(volume.folder.path().join("ledger.db"))
        .expect("the damaged file is moved away, as the page says");
    let restored = volume.open().await.expect("the snapshot");
    client(&restored).has("what the snapshot holds", queries(3), queries(0)).await.expect("nothing of the log");
    let aside = volume.folder.path().join("ledger.db-wal.before-restoration");
    assert_eq!(std::fs::read(aside).expect("set aside"), crashed);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_wrong_clock_when_a_snapshot_was_taken_makes_no_older_one_the_latest() {
    let volume = Volume::new();
    let ledger = volume.open().await.expect("a new ledger");
    client(&ledger).settle("first", queries(3)).await.expect("settled");
    let a_year = 365 * 24 * 60;
    volume.snapshots().take(&ledger, at(a_year)).await.expect("a snapshot");
    for minute in 0..30 {
        client(&ledger).settle(&format!("operation {minute}"), queries(1)).await.expect("settled");
        volume.snapshots().take(&ledger, at(minute)).await.expect("a snapshot");
    }
    drop(ledger);
    volume.lose();
    let restored = volume.open().await.expect("the latest snapshot");
    client(&restored).has("the latest", queries(33), queries(0)).await.expect("all of it");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_copy_without_lines_passes_over_numbers_too() {
    let volume = Volume::new();
    let ledger = volume.open().await.expect("a new ledger");
    volume.snapshots().take(&ledger, at(0)).await.expect("a snapshot");
    client(&ledger).settle("lost", queries(1)).await.expect("settled");
    drop(ledger);
    volume.lose();
    let restored = volume.open().await.expect("the snapshot");
    client(&restored).settle("first", queries(1)).await.expect("settled");
    let lines = restored.lines(0, 10).await.expect("lines");
    assert!(lines.len() == 1 && lines[0].seq > 1, "{lines:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn only_the_latest_snapshots_are_kept_and_a_folder_with_a_ledger_is_not_replaced() {
    let volume = Volume::new();
    let ledger = volume.open().await.expect("a new ledger");
    for minute in 0..30 {
        client(&ledger).settle(&format!("operation {minute}"), queries(1)).await.expect("settled");
        volume.snapshots().take(&ledger, at(minute)).await.expect("a snapshot");
    }
    let files = volume.files();
    assert_eq!(files.len(), 24);
    let name = format!("{:012}.db", at(6).as_second());
    assert!(files[0].ends_with(&name), "{}", files[0].display());
    client(&ledger).settle("after the last", queries(1)).await.expect("settled");
    drop(ledger);
    let again = volume.open().await.expect("its own files");
    client(&again).has("its own files", queries(31), queries(0)).await.expect("nothing is lost");
}

#[tokio::test(flavor = "multi_thread")]
async fn snapshots_hold_up_no_writer_and_each_is_whole() {
    let volume = Volume::new();
    let ledger = volume.open().await.expect("a new ledger");
    let counted = client(&ledger);
    let writing = tokio::spawn(async move {
        for n in 0..2_000 {
            counted.settle(&format!("operation {n}"), queries(1)).await.expect("settled");
        }
    });
    let mut taken = 0;
    while !writing.is_finished() {
        volume.snapshots().take(&ledger, at(taken)).await.expect("a snapshot");
        taken += 1;
    }
    writing.await.expect("all are settled");
    drop(ledger);
    let mut before = 0;
    for file in volume.files() {
        let folder = Folder::new("whole");
        std::fs::copy(&file, folder.path().join("ledger.db")).expect("copied");
        let copy: Arc<dyn Store> = Arc::new(Sqlite::open(folder.path()).expect("a ledger"));
        let lines = copy.lines(0, 10_000).await.expect("lines");
        let used = copy
            .usage("acme")
            .await
            .expect("usage")
            .map_or(0, |(_, account)| account.used[tenant_operator::ledger::units::Unit::Queries]);
        assert_eq!(i64::try_from(lines.len()).expect("few"), used, "{}", file.display());
        assert!(used >= before);
        before = used;
    }
    assert!(taken > 1);
}
