//! What a person has decided of usage whose numbers differ, or that waits for a price: the annotation says it, with the
//! numbers that were shown. Other numbers are another decision, and each is carried out once.

use kube::ResourceExt;
use sha2::{Digest, Sha256};

use super::decide::{self, Row};
use super::look::{Billed, Look};
use super::trouble::Trouble;
use crate::api::usage_prices::{KeptUsage, UsageChoice, UsageDecision, UsageDifference};
use crate::api::{SETTLE_USAGE_ANNOTATION, Timestamp, Unit, UsageBilling};
use crate::providers::biller::{Biller, Report};
use crate::providers::stripe::UsageSubscription;

/// What a person has decided, what differs, and what was carried out.
pub struct Settling<'a> {
    /// What the annotation says.
    pub choice: Option<UsageChoice>,
    /// What was shown at the last look.
    pub recorded: &'a UsageBilling,
    /// What differs in this one.
    pub differences: Vec<UsageDifference>,
    /// What was carried out in it.
    pub decision: Option<UsageDecision>,
}

impl Settling<'_> {
    /// Whether a person wants that of these numbers, and it was not carried out before.
    fn wants(&self, keep: KeptUsage, (unit, ledger, stripe): (Unit, i64, i64)) -> bool {
        let Some(choice) = self.choice else { return false };
        let done = self.recorded.decision.as_ref().is_some_and(|decision| choice.is(decision));
        (choice.keep, choice.unit, choice.ledger, choice.stripe) == (keep, unit, ledger, stripe) && !done
    }

    /// The same, and notes that it is carried out.
    pub fn settle(&mut self, keep: KeptUsage, (unit, ledger, stripe): (Unit, i64, i64), now: Timestamp) -> bool {
        let wants = self.wants(keep, (unit, ledger, stripe));
        if wants {
            self.decision = self.choice.map(|choice| choice.done(now));
        }
        wants
    }
}

/// The name of the event with which a person's decision is carried out. The same decision is sent once.
fn difference_identifier(tenant: &str, meter: &str, since: Timestamp, choice: &UsageChoice) -> String {
    let mut hash = Sha256::new();
    let numbers = [choice.ledger, choice.stripe, choice.at.as_second()].map(|number| number.to_string());
    for part in [tenant, meter, &since.to_string(), &numbers[0], &numbers[1], &numbers[2]] {
        hash.update(part.as_bytes());
        hash.update([0]);
    }
    format!("difference-{}", hex::encode(hash.finalize()))
}

impl Look<'_> {
    /// What a person has decided, as the annotation says it.
    pub fn choice(&self) -> Option<UsageChoice> {
        let value = self.tenant.annotations().get(SETTLE_USAGE_ANNOTATION)?;
        UsageChoice::read(value, &self.tenant.uid().unwrap_or_default())
    }

    /// Carries out what a person has decided of numbers that differ. Says whether that was done: the decision is recorded
    /// before anything more is sent, because nothing else tells a lost look from an open decision.
    pub async fn settle(
        &self,
        there: &UsageSubscription,
        one: &mut Billed<'_>,
        (rows, theirs): (&[Row], i64),
        settling: &mut Settling<'_>,
    ) -> Result<bool, Trouble> {
        let (unit, sent) = (one.usage.unit, one.usage.sent);
        let unsent = rows.iter().map(|row| row.amount).sum();
        // The numbers that the person saw.
        let seen = settling.recorded.differences.iter().any(|d| (d.unit, d.sent, d.at_stripe) == (unit, sent, theirs));
        settling.differences.push(UsageDifference { unit, sent, unsent, at_stripe: theirs });
        if seen && settling.settle(KeptUsage::Stripe, (unit, sent, theirs), self.now) {
            settling.differences.pop();
            decide::stand(&mut one.usage, rows, theirs);
            let said = format!(
                "By a person's decision, Stripe's number of {} stands: {theirs}, and not {sent}",
                unit.in_plans()
            );
            self.context.events.normal(self.tenant, "UsageSettled", said);
            return Ok(true);
        }
        // After the last invoice, nothing bills what is sent.
        if !seen || there.ended_at.is_some() || !settling.wants(KeptUsage::Ledger, (unit, sent, theirs)) {
            return Ok(false);
        }
        let Some(choice) = settling.choice else { return Ok(false) };
        let name = difference_identifier(self.tenant.tenant_id(), &one.meter.id, one.usage.since, &choice);
        let (meter, customer) = (&one.meter, &*there.customer);
        let at = self.now.max(one.item.created).max(there.period_start);
        self.context.providers.stripe.note_meter(&there.id, &there.notes, (unit, &one.meter.id)).await?;
        one.sent = true;
        let report = Report { meter, customer, identifier: &name, at, amount: sent - theirs };
        self.context.providers.stripe.report(&report).await?;
        settling.settle(KeptUsage::Ledger, (unit, sent, theirs), self.now);
        let said = format!(
            "By a person's decision, {} {} were sent to Stripe, which had {theirs} and not {sent}",
            sent - theirs,
            unit.in_plans()
        );
        self.context.events.normal(self.tenant, "UsageSettled", said);
        Ok(true)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(second: i64) -> Timestamp {
        Timestamp::from_second(second)
    }

    const NOON: i64 = 1_800_014_400;

    #[test]
    fn a_difference_is_sent_once_for_each_decision() {
        let choice =
            UsageChoice { keep: KeptUsage::Ledger, unit: Unit::Queries, ledger: 12, stripe: 5, at: at(NOON - 60) };
        let name = |choice: &UsageChoice| difference_identifier("acme", "mtr_1", at(NOON), choice);
        assert_eq!(name(&choice), name(&choice));
        assert_ne!(name(&choice), name(&UsageChoice { stripe: 6, ..choice }));
        assert_ne!(name(&choice), name(&UsageChoice { at: at(NOON), ..choice }), "decided again");
        assert!(name(&choice).len() <= 100);
    }

    #[test]
    fn what_a_person_decides_holds_for_the_numbers_that_were_shown_and_once() {
        let choice =
            UsageChoice { keep: KeptUsage::Ledger, unit: Unit::Queries, ledger: 12, stripe: 5, at: at(NOON - 60) };
        let (now, mut recorded) = (at(NOON), UsageBilling::default());
        let settle = |recorded: &UsageBilling, keep, numbers| {
            let mut settling = Settling { choice: Some(choice), recorded, differences: vec![], decision: None };
            (settling.settle(keep, numbers, now), settling.decision)
        };
        let wanted = (Unit::Queries, 12, 5);
        let (done, decision) = settle(&recorded, KeptUsage::Ledger, wanted);
        assert!(done && decision == Some(choice.done(now)));
        for (keep, numbers) in [
            (KeptUsage::Stripe, wanted),
            (KeptUsage::Ledger, (Unit::PromptTokens, 12, 5)),
            (KeptUsage::Ledger, (Unit::Queries, 13, 5)),
            (KeptUsage::Ledger, (Unit::Queries, 12, 6)),
        ] {
            assert_eq!(settle(&recorded, keep, numbers), (false, None), "{keep} {numbers:?}");
        }
        recorded.decision = decision;
        assert_eq!(settle(&recorded, KeptUsage::Ledger, wanted), (false, None), "once");
    }
}
