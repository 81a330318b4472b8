//! Programs that run beside this one: their start, their end, and what they wrote last.

use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::time::Duration;

use anyhow::Context as _;
use reqwest::RequestBuilder;
use rustix::process::{Pid, Signal, kill_process};
use tokio::process::{Child, Command};

/// Lines of the log that an error shows.
const LAST_LINES: usize = 5;
/// How often a program that starts is asked whether it is ready.
const LOOK_AGAIN: Duration = Duration::from_millis(50);

/// A program that writes to a log file of its own.
#[derive(Debug)]
pub struct Process {
    name: &'static str,
    log: PathBuf,
    child: Child,
}

/// Waits until this request is answered with success.
pub async fn answers(request: impl Fn() -> RequestBuilder) {
    while !request().send().await.is_ok_and(|answer| answer.status().is_success()) {
        tokio::time::sleep(LOOK_AGAIN).await;
    }
}

impl Process {
    /// Starts a program with its log in `folder`. It gets a process group of its own: Ctrl-C then reaches this program
    /// alone, which stops the others in their order.
    pub fn start(name: &'static str, command: &mut Command, folder: &Path) -> anyhow::Result<Self> {
        let log = folder.join(format!("{name}.log"));
        let file = std::fs::File::create(&log)?;
        let child = command
            .stdin(Stdio::null())
            .stdout(file.try_clone()?)
            .stderr(file)
            .process_group(0)
            .kill_on_drop(true)
            .spawn()
            .with_context(|| format!("starting {}", command.as_std().get_program().display()))?;
        Ok(Self { name, log, child })
    }

    /// The process id; 0 once it has ended.
    pub fn id(&self) -> u32 {
        self.child.id().unwrap_or(0)
    }

    /// Waits until the program answers this request with success.
    pub async fn ready(&mut self, request: impl Fn() -> RequestBuilder, limit: Duration) -> anyhow::Result<()> {
        tokio::select! {
            () = answers(request) => Ok(()),
            error = self.ended() => Err(error),
            () = tokio::time::sleep(limit) => Err(self.failed(&format!("was not ready after {} s", limit.as_secs()))),
        }
    }

    /// Waits until the program ends by itself, and says so.
    pub async fn ended(&mut self) -> anyhow::Error {
        match self.child.wait().await {
            Ok(status) => self.failed(&format!("ended with {status}")),
            Err(error) => self.failed(&error.to_string()),
        }
    }

    /// What went wrong, with the last lines of the log.
    fn failed(&self, why: &str) -> anyhow::Error {
        let text = std::fs::read_to_string(&self.log).unwrap_or_default();
        let lines: Vec<_> = text.lines().collect();
        let last = lines[lines.len().saturating_sub(LAST_LINES)..].join("\n");
        anyhow::anyhow!("{} {why}; the last lines of {}:\n{last}", self.name, self.log.display())
    }

    /// Stops the program and waits for its end: one that ended late would keep its ports. Kills it after `limit`.
    pub async fn stop(&mut self, limit: Duration) {
        if let Some(pid) = self.child.id().and_then(|id| i32::try_from(id).ok()).and_then(Pid::from_raw) {
            let _ = kill_process(pid, Signal::TERM);
        }
        if tokio::time::timeout(limit, self.child.wait()).await.is_err() {
            drop(self.child.kill().await);
        }
    }
}
