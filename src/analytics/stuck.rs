//! Customers who began and do not go on: each list is a reason to write to them.

use serde::Serialize;

use super::{Customer, Journey, Milestone};
use crate::api::{Phase, Timestamp};

const HOUR: i64 = 3600;
/// How long a customer in service may take to log in.
const TO_LOG_IN: i64 = 48 * HOUR;
/// How long a customer may take from one step of the setup to the next.
const TO_GO_ON: i64 = 24 * HOUR;

/// The lists, the customer who waits longest first.
#[derive(Clone, Debug, Default, PartialEq, Serialize)]
pub struct Stuck {
    /// In service for 48 hours, and never logged in.
    pub stuck_after_payment: Vec<StuckCustomer>,
    /// Logged in 24 hours ago, and no question was answered.
    pub stuck_after_login: Vec<StuckCustomer>,
    /// Got the first answer 24 hours ago, and stored no document of their own.
    pub stuck_after_query: Vec<StuckCustomer>,
}

impl Stuck {
    /// The lists, each with its name.
    pub fn lists(&self) -> [(&'static str, &[StuckCustomer]); 3] {
        [
            ("stuck_after_payment", &self.stuck_after_payment),
            ("stuck_after_login", &self.stuck_after_login),
            ("stuck_after_query", &self.stuck_after_query),
        ]
    }
}

/// A customer who does not go on.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct StuckCustomer {
    /// Who it is.
    #[serde(flatten)]
    pub customer: Customer,
    /// Hours since the signup.
    pub hours_since_signup: i64,
    /// Hours since the last step that was reached.
    pub hours_waiting: i64,
    /// The last milestone that is an answered question. Later questions are not noted.
    pub last_query: Option<Timestamp>,
    /// What may help.
    pub recommended_action: &'static str,
}

/// The step after which a customer does not go on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum StuckAfter {
    /// In service for 48 hours, and never logged in.
    Payment,
    /// Logged in 24 hours ago, and no question was answered.
    Login,
    /// Got the first answer 24 hours ago, and stored no document of their own.
    Query,
}

/// Why a customer is stuck.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct StuckReason {
    /// After which step.
    pub after: StuckAfter,
    /// When that step was reached.
    pub since: Timestamp,
    /// What may help.
    pub action: &'static str,
}

/// The customers who came by the pages, are in service and do not go on.
pub fn stuck(all: &[Journey], now: Timestamp) -> Stuck {
    let mut stuck = Stuck::default();
    for journey in all {
        if let Some(StuckReason { after, since, action }) = stuck_reason(journey, now) {
            let list = match after {
                StuckAfter::Payment => &mut stuck.stuck_after_payment,
                StuckAfter::Login => &mut stuck.stuck_after_login,
                StuckAfter::Query => &mut stuck.stuck_after_query,
            };
            list.push(StuckCustomer::of(journey, since, action, now));
        }
    }
    for list in [&mut stuck.stuck_after_payment, &mut stuck.stuck_after_login, &mut stuck.stuck_after_query] {
        list.sort_by_key(|customer| std::cmp::Reverse(customer.hours_waiting));
    }
    stuck
}

/// Why a customer is stuck. None for one who goes on, is not in service, or came by manifest.
pub fn stuck_reason(journey: &Journey, now: Timestamp) -> Option<StuckReason> {
    let served = matches!(journey.phase, Some(Phase::Active | Phase::Upgrading | Phase::Downgrading));
    if !served || !journey.by_the_pages() || journey.reached(Milestone::Completed).is_some() {
        return None;
    }
    let late = |since: Timestamp, limit| now.since(since) >= limit;
    let own = journey.reached(Milestone::FirstDocument).or(journey.reached(Milestone::OwnQuery));
    match (journey.reached(Milestone::FirstLogin), journey.first_query()) {
        // A customer who works through the API never opens a page, and is not stuck.
        (None, None) if own.is_none() => {
            let since = journey.reached(Milestone::Provisioned)?;
            let action = "Send the welcome e-mail again, or call: the customer has not seen the account";
            late(since, TO_LOG_IN).then_some(StuckReason { after: StuckAfter::Payment, since, action })
        }
        (Some(since), None) if own.is_none() => {
            let action = "Ask what the customer wants to find, and send a question that the samples answer";
            late(since, TO_GO_ON).then_some(StuckReason { after: StuckAfter::Login, since, action })
        }
        (_, Some(since)) if own.is_none() => {
            let action = "Offer help with the first document: which files, how many, in which format";
            late(since, TO_GO_ON).then_some(StuckReason { after: StuckAfter::Query, since, action })
        }
        _ => None,
    }
}

