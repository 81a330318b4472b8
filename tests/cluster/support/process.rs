//! The product's program, and processes that end with their test.

use std::process::{Child, Command, Output, Stdio};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use tokio::process::Command as AsyncCommand;

use super::LIMIT;

/// The product's program.
pub const BINARY: &str = env!("CARGO_BIN_EXE_tenant-operator");
/// How a controller ends that lost its lease, and how often it is started again.
const LEASE_LOST: i32 = 1;
const RESTARTS: u32 = 100;

/// A port that was free a moment ago.
pub fn free_port() -> u16 {
    std::net::TcpListener::bind("127.0.0.1:0").expect("a port").local_addr().expect("its address").port()
}
/// Both outputs of a program.
pub fn said(output: &Output) -> String {
    String::from_utf8_lossy(&output.stdout).into_owned() + &String::from_utf8_lossy(&output.stderr)
}

/// Sends a signal by its name. False if the process is gone.
pub fn signal(child: &Child, name: &str) -> bool {
    Command::new("kill").args(["-s", name, &child.id().to_string()]).status().is_ok_and(|s| s.success())
}

/// A process that is killed with the test.
pub struct Process {
    child: Arc<Mutex<Child>>,
    /// Whether it is not started again once it has ended.
    over: Arc<AtomicBool>,
}

impl From<Child> for Process {
    fn from(child: Child) -> Self {
        Self::of(child)
    }
}

impl Process {
    pub fn of(child: Child) -> Self {
        Self { child: Arc::new(Mutex::new(child)), over: Arc::new(AtomicBool::new(true)) }
    }

    /// A controller that is started again when it ends because it lost its lease, as the kubelet does: a busy machine
    /// does not renew the short leases of the tests in time.
    pub fn supervised(mut command: Command) -> Self {
        let process = Self::of(command.spawn().expect("the controller starts"));
        process.over.store(false, Ordering::SeqCst);
        let (child, over) = (process.child.clone(), process.over.clone());
        std::thread::spawn(move || {
            for _ in 0..RESTARTS {
                loop {
                    std::thread::sleep(Duration::from_millis(100));
                    let mut child = child.lock().expect("not poisoned");
                    if over.load(Ordering::SeqCst) {
                        return;
                    }
                    match child.try_wait().expect("a child of ours").map(|status| status.code()) {
                        None => {}
                        Some(Some(LEASE_LOST)) => {
                            *child = command.spawn().expect("the controller starts");
                            break;
                        }
                        Some(_) => return,
                    }
                }
            }
        });
        process
    }

    /// SIGKILL: nothing of it gets to clean up.
    pub fn kill(self) {
        self.over.store(true, Ordering::SeqCst);
        let mut child = self.child.lock().expect("not poisoned");
        child.kill().expect("it runs");
        child.wait().expect("it ends");
    }

    /// Its number.
    pub fn id(&self) -> u32 {
        self.child.lock().expect("not poisoned").id()
    }

    /// Whether it has not ended.
    pub fn runs(&mut self) -> bool {
        self.child.lock().expect("not poisoned").try_wait().expect("a child of ours").is_none()
    }

    /// Sends a signal. What gets one is not started again.
    pub fn signal(&self, name: &str) {
        self.over.store(true, Ordering::SeqCst);
        assert!(signal(&self.child.lock().expect("not poisoned"), name), "the process is not there");
    }

    /// The exit code, once it has ended by itself.
    pub async fn exit_code(&mut self) -> Option<i32> {
        let start = Instant::now();
        loop {
            let ended = self.child.lock().expect("not poisoned").try_wait().expect("a child of ours");
            if let Some(status) = ended {
                return status.code();
            }
            assert!(start.elapsed() < LIMIT, "the process does not end");
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        self.over.store(true, Ordering::SeqCst);
        let mut child = self.child.lock().expect("not poisoned");
        let _ = child.kill();
        let _ = child.wait();
    }
}

/// Runs a program that must succeed, and answers what it said.
pub async fn must(command: &mut AsyncCommand) -> String {
    let output = command.stdin(Stdio::null()).output().await.expect("it runs");
    let text = said(&output);
    assert!(output.status.success(), "{command:?}: {text}");
    text
}
