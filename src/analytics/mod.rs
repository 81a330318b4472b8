//! Figures of how customers come to their first useful answer: how many reach each milestone, how long it takes, and
//! who is stuck. Pure: what is known of each customer goes in, numbers come out. `docs/funnel.md` defines each figure.

mod activation;
mod durations;
mod funnel;
mod histogram;
mod journey;
mod milestone;
mod rates;
mod stuck;
mod tables;
mod words;

pub use activation::{ActivationMetrics, Target, Targets};
pub use durations::Durations;
pub use funnel::{ConversionRates, Funnel, FunnelStep, Group, Span};
pub use histogram::{TimeBucket, TimeRange, activation_histogram};
pub use journey::{Customer, Journey};
pub use milestone::Milestone;
pub use rates::{ENOUGH, Interval, Verdict};
pub use stuck::{Stuck, StuckAfter, StuckCustomer, StuckReason, stuck, stuck_reason};
pub use words::{minutes, percent};
