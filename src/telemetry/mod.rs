//! Logs, metrics and traces.

pub mod log_level;
mod logs;
mod metrics;
mod traces;

pub use logs::init_logs;
pub use metrics::{
    ActivationLabels, CommandLabels, Label, METRICS_TYPE, Metrics, OutcomeLabel, ProviderLabel, ProviderLabels,
};
pub use traces::{Span, TracesError, flush_traces, init_traces, trace_id};
