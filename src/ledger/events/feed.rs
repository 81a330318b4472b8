//! The feed: one task that appends to the events store what the ledger has and the store lacks. The ledger waits for
//! none of it.
//!
//! A batch follows the mark that the store names, and the ledger must still have the marked line. If it does not, the
//! ledger was restored to an earlier state, and may give numbers to other lines: the store begins anew. The two never
//! mix, and an operator has nothing to do.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use super::agreement::{self, Difference, Found};
use super::error::FeedError;
use super::{Batch, EventsError, EventsStore, Mark, Position, Span, forgotten_before};
use crate::api::Timestamp;
use crate::clock::Clock;
use crate::ledger::store::{Store, StoreError, StoredLine, Waiting};
use crate::telemetry::Metrics;

/// Lines that are read from the ledger at a time: its other reads wait for a few milliseconds.
const PAGE: u32 = 1000;
/// Lines of a batch.
const BATCH: usize = 20_000;
/// How often the feed looks for lines.
const LOOK: Duration = Duration::from_secs(2);
/// Between two attempts that fail, at first and at most.
const BACKOFF: [Duration; 2] = [Duration::from_secs(1), Duration::from_mins(1)];
/// How often a failure that goes on is logged.
const SAID: Duration = Duration::from_mins(10);
/// How often lines that are too old are forgotten.
const FORGET: Duration = Duration::from_mins(10);
/// How many lines that wait are counted, at most.
const COUNTED: u32 = 100_000;
/// A line is committed so many seconds after its `at`, at most: the ledger's requests take less.
const COMMITTED: i64 = 15;
/// Differences that are logged one by one.
const TOLD: usize = 20;
const HOUR: i64 = 3600;
const DAY: i64 = 24 * HOUR;

/// Feeds an events store.
#[derive(Debug)]
pub struct Feed {
    /// The ledger.
    pub ledger: Arc<dyn Store>,
    /// Its id.
    pub id: String,
    /// The store.
    pub events: Arc<dyn EventsStore>,
    /// The ledger's time.
    pub(in crate::ledger) clock: Arc<Clock>,
    /// How long the store keeps lines. None keeps all of them, as the ledger does.
    pub retention: Option<Duration>,
    /// How it goes, for others to see.
    pub fed: Arc<Fed>,
}

/// How the feed goes.
#[derive(Clone, Debug, Default)]
pub struct Progress {
    /// The store's generation. None while it was not reached.
    pub generation: Option<i64>,
    /// The last line that it holds.
    pub seq: i64,
    /// Every line that was written before this moment is in the store.
    pub complete_until: Option<Timestamp>,
    /// What the ledger has and the store lacks, as far as it was counted.
    pub waiting: Waiting,
    /// Why it is not fed.
    pub failing: Option<String>,
    /// Since when it is not fed.
    pub failing_since: Option<Instant>,
    /// How many sums of a tenant, an hour and a unit differ. None before they were compared.
    pub differences: Option<usize>,
    /// Up to which hour they were compared.
    pub compared_until: Option<Timestamp>,
}

impl Progress {
    /// Whether the store has all that the ledger has, as of the last look.
    pub fn is_complete(&self) -> bool {
        self.generation.is_some() && self.failing.is_none() && self.waiting.lines == 0
    }
}

/// The progress of a feed.
#[derive(Debug, Default)]
pub struct Fed {
    progress: Mutex<Progress>,
    /// Which sums differ.
    found: Mutex<Found>,
}

