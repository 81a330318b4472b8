//! Logs, metrics and traces.

pub mod log_level;
mod logs;
mod metrics;

pub use logs::init_logs;
pub use metrics::{Label, METRICS_TYPE, Metrics, ProviderLabels};
