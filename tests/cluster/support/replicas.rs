//! Replicas of web behind what a Service is: requests go to those that are ready, and one that is killed comes back with
//! the journal that it had.

use std::path::PathBuf;
use std::process::Stdio;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use super::{Process, World};

/// Where one replica is: how often it has begun, and its address once it is ready.
#[derive(Clone, Debug, Default)]
struct Endpoint {
    begun: u32,
    ready: Option<String>,
}

/// The replicas that are ready.
#[derive(Clone, Debug)]
pub struct Ready(Arc<Mutex<Vec<Endpoint>>>);

impl Ready {
    fn endpoints(&self) -> std::sync::MutexGuard<'_, Vec<Endpoint>> {
        self.0.lock().expect("not poisoned")
    }

    /// Their addresses.
    pub fn addresses(&self) -> Vec<String> {
        self.endpoints().iter().filter_map(|endpoint| endpoint.ready.clone()).collect()
    }

    /// The address of one of them, chosen by a number. Waits until one is ready.
    pub async fn one(&self, number: usize) -> String {
        loop {
            let all = self.addresses();
            if !all.is_empty() {
                return all[number % all.len()].clone();
            }
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    }

    /// A replica begins; answers how often it has by now.
    fn begin(&self, replica: usize) -> u32 {
        let endpoint = &mut self.endpoints()[replica];
        *endpoint = Endpoint { begun: endpoint.begun + 1, ready: None };
        endpoint.begun
    }

    /// It is ready, unless it was killed meanwhile. Answers whether it is still the same.
    fn set(&self, replica: usize, begun: u32, address: Option<&str>) -> bool {
        let endpoint = &mut self.endpoints()[replica];
        let same = endpoint.begun == begun;
        if same && address.is_some() {
            endpoint.ready = address.map(str::to_owned);
        }
        same
    }
}

struct Replica {
    /// None between its death and its next beginning.
    process: Option<Process>,
    journal: PathBuf,
    metrics: String,
}

/// The replicas.
pub struct Replicas {
    args: Vec<String>,
    all: Vec<Replica>,
    ready: Ready,
}

impl Replicas {
    /// So many of them, with these arguments.
    pub fn start(world: &mut World, count: usize, args: &[&str]) -> Self {
        world.start_ledger();
        let all = (0..count)
            .map(|_| Replica { process: None, journal: world.ledger.next_journal(), metrics: String::new() })
            .collect();
        let ready = Ready(Arc::new(Mutex::new(vec![Endpoint::default(); count])));
        let mut replicas = Self { args: args.iter().map(|arg| (*arg).to_owned()).collect(), all, ready };
        (0..count).for_each(|replica| replicas.begin(world, replica));
        replicas
    }

    pub fn ready(&self) -> Ready {
        self.ready.clone()
    }

    /// Kills one with SIGKILL, and starts it again.
    pub fn kill(&mut self, world: &World, replica: usize) {
        self.end(replica);
        self.begin(world, replica);
    }

    /// Kills one with SIGKILL.
    pub fn end(&mut self, replica: usize) {
        self.ready.begin(replica);
        self.all[replica].process.take().expect("it runs").kill();
    }

    /// The journal of one that does not run is lost with its volume.
    pub fn lose_journal(&self, replica: usize) {
        std::fs::remove_dir_all(&self.all[replica].journal).expect("it has a journal");
    }

    /// Starts one that does not run, with the journal that it had.
    pub fn begin(&mut self, world: &World, replica: usize) {
        let args: Vec<_> = self.args.iter().map(String::as_str).collect();
        let begun = self.ready.begin(replica);
        let slot = &mut self.all[replica];
        let (process, address, metrics) = world.web_process(&slot.journal, &args, Stdio::inherit());
        let probe = metrics.replace("/metrics", "/readyz");
        (slot.process, slot.metrics) = (Some(process), metrics);
        let (ready, http) = (self.ready.clone(), world.http.clone());
        tokio::spawn(async move {
            while ready.set(replica, begun, None) {
                if http.get(&probe).send().await.is_ok_and(|answer| answer.status() == 200) {
                    ready.set(replica, begun, Some(&address));
                    return;
                }
                tokio::time::sleep(Duration::from_millis(50)).await;
            }
        });
    }

    /// Waits until all are ready.
    pub async fn all_ready(&self, world: &World) {
        world.until("all replicas are ready", async || self.ready.addresses().len() == self.all.len()).await;
    }

    /// The address of one, once it is ready.
    pub async fn address(&self, replica: usize) -> String {
        loop {
            let ready = self.ready.endpoints()[replica].ready.clone();
            match ready {
                Some(address) => return address,
                None => tokio::time::sleep(Duration::from_millis(20)).await,
            }
        }
    }

    /// The sum of a metric without labels over all of them.
    pub async fn metric(&self, world: &World, name: &str) -> u64 {
        let mut sum = 0;
        for replica in 0..self.all.len() {
            sum += self.metric_of(world, replica, name).await;
        }
        sum
    }

    /// A metric without labels of one of them.
    pub async fn metric_of(&self, world: &World, replica: usize, name: &str) -> u64 {
        let answer = world.http.get(&self.all[replica].metrics).send().await.expect("metrics");
        let text = answer.text().await.expect("text");
        let value = text.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(' '));
        value.and_then(|value| value.parse::<u64>().ok()).unwrap_or_else(|| panic!("no {name}"))
    }
}