impl StuckCustomer {
    fn of(journey: &Journey, since: Timestamp, action: &'static str, now: Timestamp) -> Self {
        let queries = [Milestone::SampleQuery, Milestone::OwnQuery, Milestone::TenQueries];
        Self {
            customer: journey.customer.clone(),
            hours_since_signup: now.since(journey.signed_up) / HOUR,
            hours_waiting: now.since(since) / HOUR,
            last_query: queries.into_iter().filter_map(|query| journey.reached(query)).max(),
            recommended_action: action,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::events::Origin;
    use Milestone::{Completed, FirstDocument, FirstLogin, OwnQuery, Payment, Provisioned, SampleQuery};

    const PAID: [(Milestone, i64); 2] = [(Payment, 60), (Provisioned, 120)];

    fn lists(journey: &Journey, now: i64) -> [usize; 3] {
        let found = stuck(std::slice::from_ref(journey), Timestamp::from_second(now));
        [found.stuck_after_payment.len(), found.stuck_after_login.len(), found.stuck_after_query.len()]
    }

    fn journey(more: &[(Milestone, i64)]) -> Journey {
        Journey::example("acme", 1000, &[&PAID, more].concat())
    }

    #[test]
    fn a_customer_is_stuck_from_the_first_second_of_the_limit() {
        let never_seen = journey(&[]);
        assert_eq!(lists(&never_seen, 1120 + TO_LOG_IN - 1), [0, 0, 0]);
        assert_eq!(lists(&never_seen, 1120 + TO_LOG_IN), [1, 0, 0]);
        let silent = journey(&[(FirstLogin, 200)]);
        assert_eq!(lists(&silent, 1200 + TO_GO_ON - 1), [0, 0, 0]);
        assert_eq!(lists(&silent, 1200 + TO_GO_ON), [0, 1, 0]);
        let no_document = journey(&[(FirstLogin, 200), (SampleQuery, 300)]);
        assert_eq!(lists(&no_document, 1300 + TO_GO_ON - 1), [0, 0, 0]);
        assert_eq!(lists(&no_document, 1300 + TO_GO_ON), [0, 0, 1]);
    }

    #[test]
    fn a_customer_who_goes_on_is_not_stuck() {
        let late = 1000 + 100 * 24 * HOUR;
        for more in [
            &[(FirstLogin, 200), (SampleQuery, 300), (FirstDocument, 400)][..],
            &[(FirstLogin, 200), (FirstDocument, 400)],
            &[(FirstDocument, 400)],
            &[(OwnQuery, 400)],
            &[(Completed, 400)],
        ] {
            assert_eq!(lists(&journey(more), late), [0, 0, 0], "{more:?}");
        }
        // A customer who works through the API and asks is in the list of those without a document.
        assert_eq!(lists(&journey(&[(SampleQuery, 300)]), late), [0, 0, 1]);
    }

    #[test]
    fn customers_who_are_not_in_service_or_came_by_manifest_are_left_alone() {
        let late = 1000 + 100 * 24 * HOUR;
        let with = |change: fn(&mut Journey)| {
            let mut journey = journey(&[]);
            change(&mut journey);
            lists(&journey, late)
        };
        assert_eq!(with(|journey| journey.phase = None), [0, 0, 0]);
        assert_eq!(with(|journey| journey.phase = Some(Phase::PendingPayment)), [0, 0, 0]);
        assert_eq!(with(|journey| journey.phase = Some(Phase::Suspended)), [0, 0, 0]);
        assert_eq!(with(|journey| journey.phase = Some(Phase::Failed)), [0, 0, 0]);
        assert_eq!(with(|journey| journey.phase = Some(Phase::Deleting)), [0, 0, 0]);
        assert_eq!(with(|journey| journey.phase = Some(Phase::Upgrading)), [1, 0, 0]);
        assert_eq!(with(|journey| journey.origin = Origin::Manifest), [0, 0, 0]);
        assert_eq!(with(|journey| journey.origin = Origin::Invitation), [1, 0, 0]);
    }

    #[test]
    fn the_customer_who_waits_longest_comes_first_with_what_is_known() {
        let first = Journey::example("first", 0, &[(Provisioned, 10), (SampleQuery, HOUR)]);
        let second = Journey::example("second", 5 * HOUR, &[(Provisioned, 10), (SampleQuery, HOUR)]);
        let found = stuck(&[second, first], Timestamp::from_second(50 * HOUR)).stuck_after_query;
        let names: Vec<_> =
            found.iter().map(|c| (c.customer.name.as_str(), c.hours_since_signup, c.hours_waiting)).collect();
        assert_eq!(names, [("first", 50, 49), ("second", 45, 44)]);
        assert_eq!(found[0].last_query, Some(Timestamp::from_second(HOUR)));
        assert!(found[0].recommended_action.contains("document"));
    }
}
