//! The delivery of what the journal holds: in passes over all entries, until there is none.

use std::collections::{HashMap, HashSet};
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use backon::{BackoffBuilder, ExponentialBackoff, ExponentialBuilder};
use futures::{StreamExt, stream};
use serde_json::json;

use super::files::Kept;
use super::{Entry, Journal, JournalError, telling};
use crate::ledger::PERIOD_AHEAD;
use crate::ledger::client::{CallError, LedgerClient};

/// Entries that are delivered at once.
const AT_ONCE: usize = 16;
/// Between two passes when the ledger is away: at first, and at most. Up to as much again is added by chance, so that
/// replicas spread.
const PAUSES: [Duration; 2] = [Duration::from_millis(100), Duration::from_secs(5)];
/// Refusals that are about the ledger or this web, and not about an entry: the wrong key, another version.
pub(in crate::web::metering) const OF_THE_SERVICE: [&str; 3] = ["unauthorized", "no_such_path", "method_not_allowed"];

/// What became of an entry.
enum Verdict {
    Delivered,
    /// The ledger refuses it for good.
    Refused(String),
    /// It is for a later pass, and the others are not.
    Later(String),
    /// The ledger does not answer, so that none can be delivered.
    Away(String),
}

/// What became of a pass.
#[derive(Debug, Default)]
struct Pass {
    delivered: u64,
    /// Why entries are left, if any are.
    left: Option<String>,
}

impl Journal {
    /// Delivers what the journal holds and what comes to it, until this is dropped. Entries of one operation are
    /// delivered in order, and a release after all that came before it for its tenant: one that comes first would find
    /// nothing to take away.
    pub async fn deliver(&self, ledger: &LedgerClient) {
        let mut pauses = None;
        loop {
            let was_away = pauses.is_some();
            let Pass { delivered, left } = self.pass(ledger, if was_away { 1 } else { AT_ONCE }).await;
            if delivered > 0 {
                tracing::info!(delivered, waiting = self.entries(), "entries of web's journal were delivered");
                pauses = None;
            }
            let Some(why) = left else {
                pauses = None;
                self.seen.kept.notified().await;
                continue;
            };
            if !was_away {
                tracing::warn!(%why, waiting = self.entries(), "entries wait in web's journal for the ledger");
            }
            let pause = pauses.get_or_insert_with(pauses_of).next().unwrap_or(PAUSES[1]);
            tokio::time::sleep(pause).await;
        }
    }

    /// Tries each entry once, the first so many at once.
    async fn pass(&self, ledger: &LedgerClient, mut at_once: usize) -> Pass {
        let (mut pass, mut held, mut after) = (Pass::default(), HeldEntries::default(), 0);
        // What could not be removed before may be now.
        let mut failed = self.writer.remove(Vec::new()).await.err();
        loop {
            let page = match self.writer.read(after).await {
                Ok(page) => page,
                Err(error) => break failed = Some(error),
            };
            let Some((last, _)) = page.last() else { break };
            after = *last;
            for stage in stages(self.read_lines(page, &mut failed).await) {
                let (delivered, away) = self.stage(ledger, stage, at_once, &mut held, &mut failed).await;
                pass.delivered += delivered;
                if away.is_some() {
                    return Pass { left: away, ..pass };
                }
                at_once = AT_ONCE;
            }
        }
        pass.left = failed.map(|error| error.to_string()).or(held.why);
        pass
    }

    /// The entries of a page. What is no entry is refused.
    async fn read_lines(&self, page: Vec<Kept>, failed: &mut Option<JournalError>) -> Vec<(i64, Entry)> {
        let mut entries = Vec::with_capacity(page.len());
        for (number, line) in page {
            match serde_json::from_str(&line) {
                Ok(entry) => entries.push((number, entry)),
                Err(error) => self.refuse(number, &line, &error.to_string(), failed).await,
            }
        }
        entries
    }

    /// Delivers entries that need not wait for each other: how many were, and why no more can be if the ledger is away.
    async fn stage(
        &self,
        ledger: &LedgerClient,
        stage: Vec<(i64, Entry)>,
        at_once: usize,
        held: &mut HeldEntries,
        failed: &mut Option<JournalError>,
    ) -> (u64, Option<String>) {
        let is_away = AtomicBool::new(false);
        let open = stage.into_iter().filter(|(_, entry)| !held.holds(entry)).collect::<Vec<_>>();
        let calls = open.into_iter().map(|(number, entry)| {
            let is_away = &is_away;
            async move {
                // The others need not find out again.
                if is_away.load(Ordering::Relaxed) {
                    return (number, entry, None);
                }
                let verdict = tell(ledger, &entry).await;
                is_away.fetch_or(matches!(verdict, Verdict::Away(_)), Ordering::Relaxed);
                (number, entry, Some(verdict))
            }
        });
        let answers = stream::iter(calls).buffer_unordered(at_once).collect::<Vec<_>>().await;
        let (mut delivered, mut away) = (Vec::new(), None);
        for (number, entry, verdict) in answers {
            match verdict {
                None => {}
                Some(Verdict::Delivered) => delivered.push(number),
                Some(Verdict::Refused(why)) => {
                    let line = serde_json::to_string(&entry).unwrap_or_default();
                    self.refuse(number, &line, &why, failed).await;
                }
                Some(Verdict::Later(why)) => held.hold(&entry, why),
                Some(Verdict::Away(why)) => away = Some(why),
            }
        }
        let count = delivered.len() as u64;
        if let Err(error) = self.writer.remove(delivered).await {
            *failed = Some(error);
        }
        (count, away)
    }

