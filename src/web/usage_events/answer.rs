//! What became of the events of a call, one by one and in their order.

use serde::Serialize;
use utoipa::ToSchema;

use super::cloud_event::Refused;
use crate::ledger::wire::EventState;

/// What became of the events of a call.
#[derive(Debug, Default, Serialize, ToSchema)]
pub struct CountedEvents {
    /// Events that are counted now.
    #[schema(example = 1)]
    pub accepted: usize,
    /// Events that were counted before.
    #[schema(example = 0)]
    pub duplicates: usize,
    /// Events that are not counted.
    #[schema(example = 0)]
    pub refused: usize,
    /// What became of each event, in the order in which they came.
    events: Vec<CountedEvent>,
}

/// What became of one event.
#[derive(Debug, Serialize, ToSchema)]
struct CountedEvent {
    /// The event's id. Null if it cannot be read.
    #[schema(example = "request-7f3a")]
    id: Option<String>,
    /// `accepted`, `duplicate` or `refused`.
    #[schema(example = "accepted")]
    state: &'static str,
    /// Why it is refused: `malformed`, `unknown_type`, `unknown_tenant`, `not_ready`, `too_old`, `time_ahead`, or
    /// `too_much` if the account would hold more than can be counted.
    #[serde(skip_serializing_if = "Option::is_none")]
    code: Option<String>,
    /// The reason in words.
    #[serde(skip_serializing_if = "Option::is_none")]
    detail: Option<String>,
}

/// What web knows of an event.
pub enum EventFate {
    /// The ledger says what became of it.
    Counted(String),
    /// It is not counted.
    Refused(Refused),
}

impl CountedEvents {
    /// Of events, with the ledger's states of those that were sent to it.
    pub fn of(outcomes: Vec<EventFate>, states: Vec<EventState>) -> Self {
        let mut states = states.into_iter();
        let mut answer = Self::default();
        for outcome in outcomes {
            let (id, state) = match outcome {
                EventFate::Counted(id) => (Some(id), states.next()),
                EventFate::Refused(Refused { id, code, detail }) => {
                    (id, Some(EventState::Refused { code: code.into(), detail }))
                }
            };
            answer.add(id, state);
        }
        answer
    }

    fn add(&mut self, id: Option<String>, state: Option<EventState>) {
        let (state, count, refusal) = match state {
            Some(EventState::Accepted) => ("accepted", &mut self.accepted, None),
            Some(EventState::Duplicate) => ("duplicate", &mut self.duplicates, None),
            Some(EventState::Refused { code, detail }) => ("refused", &mut self.refused, Some((code, detail))),
            // `Metering` answers a state for each event that it was given.
            None => ("refused", &mut self.refused, Some(("internal".into(), "nothing is known of it".into()))),
        };
        *count += 1;
        let (code, detail) = refusal.unzip();
        self.events.push(CountedEvent { id, state, code, detail });
    }

    /// The reason of the first event that is refused.
    pub fn first_refusal(&self) -> Option<&str> {
        self.events.iter().find_map(|event| event.detail.as_deref())
    }
}
