//! The kinds of things that need an owner: what each means, and the command that deals with it.

use strum::{EnumIter, EnumString, IntoStaticStr};

use crate::api::{ACCEPT_DISPUTE_ANNOTATION, Place};

/// Why a tenant needs an owner, the most urgent first.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, EnumIter, EnumString, IntoStaticStr)]
#[strum(serialize_all = "kebab-case")]
pub enum Kind {
    /// Provisioning failed for good.
    Failed,
    /// A payment is not refunded yet.
    RefundOwed,
    /// The operator holds a decision until a person confirms it.
    Held,
    /// The customer disputes a payment.
    Disputed,
    /// The phase lasts longer than normal.
    PhaseTooLong,
    /// A provider does not answer, or something must be fixed there.
    OnHold,
    /// The namespace of the documents is missing, or is not the only one.
    DataUnclear,
    /// Usage is not sent to Stripe.
    UsageNotBilled,
    /// Stripe bills something else than the plan, or nothing.
    BilledWrong,
    /// A payment is missing, so the tenant is not served.
    SuspendedForPayment,
    /// In service, and never logged in.
    StuckAfterPayment,
    /// Logged in, and no question was answered.
    StuckAfterLogin,
    /// Asked, and stored no document.
    StuckAfterQuery,
    /// The data should be erased by now.
    ErasureOverdue,
    /// A legal hold stops the erasure.
    ErasureOnHold,
}

impl Kind {
    /// Its name in addresses.
    pub fn name(self) -> &'static str {
        self.into()
    }

    /// The head of its list.
    pub const fn title(self) -> &'static str {
        match self {
            Self::Failed => "Provisioning failed",
            Self::RefundOwed => "Refunds that are owed",
            Self::Held => "Decisions that wait for you",
            Self::Disputed => "Disputed payments",
            Self::PhaseTooLong => "Longer in a phase than normal",
            Self::OnHold => "On hold with a provider",
            Self::DataUnclear => "Documents that are missing or in two places",
            Self::UsageNotBilled => "Usage that is not billed",
            Self::BilledWrong => "Billed differently than planned",
            Self::SuspendedForPayment => "Suspended: payment missing or subscription ended",
            Self::StuckAfterPayment => "In service and never logged in",
            Self::StuckAfterLogin => "Logged in, no answer yet",
            Self::StuckAfterQuery => "Got an answer, no document of their own",
            Self::ErasureOverdue => "Erasures that are overdue",
            Self::ErasureOnHold => "Erasures on legal hold",
        }
    }

    /// What it means, and what to do.
    pub const fn meaning(self) -> &'static str {
        match self {
            Self::Failed => "The operator stopped trying to set up the tenant. Fix the cause, then retry.",
            Self::RefundOwed => {
                "The customer paid and has not got the money back. The controller retries; the message says what it waits for."
            }
            Self::Held => {
                "The change would affect too many tenants at once, or Stripe does not know the customer. Look at the cause, then confirm."
            }
            Self::Disputed => {
                "The customer disputes a payment at the bank. Answer in Stripe's dashboard. If the bank decided for the customer and \
                 you settled it with them, set the annotation to the dispute's id, which the message names."
            }
            Self::PhaseTooLong => {
                "The tenant should have left its phase by now. The command explains what it waits for."
            }
            Self::OnHold => {
                "A provider does not answer or refuses. The tenant continues by itself once the message's cause is gone."
            }
            Self::DataUnclear => {
                "The tenant's namespace is gone, or a second one holds documents of the tenant. The command explains which."
            }
            Self::UsageNotBilled => {
                "Stripe does not have all usage of this tenant, so the invoice is too low. The command shows the numbers."
            }
            Self::BilledWrong => {
                "Stripe bills another price or a second subscription, or nothing for a tenant that is served. The command lists what is billed."
            }
            Self::SuspendedForPayment => {
                "The customer has not paid, or ended the subscription, and is not served. The operator keeps the data. The command prints the link to pay."
            }
            Self::StuckAfterPayment => {
                "The tenant is in service for 48 hours, and the customer has not opened the account."
            }
            Self::StuckAfterLogin => "The customer logged in 24 hours ago and has no answer with a source yet.",
            Self::StuckAfterQuery => "The customer got the first answer 24 hours ago and has stored no document.",
            Self::ErasureOverdue => {
                "The data of a closed tenant should be erased by now. The command explains what is left and why."
            }
            Self::ErasureOnHold => "A legal hold keeps the data. docs/operations.md says how to end it.",
        }
    }

    /// The command that deals with it.
    pub fn command(self, place: Place<'_>) -> String {
        let Place { namespace, name } = place;
        let tenant = |command: &str| format!("kubectl tenant {command} {name} -n {namespace}");
        match self {
            Self::Failed => tenant("retry"),
            Self::Held => tenant("confirm"),
            // A list of things to do does not offer to lift a legal hold: what is erased then does not come back.
            Self::RefundOwed
            | Self::PhaseTooLong
            | Self::OnHold
            | Self::DataUnclear
            | Self::ErasureOverdue
            | Self::ErasureOnHold => tenant("why"),
            Self::Disputed => {
                format!("kubectl annotate --overwrite tenant {name} -n {namespace} {ACCEPT_DISPUTE_ANNOTATION}=DISPUTE")
            }
            Self::UsageNotBilled => tenant("usage") + " --billed",
            Self::BilledWrong => tenant("subscriptions"),
            Self::SuspendedForPayment => tenant("open"),
            Self::StuckAfterPayment | Self::StuckAfterLogin | Self::StuckAfterQuery => tenant("describe"),
        }
    }
}

#[cfg(test)]
mod tests {
    use std::collections::HashSet;

    use strum::IntoEnumIterator;

    use super::*;

    #[test]
    fn every_kind_has_a_name_a_title_and_a_command_of_that_tenant() {
        let place = Place { namespace: "rag-tenants", name: "acme" };
        let mut seen = HashSet::new();
        for kind in Kind::iter() {
            assert_eq!(kind.name().parse(), Ok(kind));
            assert!(seen.insert(kind.title()) && kind.meaning().ends_with('.'), "{kind:?}");
            let command = kind.command(place);
            assert!(command.starts_with("kubectl ") && command.contains(" acme -n rag-tenants"), "{command}");
        }
    }

    /// `make generate` writes the reference from the command line itself, so what it names exists.
    #[test]
    fn the_commands_exist() {
        let reference = include_str!("../../../docs/cli.md");
        for kind in Kind::iter() {
            let command = kind.command(Place { namespace: "n", name: "t" });
            if let Some(rest) = command.strip_prefix("kubectl tenant ") {
                let name = rest.split(' ').next().unwrap_or_default();
                assert!(reference.contains(&format!("\n### {name}\n")), "{command}");
            }
        }
    }
}