    async fn refuse(&self, number: i64, line: &str, why: &str, failed: &mut Option<JournalError>) {
        let entry = serde_json::from_str(line).unwrap_or_else(|_| json!(line));
        let operation = entry["operation"].as_str().unwrap_or("unknown");
        tracing::error!(%operation, %why, "the ledger refuses an entry of web's journal for good: it is kept in refused.jsonl");
        let refused = json!({"reason": why, "entry": entry}).to_string();
        if let Err(error) = self.writer.refuse(number, refused).await {
            *failed = Some(error);
        }
    }
}

fn pauses_of() -> ExponentialBackoff {
    ExponentialBuilder::new()
        .with_min_delay(PAUSES[0])
        .with_max_delay(PAUSES[1])
        .without_max_times()
        .with_jitter()
        .build()
}

/// Entries that are held back for the rest of a pass, because one before them is.
#[derive(Debug, Default)]
struct HeldEntries {
    operations: HashSet<String>,
    tenants: HashSet<String>,
    why: Option<String>,
}

impl HeldEntries {
    /// Whether an entry must wait. If so, what comes after it waits for it.
    fn holds(&mut self, entry: &Entry) -> bool {
        let after_others = matches!(entry, Entry::Release { .. }) && self.tenants.contains(&entry.tenant());
        let holds = after_others || self.operations.contains(entry.operation());
        if holds {
            self.operations.insert(entry.operation().to_owned());
        }
        holds
    }

    fn hold(&mut self, entry: &Entry, why: String) {
        self.operations.insert(entry.operation().to_owned());
        self.tenants.insert(entry.tenant());
        self.why = Some(why);
    }
}

/// Entries in stages: each needs those of the stages before it, and none of its own.
fn stages(entries: Vec<(i64, Entry)>) -> Vec<Vec<(i64, Entry)>> {
    let mut stages: Vec<Vec<(i64, Entry)>> = Vec::new();
    let (mut of_operations, mut of_tenants) = (HashMap::new(), HashMap::new());
    for (number, entry) in entries {
        let next = |last: Option<&usize>| last.map_or(0, |last| last + 1);
        let mut stage = next(of_operations.get(entry.operation()));
        if matches!(entry, Entry::Release { .. }) {
            stage = stage.max(next(of_tenants.get(&entry.tenant())));
        }
        of_operations.insert(entry.operation().to_owned(), stage);
        let latest = of_tenants.entry(entry.tenant()).or_insert(stage);
        *latest = stage.max(*latest);
        if stages.len() <= stage {
            stages.resize_with(stage + 1, Vec::new);
        }
        stages[stage].push((number, entry));
    }
    stages
}

/// Tells the ledger one entry.
async fn tell(ledger: &LedgerClient, entry: &Entry) -> Verdict {
    match telling::tell(ledger, entry).await {
        Ok(()) => Verdict::Delivered,
        Err(error @ CallError::Unavailable(_)) => Verdict::Away(error.to_string()),
        Err(CallError::Refused { code, detail }) if OF_THE_SERVICE.contains(&code.as_str()) => {
            Verdict::Away(format!("the ledger refuses: {detail} ({code})"))
        }
        Err(CallError::Refused { code, detail }) if code == PERIOD_AHEAD => Verdict::Later(detail),
        Err(error) => Verdict::Refused(error.to_string()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn entry(action: &str, operation: &str, tenant: &str) -> Entry {
        let period = json!({"start": "2026-01-01T00:00:00Z", "end": "2036-01-01T00:00:00Z"});
        let body = match action {
            "void" => json!({"tenant": tenant, "period": period}),
            _ => json!({"tenant": tenant, "period": period, "amounts": {"documents": 1}}),
        };
        serde_json::from_value(json!({"action": action, "operation": operation, "body": body})).expect("an entry")
    }

    #[test]
    fn an_operation_is_in_order_and_a_release_after_all_before_it() {
        let entries = [
            ("settle", "a", "acme"),
            ("settle", "b", "acme"),
            ("void", "a", "acme"),
            ("settle", "c", "other"),
            ("release", "gone-a", "acme"),
            ("release", "gone-c", "other"),
            ("settle", "d", "acme"),
            ("release", "gone-d", "acme"),
        ];
        let entries = (0..).zip(entries.map(|(action, operation, tenant)| entry(action, operation, tenant)));
        let numbers: Vec<Vec<_>> = stages(entries.collect())
            .into_iter()
            .map(|stage| stage.into_iter().map(|(number, _)| number).collect())
            .collect();
        assert_eq!(numbers, [vec![0, 1, 3, 6], vec![2, 5], vec![4], vec![7]]);
    }

    #[test]
    fn one_that_is_held_holds_its_operation_and_its_tenants_releases() {
        let mut held = HeldEntries::default();
        held.hold(&entry("settle", "a", "acme"), "early".into());
        assert!(held.holds(&entry("void", "a", "acme")));
        assert!(held.holds(&entry("release", "gone-b", "acme")));
        assert!(!held.holds(&entry("settle", "b", "acme")));
        assert!(!held.holds(&entry("release", "gone-c", "other")));
    }

    #[test]
    fn pauses_grow_to_the_longest_and_go_on() {
        let pauses: Vec<_> = pauses_of().take(20).collect();
        assert!(pauses[0] < 2 * PAUSES[0]);
        assert!(pauses.iter().all(|pause| *pause <= 2 * PAUSES[1]));
        assert!(pauses[19] >= PAUSES[1]);
    }
}
