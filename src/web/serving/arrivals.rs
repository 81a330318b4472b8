//! Bodies on their way to web. Where one sender has too many of them, web gives up the body that has been on its way
//! for longest; where all senders together have too many, the oldest body of the sender who has most. Honest bodies
//! arrive within milliseconds, so bodies that are slow on purpose displace each other, and not the quick body of a
//! stranger behind the same address, such as Stripe's where web sees the address of its proxy alone.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::hash::Hash;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use tokio::sync::oneshot;

/// The bodies on their way, by their senders.
#[derive(Debug)]
pub struct Arrivals<K> {
    /// Those of one sender.
    each: usize,
    all: usize,
    open: Arc<Mutex<Open<K>>>,
}

#[derive(Debug)]
struct Open<K> {
    count: u64,
    /// By their numbers: the lowest is the oldest.
    bodies: BTreeMap<u64, (K, oneshot::Sender<()>)>,
    by_sender: HashMap<K, BTreeSet<u64>>,
}

/// A body on its way, until it is dropped.
#[derive(Debug)]
pub struct Arrival<K: Clone + Eq + Hash> {
    number: u64,
    open: Arc<Mutex<Open<K>>>,
    given_up: oneshot::Receiver<()>,
}

impl<K: Clone + Eq + Hash> Arrivals<K> {
    /// So many bodies of one sender and in all.
    pub fn new(each: usize, all: usize) -> Self {
        let open = Open { count: 0, bodies: BTreeMap::new(), by_sender: HashMap::new() };
        Self { each: each.max(1), all: all.max(1), open: Arc::new(Mutex::new(open)) }
    }

    /// One more body. Gives up the sender's oldest where the sender has too many, and where there are too many of all,
    /// the oldest of the sender who has most of them.
    pub fn begin(&self, sender: K) -> Arrival<K> {
        let mut open = lock(&self.open);
        let own = open.by_sender.get(&sender).filter(|own| own.len() >= self.each);
        let crowded = || open.by_sender.values().max_by_key(|own| own.len()).filter(|_| open.bodies.len() >= self.all);
        let oldest = own.or_else(crowded).and_then(BTreeSet::first).copied();
        if let Some(give_up) = oldest.and_then(|oldest| open.remove(oldest)) {
            // It may have arrived in this moment.
            let _ = give_up.send(());
        }
        open.count += 1;
        let (number, (signal, given_up)) = (open.count, oneshot::channel());
        open.by_sender.entry(sender.clone()).or_default().insert(number);
        open.bodies.insert(number, (sender, signal));
        Arrival { number, open: self.open.clone(), given_up }
    }
}

impl<K: Clone + Eq + Hash> Arrival<K> {
    /// Returns once web gives the body up for others.
    pub async fn given_up(&mut self) {
        // The other half ends with this one, or by giving it up.
        drop((&mut self.given_up).await);
    }
}

impl<K: Eq + Hash> Open<K> {
    fn remove(&mut self, number: u64) -> Option<oneshot::Sender<()>> {
        let (sender, give_up) = self.bodies.remove(&number)?;
        if let Some(own) = self.by_sender.get_mut(&sender) {
            own.remove(&number);
            if own.is_empty() {
                self.by_sender.remove(&sender);
            }
        }
        Some(give_up)
    }
}

impl<K: Clone + Eq + Hash> Drop for Arrival<K> {
    fn drop(&mut self) {
        lock(&self.open).remove(self.number);
    }
}

fn lock<K>(open: &Mutex<Open<K>>) -> MutexGuard<'_, Open<K>> {
    open.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn is_given_up(arrival: &mut Arrival<&'static str>) -> bool {
        arrival.given_up.try_recv() != Err(oneshot::error::TryRecvError::Empty)
    }

    fn given_up(arrivals: &mut [Arrival<&'static str>]) -> Vec<bool> {
        arrivals.iter_mut().map(is_given_up).collect()
    }

    #[test]
    fn a_sender_with_too_many_bodies_loses_its_oldest() {
        let arrivals = Arrivals::new(2, 100);
        let mut of: Vec<_> = ["b", "a", "a", "a"].map(|sender| arrivals.begin(sender)).into();
        assert_eq!(given_up(&mut of), [false, true, false, false], "the oldest of a, and none of b");
        drop(of.remove(2));
        let mut next = arrivals.begin("a");
        assert!(
            !is_given_up(&mut next) && given_up(&mut of) == [false, true, false],
            "one has ended, so there is room"
        );
    }

    #[test]
    fn the_sender_with_most_bodies_makes_room_where_there_are_too_many() {
        let arrivals = Arrivals::new(3, 4);
        let mut of: Vec<_> = ["a", "b", "b", "c"].map(|sender| arrivals.begin(sender)).into();
        let mut more = arrivals.begin("d");
        assert_eq!(given_up(&mut of), [false, true, false, false], "the oldest of b, and a is older");
        assert!(!is_given_up(&mut more));
    }

    #[test]
    fn nothing_is_kept_of_bodies_that_ended() {
        let arrivals = Arrivals::new(2, 3);
        drop(["a", "b", "a", "a"].map(|sender| arrivals.begin(sender)));
        let open = lock(&arrivals.open);
        assert!(open.bodies.is_empty() && open.by_sender.is_empty());
    }
}
