//! Every change of phase that there is. A decision that takes another way is a bug, which the tests of decisions and
//! the model find.

use crate::api::Phase;
use crate::api::phase::EventType;

/// A change of phase.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Arrow {
    /// The phase before; none for an object that was just made.
    pub from: Option<Phase>,
    /// The phase after.
    pub to: Phase,
    /// The kind of change.
    pub event: EventType,
    /// When it happens.
    pub when: &'static str,
}

const fn arrow(from: Phase, to: Phase, event: EventType, when: &'static str) -> Arrow {
    Arrow { from: Some(from), to, event, when }
}

/// All of them, in the order of a tenant's life.
pub const TRANSITIONS: [Arrow; 27] = [
    Arrow { from: None, to: Phase::PendingPayment, event: EventType::Signup, when: "the Tenant was created" },
    arrow(
        Phase::PendingPayment,
        Phase::Provisioning,
        EventType::Provision,
        "paid or approved, and the e-mail address confirmed if that is required",
    ),
    arrow(Phase::PendingPayment, Phase::Failed, EventType::Fail, "paid, and the e-mail address never confirmed"),
    arrow(Phase::Provisioning, Phase::Active, EventType::Activate, "all steps are complete"),
    arrow(
        Phase::Provisioning,
        Phase::Failed,
        EventType::Fail,
        "the attempts are used up, or the tenant was on hold for too long, and it was never served",
    ),
    arrow(
        Phase::Provisioning,
        Phase::Suspended,
        EventType::Suspend,
        "all steps are complete, but meanwhile the subscription ended or an admin suspended the tenant",
    ),
    arrow(
        Phase::Failed,
        Phase::Provisioning,
        EventType::Provision,
        "a retry was requested, or the address confirmed late",
    ),
    arrow(
        Phase::Active,
        Phase::Provisioning,
        EventType::Provision,
        "a retry was requested because the Pinecone namespace is missing",
    ),
    arrow(Phase::Active, Phase::Upgrading, EventType::Upgrade, "spec.plan names a larger plan"),
    arrow(Phase::Upgrading, Phase::Active, EventType::Activate, CHANGED),
    arrow(
        Phase::Active,
        Phase::Downgrading,
        EventType::Downgrade,
        "spec.plan names a smaller plan, and its date has come",
    ),
    arrow(Phase::Downgrading, Phase::Active, EventType::Activate, CHANGED),
    arrow(
        Phase::Active,
        Phase::Suspended,
        EventType::Suspend,
        "the subscription ended, a payment is late beyond the grace period, or an admin suspended it",
    ),
    arrow(Phase::Suspended, Phase::Active, EventType::Reactivate, "the customer paid, or the admin resumed it"),
    Arrow { from: None, to: Phase::Deleting, event: EventType::Delete, when: DELETED },
    arrow(Phase::PendingPayment, Phase::Deleting, EventType::Delete, DELETED),
    arrow(Phase::Provisioning, Phase::Deleting, EventType::Delete, DELETED),
    arrow(Phase::Active, Phase::Deleting, EventType::Delete, DELETED),
    arrow(Phase::Upgrading, Phase::Deleting, EventType::Delete, DELETED),
    arrow(Phase::Downgrading, Phase::Deleting, EventType::Delete, DELETED),
    arrow(Phase::Suspended, Phase::Deleting, EventType::Delete, DELETED),
    arrow(Phase::Failed, Phase::Deleting, EventType::Delete, DELETED),
    arrow(Phase::Deleting, Phase::Active, EventType::Reactivate, "taken back before its data was erased, and paid for"),
    arrow(
        Phase::Deleting,
        Phase::Suspended,
        EventType::Reactivate,
        "taken back before its data was erased, and to be paid for",
    ),
    arrow(Phase::Deleting, Phase::PendingPayment, EventType::Reactivate, "taken back, and never set up before"),
    Arrow {
        from: None,
        to: Phase::Deleted,
        event: EventType::Delete,
        when: "the record of an erased tenant lost its status",
    },
    arrow(Phase::Deleting, Phase::Deleted, EventType::Delete, "everything is erased"),
];

const CHANGED: &str = "the plan is in force, or the earlier one stays";
const DELETED: &str = "spec.desired is Deleted, or the object is deleted to erase it";

/// Whether there is such a change.
pub fn is_known(from: Option<Phase>, to: Phase, event: EventType) -> bool {
    TRANSITIONS.iter().any(|arrow| arrow.from == from && arrow.to == to && arrow.event == event)
}
