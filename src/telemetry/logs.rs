//! Logs to standard error or to a file, whose level can be changed while the process runs.

use std::sync::OnceLock;

use tracing_subscriber::fmt::writer::BoxMakeWriter;
use tracing_subscriber::layer::SubscriberExt;
use tracing_subscriber::util::SubscriberInitExt;
use tracing_subscriber::{EnvFilter, Layer, Registry, fmt, reload};

/// The level of other crates, for any level of our own: at debug and below, some of them log headers, and keys with
/// them. kube's client warns of an answer that it cannot read, with the whole answer: personal data, and Secrets.
const OTHERS: &str = "warn,kube_client=error";

/// Targets whose lines are records, not diagnostics, so every level keeps them: the customers' actions (`audit`), and,
/// without an events file, the only copy of each event (`activation`) and state change (`transition`).
const RECORDS: [&str; 3] = ["audit", "activation", "transition"];

static FILTER: OnceLock<reload::Handle<EnvFilter, Registry>> = OnceLock::new();

/// Logs to standard error or to a file, filtered by `RUST_LOG`; as JSON where `LOG_FORMAT=json`. The records of
/// [`RECORDS`] are logged as well, unless `RUST_LOG` names their target, as in `audit=off`.
pub fn init_logs(file: Option<std::fs::File>) {
    let wanted = std::env::var(EnvFilter::DEFAULT_ENV).ok().filter(|filter| !filter.trim().is_empty());
    let filter = wanted.and_then(|filter| EnvFilter::try_new(with_records(&filter)).ok());
    let filter = filter.unwrap_or_else(|| of_level("info"));
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
    EnvFilter::new(with_records(&format!("{OTHERS},tenant_operator={level}")))
}

/// The filter with a directive for each record's target that it does not name itself.
fn with_records(filter: &str) -> String {
    let names = |target: &str| {
        filter.split(',').any(|directive| directive.split(['=', '[']).next().map(str::trim) == Some(target))
    };
    let missing = RECORDS.into_iter().filter(|target| !names(target)).map(|target| format!(",{target}=info"));
    [filter.to_owned()].into_iter().chain(missing).collect()
}

/// The filter that applies now.
pub fn current() -> String {
    FILTER.get().and_then(|handle| handle.with_current(ToString::to_string).ok()).unwrap_or_default()
}

/// Logs this program at `level` from now on, and other crates and the records of [`RECORDS`] as ever.
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

#[cfg(test)]
mod tests {
    use std::io::Write;
    use std::sync::{Arc, Mutex};

    use super::*;

    #[derive(Clone, Default)]
    struct Lines(Arc<Mutex<Vec<u8>>>);

    impl Write for Lines {
        fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
            self.0.lock().expect("not poisoned").write(bytes)
        }

        fn flush(&mut self) -> std::io::Result<()> {
            Ok(())
        }
    }

    /// What a filter lets through of one line for each target.
    fn logged(filter: EnvFilter) -> String {
        let lines = Lines::default();
        let writer = lines.clone();
        let layer = fmt::layer().with_writer(move || writer.clone()).with_ansi(false);
        tracing::subscriber::with_default(tracing_subscriber::registry().with(filter).with(layer), || {
            tracing::info!(target: "audit", "line-audit");
            tracing::info!(target: "activation", "line-activation");
            tracing::info!(target: "transition", "line-transition");
            tracing::info!(target: "tenant_operator", "line-own");
            tracing::info!(target: "hyper", "line-other");
        });
        let text = lines.0.lock().expect("not poisoned").clone();
        String::from_utf8(text).expect("text")
    }

    #[test]
    fn every_level_keeps_the_records() {
        for level in ["error", "warn", "info", "debug", "trace"] {
            let lines = logged(of_level(level));
            for record in RECORDS {
                assert!(lines.contains(&format!("line-{record}")), "{record} at {level}: {lines}");
            }
            assert_eq!(lines.contains("line-own"), !["error", "warn"].contains(&level), "{level}: {lines}");
            assert!(!lines.contains("line-other"), "{level}: {lines}");
        }
    }

    #[test]
    fn a_filter_of_the_admin_keeps_the_records_that_it_does_not_name() {
        let lines = logged(EnvFilter::new(with_records("warn,tenant_operator=debug,audit=off")));
        assert!(!lines.contains("line-audit"), "{lines}");
        assert!(lines.contains("line-activation") && lines.contains("line-transition"), "{lines}");
    }
}
