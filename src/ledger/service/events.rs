//! `POST /v1/events`: what other systems tell of, many at once. Each is counted once, by its source and id.

use std::sync::Arc;

use axum::Json;
use axum::extract::{FromRequest, Request, State};
use serde::Deserialize;
use serde_json::value::RawValue;
use sha2::{Digest, Sha256};

use super::Shared;
use super::answers::ServiceProblem;
use super::extract::Body;
use crate::ledger::decision::{Action, Answer, Command};
use crate::ledger::store::StoreError;
use crate::ledger::wire::{EVENTS, Event, EventState, EventStates};

/// The longest source and id, in bytes.
const LONGEST: usize = 512;

/// The batch, each event as it was sent: one that makes no sense spoils none of the others.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Sent {
    events: Vec<Box<RawValue>>,
}

/// Counts a batch of events.
pub async fn count(State(shared): State<Arc<Shared>>, request: Request) -> Result<Json<EventStates>, ServiceProblem> {
    // A batch takes memory while it is read.
    let place = shared.batches.clone().acquire_owned().await.map_err(|_| StoreError::Stopping)?;
    let Body(Sent { events }) = Body::<Sent>::from_request(request, &shared).await?;
    if events.len() > EVENTS {
        return Err(ServiceProblem::Malformed(format!("{} events: send at most {EVENTS} in a batch", events.len())));
    }
    // It is carried out to its end even if the client hangs up.
    let counted = tokio::spawn(async move {
        let answered = shared.count_events(&events).await;
        drop(place);
        answered
    });
    let events = counted.await.map_err(|_| StoreError::Stopping)??;
    Ok(Json(EventStates { events }))
}

impl Shared {
    async fn count_events(&self, sent: &[Box<RawValue>]) -> Result<Vec<EventState>, ServiceProblem> {
        let read: Vec<_> = sent.iter().map(|event| command(event.get())).collect();
        let commands = read.iter().filter_map(|command| command.as_ref().ok().cloned()).collect();
        let counted = self.store.count(commands, self.clock.read().now).await;
        let mut answers = counted.inspect_err(|_| self.count("event", "failed"))?.into_iter();
        let state = |read: Result<Command, String>| match read {
            Err(detail) => EventState::Refused { code: "malformed".into(), detail },
            Ok(_) => match answers.next() {
                Some(Answer::Accepted) => EventState::Accepted,
                Some(Answer::Duplicate) => EventState::Duplicate,
                Some(Answer::Refused(refusal)) => {
                    EventState::Refused { code: refusal.code().into(), detail: refusal.to_string() }
                }
                // An event has no other answer.
                _ => EventState::Refused { code: "malformed".into(), detail: "it is not an event".into() },
            },
        };
        let states: Vec<_> = read.into_iter().map(state).collect();
        for state in &states {
            self.count("event", if matches!(state, EventState::Refused { .. }) { "refused" } else { "done" });
        }
        Ok(states)
    }
}

/// An event as a command, or what is wrong with it.
fn command(sent: &str) -> Result<Command, String> {
    let Event { source, id, tenant, period, amounts, time } = serde_json::from_str(sent).map_err(|e| e.to_string())?;
    for (name, value) in [("source", &source), ("id", &id)] {
        if value.is_empty() || value.len() > LONGEST || value.chars().any(char::is_control) {
            return Err(format!("{name}: use 1 to {LONGEST} bytes without control characters"));
        }
    }
    if amounts.is_zero() {
        return Err("amounts: name at least one unit with more than 0".into());
    }
    let action = Action::Event { period: period.0, amounts };
    Ok(Command { operation: name(&source, &id), tenant: tenant.0, action, at: Some(time) })
}

/// The operation of an event. The length keeps apart what would be the same text together.
fn name(source: &str, id: &str) -> String {
    let mut hash = Sha256::new();
    hash.update(u64::try_from(source.len()).unwrap_or(u64::MAX).to_le_bytes());
    hash.update(source);
    hash.update(id);
    format!("event-{}", hex::encode(hash.finalize()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_source_and_an_id_name_one_event() {
        assert_eq!(name("a", "bc").len(), 70);
        assert_eq!(name("a", "bc"), name("a", "bc"));
        assert_ne!(name("a", "bc"), name("ab", "c"));
        assert_ne!(name("a", "bc"), name("bc", "a"));
    }

    #[test]
    fn an_event_that_makes_no_sense_is_refused_with_a_sentence() {
        let whole = r#"{"source":"s","id":"i","tenant":"acme","amounts":{"queries":1},"time":"2026-11-29T00:00:00Z",
            "period":{"start":"2026-11-01T00:00:00Z","end":"2026-12-01T00:00:00Z"}}"#;
        assert_eq!(command(whole).expect("an event").tenant, "acme");
        let long = format!("\"{}\"", "x".repeat(LONGEST + 1));
        for (from, to, wanted) in [
            ("\"s\"", "\"\"", "source: use 1 to 512 bytes"),
            ("\"i\"", &long, "id: use 1 to 512 bytes"),
            ("\"i\"", "\"a\\u0000b\"", "id: use 1 to 512 bytes"),
            ("\"acme\"", "\"a b\"", "tenant: a name has"),
            ("{\"queries\":1}", "{\"queries\":0}", "amounts: name at least one unit"),
            ("{\"queries\":1}", "{\"queries\":-1}", "queries is -1"),
            ("{\"queries\":1}", "{\"queries\":1.5}", "floating point"),
            ("\"id\":\"i\",", "", "missing field `id`"),
            ("\"id\":\"i\",", "\"id\":\"i\",\"more\":1,", "unknown field `more`"),
            ("2026-11-29T00:00:00Z", "yesterday", "failed to parse"),
            ("2026-12-01T00:00:00Z", "2026-10-01T00:00:00Z", "is no period"),
        ] {
            let said = command(&whole.replace(from, to)).expect_err(to);
            assert!(said.contains(wanted), "{to}: {said}");
        }
    }
}
