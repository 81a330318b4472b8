//! What each event on a customer's way means: one text for the code's readers, the page of definitions and the figures.

/// What an event means.
#[derive(Clone, Copy, Debug)]
pub struct Definition {
    /// The event's type.
    pub event: &'static str,
    /// When it is recorded with the outcome `success`, once for each tenant.
    pub success: &'static str,
    /// When it is recorded with the outcomes `attempt` and `failure`. Empty if it has none.
    pub attempts: &'static str,
}

const fn once(event: &'static str, success: &'static str) -> Definition {
    Definition { event, success, attempts: "" }
}

/// The milestones, in the order of a customer's way.
pub const DEFINITIONS: [Definition; 10] = [
    once("signup", "The customer sent the signup form, and their Tenant was created."),
    once("email_verified", "The customer opened a link that was sent to their address."),
    once("payment", "Stripe confirmed the payment or the trial; the Tenant left `PendingPayment`."),
    once("provisioned", "The Tenant became `Active` for the first time after the payment."),
    once(
        "first_login",
        "The customer opened their account page while the account was in service. Pages shown before, such as the one to pay on, do \
         not count.",
    ),
    Definition {
        event: "sample_query",
        success: "A question of the customer got a complete answer that rests on at least one passage. \"Nothing found\" and an \
                  answer that broke off do not count.",
        attempts: "A question, until the milestone is reached and as long as the customer has no document of their own. A failure \
                   names its `reason`.",
    },
    Definition {
        event: "first_document",
        success: "The first document of the customer's own is stored, and questions find it.",
        attempts: "A file that was sent, until the milestone is reached. A failure names its `reason`.",
    },
    Definition {
        event: "own_query",
        success: "A question got a complete answer that rests on at least one passage of the customer's own documents.",
        attempts: "A question of a customer who has a document of their own, until the milestone is reached. A failure names its \
                   `reason`.",
    },
    once("ten_queries", "Ten questions of the customer were answered since the account began."),
    once("completed", "The customer reached all steps of the setup and completed it."),
];

/// The page of definitions.
pub fn page(made: &str) -> String {
    let mut page = format!(
        "# Definitions of the milestones\n\n{made} These are the events of [onboarding](onboarding.md#events), and what each \
         means. Pages, the setup's API and the tenant API count alike. Each event names its `origin`: `signup`, `invitation` or \
         `manifest`. A tenant that was applied as a manifest may never use the pages, so rates leave it out.\n\n\
         | event | success | attempt and failure |\n| --- | --- | --- |\n"
    );
    for Definition { event, success, attempts } in DEFINITIONS {
        page.extend(["| `", event, "` | ", success, " | ", attempts, " |\n"]);
    }
    page.push_str(
        "\nReasons of a failure are the `code` of the answer that the client got, or `nothing_found` (no passage is relevant to the \
         question) and `broken_off` (the stream ended with an error). A question that fails or finds nothing is not counted \
         against the plan. A question whose client hangs up is counted, because the providers were asked.\n",
    );
    page
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::api::MILESTONES;

    #[test]
    fn every_milestone_is_defined_in_its_order() {
        let defined: Vec<_> = DEFINITIONS.iter().map(|d| d.event.replace('_', "-")).collect();
        let noted: Vec<_> = defined.iter().filter(|name| MILESTONES.contains(&name.as_str())).collect();
        assert_eq!(noted, MILESTONES.iter().collect::<Vec<_>>());
    }
}
