//! The milestones on a customer's way, in their order.

use serde::Serialize;
use strum::{EnumCount, EnumIter, IntoStaticStr};

/// What a customer reaches. `docs/milestones.md` says when each counts.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, EnumCount, EnumIter, IntoStaticStr, Serialize)]
#[serde(rename_all = "snake_case")]
#[strum(serialize_all = "snake_case")]
pub enum Milestone {
    /// The Tenant was created.
    Signup,
    /// The customer opened a link that was sent to their address.
    EmailVerified,
    /// The payment or the trial was confirmed.
    Payment,
    /// The Tenant was Active for the first time.
    Provisioned,
    /// The customer opened the account page of an account in service.
    FirstLogin,
    /// The first answer with a source.
    SampleQuery,
    /// The first document of the customer's own.
    FirstDocument,
    /// The first answer from the customer's own documents.
    OwnQuery,
    /// Ten answered questions.
    TenQueries,
    /// The setup was completed.
    Completed,
}

impl Milestone {
    /// Its name in events, pages and figures.
    pub fn name(self) -> &'static str {
        self.into()
    }
}