impl Fed {
    /// As it is now.
    pub fn read(&self) -> Progress {
        self.progress.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    fn change(&self, change: impl FnOnce(&mut Progress)) {
        change(&mut self.progress.lock().unwrap_or_else(PoisonError::into_inner));
    }

    fn found(&self) -> MutexGuard<'_, Found> {
        self.found.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// What follows a mark.
enum Next {
    /// These lines, and whether the ledger has more.
    Lines(Vec<StoredLine>, bool),
    /// The ledger has no such line: it is another ledger than the one that fed the store.
    Diverged,
}

impl Feed {
    /// A feed that goes by this machine's clock, to a store that keeps all lines.
    pub fn by_own_clock(ledger: Arc<dyn Store>, id: String, events: Arc<dyn EventsStore>) -> Self {
        Self { ledger, id, events, clock: Arc::default(), retention: None, fed: Arc::default() }
    }

    /// Feeds again and again.
    pub async fn run(&self, metrics: &Metrics) {
        let mut pauses = Pauses::default();
        let (mut forgot, mut compared): (Option<Instant>, _) = (None, 0);
        loop {
            let round = self.round().await;
            self.note(&round, metrics).await;
            match round {
                Ok(true) => {}
                Ok(false) => {
                    pauses.reset();
                    if let Some(retention) = self.retention
                        && forgot.is_none_or(|at| at.elapsed() > FORGET)
                    {
                        forgot = Some(Instant::now());
                        if let Err(error) = self.events.keep(retention, self.clock.read().earliest).await {
                            tracing::warn!(%error, "old lines are not forgotten");
                        }
                    }
                    compared = self.compare_when_due(compared, metrics).await;
                    tokio::time::sleep(LOOK).await;
                }
                Err(error) => tokio::time::sleep(pauses.next(&error, metrics)).await,
            }
        }
    }

    /// Empties the store, so that the feed fills it again. Returns the generation that begins.
    pub async fn begin_anew(&self, take_over: bool) -> Result<i64, EventsError> {
        let generation = self.events.wipe(&self.id, take_over).await?;
        *self.fed.found() = Found::default();
        self.fed.change(|fed| {
            *fed = Progress {
                generation: Some(generation),
                waiting: Waiting { lines: 1, since: None },
                ..Progress::default()
            };
        });
        Ok(generation)
    }

    /// Appends one batch. Returns whether there may be more.
    pub async fn round(&self) -> Result<bool, FeedError> {
        let began = self.clock.read().now;
        let position = self.events.position(&self.id).await?;
        let (lines, more) = match self.next(&position).await? {
            Next::Lines(lines, more) => (lines, more),
            Next::Diverged => {
                tracing::warn!(
                    line = position.mark.seq,
                    "the ledger has another line of this number, or none, so it was restored to an earlier state: the events store is made anew from it"
                );
                self.begin_anew(false).await?;
                return Ok(true);
            }
        };
        let latest = lines.last().map(|line| line.at);
        let batch = Batch { generation: position.generation, after: position.mark, lines: self.kept(lines) };
        let last = batch.last();
        if !batch.lines.is_empty() {
            match self.events.append(&self.id, &batch).await {
                Err(EventsError::Superseded) => return Ok(true),
                appended => appended?,
            }
        }
        let complete = if more { latest } else { Some(began) };
        self.fed.change(|fed| {
            if fed.generation != Some(batch.generation) {
                fed.complete_until = None;
            }
            (fed.generation, fed.seq) = (Some(batch.generation), last.seq);
            fed.complete_until = fed.complete_until.max(complete.map(|at| at.plus(-COMMITTED)));
        });
        Ok(more)
    }

    /// The lines that the store keeps: one that was made anew gets back no line that it has forgotten. The last line
    /// says how far the store is fed, so it is sent however old it is, and forgotten with the others.
    fn kept(&self, mut lines: Vec<StoredLine>) -> Vec<StoredLine> {
        let (Some(retention), Some(last)) = (self.retention, lines.last().map(|line| line.seq)) else { return lines };
        let before = forgotten_before(retention, self.clock.read().earliest);
        lines.retain(|line| line.hour >= before || line.seq == last);
        lines
    }

    /// The lines after a position, as many as a batch has.
    async fn next(&self, position: &Position) -> Result<Next, StoreError> {
        let Position { mark, begun, .. } = position;
        // With the marked line, if there is one.
        let mut page = self.ledger.lines(mark.seq - i64::from(mark.seq > 0), PAGE).await?;
        if mark.seq > 0 {
            if page.first().map(Mark::of).as_ref() != Some(mark) {
                return Ok(Next::Diverged);
            }
            page.remove(0);
        }
        let (mut lines, mut full) = (Vec::new(), page.len() + usize::from(mark.seq > 0) >= PAGE as usize);
        loop {
            lines.append(&mut page);
            let reached = begun.as_ref().is_some_and(|begun| lines.last().is_some_and(|line| line.seq >= begun.seq));
            if !full || reached || lines.len() >= BATCH {
                break;
            }
            let after = lines.last().map_or(mark.seq, |line| line.seq);
            page = self.ledger.lines(after, PAGE).await?;
            full = page.len() >= PAGE as usize;
        }
        if let Some(begun) = begun {
            let read = lines.len();
            lines.retain(|line| line.seq <= begun.seq);
            if lines.last().map(Mark::of).as_ref() != Some(begun) {
                return Ok(Next::Diverged);
            }
            full |= lines.len() < read;
        }
        Ok(Next::Lines(lines, full))
    }

    /// Notes how a round went.
    async fn note(&self, round: &Result<bool, FeedError>, metrics: &Metrics) {
        let Progress { generation, seq, .. } = self.fed.read();
        let waiting = self.ledger.waiting(seq, COUNTED).await.ok();
        self.fed.change(|fed| {
            // One that was emptied meanwhile lacks more than that.
            if let Some(waiting) = waiting.filter(|_| (fed.generation, fed.seq) == (generation, seq)) {
                fed.waiting = waiting;
            }
            fed.failing = round.as_ref().err().map(ToString::to_string);
            fed.failing_since = fed.failing.is_some().then(|| fed.failing_since.unwrap_or_else(Instant::now));
        });
        let fed = self.fed.read();
        let failing = fed.failing_since.map_or(0, |since| i64::try_from(since.elapsed().as_secs()).unwrap_or(i64::MAX));
        let waiting = fed.waiting.since.map_or(0, |since| self.clock.read().now.since(since).max(0));
        metrics.ledger_events_lag_lines.set(fed.waiting.lines.into());
        metrics.ledger_events_lag_seconds.set(failing.max(waiting));
    }

    /// Compares what the ledger counted in closed hours with the store's lines, once an hour. Returns up to which hour.
    async fn compare_when_due(&self, compared: i64, metrics: &Metrics) -> i64 {
        let now = self.clock.read().now;
        let until = now.hour().as_second();
        if until <= compared {
            return compared;
        }
        match self.compare(now).await {
            Ok(Some(differences)) => {
                tell(&differences);
                metrics.ledger_events_differences.set(i64::try_from(differences.len()).unwrap_or(i64::MAX));
                until
            }
            // Lines wait: it is tried again at the next look.
            Ok(None) => compared,
            Err(error) => {
                tracing::warn!(%error, "the ledger and the events store were not compared");
                compared
            }
        }
    }

    /// Compares the closed hours of the latest days, and the earlier days whose turn it is. Returns all that is known to
    /// differ, or None if the store lacks lines.
    pub async fn compare(&self, now: Timestamp) -> Result<Option<Vec<Difference>>, FeedError> {
        // Closes the hours that are over: no line is added to them from now on, and all of theirs are fed next.
        let until = self.ledger.hours("-", now, 1, now).await?.closed_until;
        while self.round().await? {}
        let generation = self.fed.read().generation;
        let latest = self.kept_part(agreement::latest(until), until, HOUR);
        let turn = self.kept_part(agreement::turn(until), until, DAY);
        let (ledger, store) = (&*self.ledger, (&*self.events, &*self.id));
        let of_latest = match latest {
            Some(span) => agreement::compare(ledger, store, span, now).await?,
            None => Vec::new(),
        };
        let of_turn = match turn {
            Some(span) => agreement::compare_days(ledger, store, span, now).await?,
            None => Vec::new(),
        };
        // One that was begun anew in the meantime lacks lines.
        if Some(self.events.position(&self.id).await?.generation) != generation {
            return Ok(None);
        }
        let mut found = self.fed.found();
        // The latest hours come last: a day of which some are among them is compared both ways.
        for (span, differences) in [(turn, of_turn), (latest, of_latest)] {
            if let Some(span) = span {
                found.add(span, differences);
            }
        }
        found.forget(until);
        let all = found.all().to_vec();
        drop(found);
        self.fed.change(|fed| (fed.differences, fed.compared_until) = (Some(all.len()), Some(until)));
        Ok(Some(all))
    }

    /// The part of a span that the store still keeps, with a day to spare, from the beginning of an hour or a day on.
    fn kept_part(&self, span: Span, until: Timestamp, step: i64) -> Option<Span> {
        let kept = self.retention.and_then(|kept| i64::try_from(kept.as_secs()).ok()).unwrap_or(i64::MAX);
        let first = until.as_second().saturating_sub(kept.saturating_sub(DAY)).max(span.from.as_second());
        let from = Timestamp::from_second((first + step - 1).div_euclid(step) * step);
        (from < span.to).then_some(Span { from, ..span })
    }
}

/// Logs differences, with their numbers.
fn tell(differences: &[Difference]) {
    for Difference { tenant, hour, unit, ledger, events } in differences.iter().take(TOLD) {
        tracing::error!(tenant, %hour, unit = unit.name(), ledger, events, "the events store differs from the ledger: `kubectl tenant usage {tenant} -A --billed --hours --lines` shows what Stripe has and the ledger's lines, and `tenant-operator ledger rebuild` makes the store anew");
    }
    if let Some(more) = differences.len().checked_sub(TOLD).filter(|more| *more > 0) {
        tracing::error!(more, "and more sums of the events store differ");
    }
}

/// Pauses between attempts that fail, each longer than the one before.
#[derive(Default)]
struct Pauses {
    last: Option<Duration>,
    said: Option<(String, Instant)>,
}

impl Pauses {
    fn reset(&mut self) {
        if self.said.take().is_some() {
            tracing::info!("the events store is fed again");
        }
        self.last = None;
    }

    /// The next pause. Logs the error if it is a new one, or was not logged for long.
    fn next(&mut self, error: &FeedError, metrics: &Metrics) -> Duration {
        metrics.ledger_events_failures.inc();
        let words = error.to_string();
        if self.said.as_ref().is_none_or(|(said, at)| *said != words || at.elapsed() > SAID) {
            tracing::warn!(error = words, "the events store is not fed; the ledger goes on, and feeds it later");
            self.said = Some((words, Instant::now()));
        }
        let [first, most] = BACKOFF;
        let pause = self.last.map_or(first, |last| (last * 2).min(most));
        self.last = Some(pause);
        pause
    }
}
