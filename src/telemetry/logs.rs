//! Logs to standard error or to a file, whose level can be changed while the process runs.

use std::sync::OnceLock;

use tracing_subscriber::fmt::writer::BoxMakeWriter;
use tracing_subscriber::layer::SubscriberExt;
use tracing_subscriber::util::SubscriberInitExt;
use tracing_subscriber::{EnvFilter, Layer, Registry, fmt, reload};

/// What is logged of other crates, whatever the level: at debug and below, some log headers, and with them keys.
const OTHERS: &str = "warn";

static FILTER: OnceLock<reload::Handle<EnvFilter, Registry>> = OnceLock::new();

/// Logs to standard error or to a file, filtered by `RUST_LOG`; as JSON where `LOG_FORMAT=json`.
pub fn init_logs(file: Option<std::fs::File>) {
    let filter = EnvFilter::try_from_default_env().unwrap_or_else(|_| of_level("info"));
    let (filter, handle) = reload::Layer::new(filter);
    let plain = file.is_some();
    let writer = match file {
        Some(file) => BoxMakeWriter::new(std::sync::Mutex::new(file)),
        None => BoxMakeWriter::new(std::io::stderr),
    };
    let colour = !plain && std::io::IsTerminal::is_terminal(&std::io::stderr());
    let json = std::env::var("LOG_FORMAT").is_ok_and(|f| f == "json");
    let lines = fmt::layer().with_writer(writer).with_ansi(colour);
    let lines = if json { lines.json().boxed() } else { lines.boxed() };
    // An error says only that it was done before.
    if tracing_subscriber::registry().with(filter).with(lines).try_init().is_ok() {
        drop(FILTER.set(handle));
    }
}

fn of_level(level: &str) -> EnvFilter {
    EnvFilter::new(format!("{OTHERS},tenant_operator={level}"))
}

/// The filter that applies now.
pub fn current() -> String {
    FILTER.get().and_then(|handle| handle.with_current(ToString::to_string).ok()).unwrap_or_default()
}

/// Logs this program at `level` from now on, and other crates as ever.
pub fn set_level(level: tracing::Level) {
    if let Some(handle) = FILTER.get() {
        // An error says that logging has ended.
        drop(handle.reload(of_level(&level.to_string().to_lowercase())));
    }
}

/// Puts a filter back that [`current`] answered.
pub fn restore(filter: &str) {
    if let Some(handle) = FILTER.get() {
        drop(handle.reload(EnvFilter::new(filter)));
    }
}
