//! For a customer: the account and its progress, the setup, the plan, exports, and leaving.

pub mod export;
pub mod leaving;
pub mod milestones;
pub mod payment_link;
pub mod plan;
pub mod progress;
pub mod setup;
pub mod tenant;
pub mod track;
