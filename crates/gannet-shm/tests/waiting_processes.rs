//! Counters and locks between real processes, some of which are killed or stopped.

#![allow(clippy::unwrap_used, clippy::expect_used, reason = "helpers of tests")]

use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;
use std::thread;
use std::time::{Duration, Instant};

use gannet_shm::{Counter, Life, Lock, LockGuard, Region};
use rustix::process::{Pid, Signal, kill_process};

mod kit;

use kit::{Process, Random};

/// Whoever gets the lock of a killed process is told, and nobody else; there is never a second
/// holder, and nobody waits for a dead one.
#[test]
fn a_lock_survives_the_death_of_its_holders() {
    let shared = Shared::create();
    let most_kills = if std::env::var_os("GANNET_SOAK").is_some() {
        5_000
    } else {
        150
    };
    let mut random = Random(0xdead);
    let (mut told, mut slowest) = (0, Duration::ZERO);
    let _rival = shared.spawn("locker");
    for _ in 0..most_kills {
        let victim = shared.spawn("locker");
        // It has begun, and is killed anywhere from then on.
        let before = shared.rounds.load();
        let begun = shared
            .begun
            .blocking_wait_for(|begun| begun > 0, Some(PATIENCE));
        assert!(begun.is_some(), "the child does not begin");
        thread::sleep(Duration::from_micros(random.below(500)));
        victim.kill();
        shared.begun.store(0);

        let asked = Instant::now();
        let guard = shared.lock.blocking_lock_for(PATIENCE).expect("the lock");
        slowest = slowest.max(asked.elapsed());
        told += u64::from(guard.owner_died());
        shared.work(&guard);
        drop(guard);
        assert!(shared.rounds.load() > before);
    }
    println!(
        "{most_kills} lockers killed, {} of them with the lock, {told} seen here; slowest {slowest:?}",
        shared.lock.deaths()
    );
    assert!(shared.lock.deaths() > 0, "no kill hit a holder");
}

/// A holder that is stopped keeps the lock, however long it takes.
#[test]
fn a_stopped_holder_is_not_robbed() {
    let shared = Shared::create();
    let holder = shared.spawn("holder");
    let pid = Pid::from_child(&holder.0);
    let begun = shared
        .begun
        .blocking_wait_for(|begun| begun > 0, Some(PATIENCE));
    assert!(begun.is_some(), "the child does not begin");
    kill_process(pid, Signal::STOP).unwrap();

    let long = 10 * Lock::PATIENCE;
    assert!(shared.lock.blocking_lock_for(long).is_none());
    assert_eq!(shared.lock.holder(), Some(holder.0.id()));
    // What it is to let go at; it is stopped.
    shared.rounds.add(1);
    assert!(shared.lock.blocking_lock_for(long).is_none());

    kill_process(pid, Signal::CONT).unwrap();
    let guard = shared.lock.blocking_lock_for(PATIENCE).expect("the lock");
    assert!(!guard.owner_died());
    assert_eq!(shared.lock.deaths(), 0);
}

/// Two processes count each other up, each asleep while it is the other's turn.
#[test]
fn counters_wake_other_processes() {
    let shared = Shared::create();
    let _other = shared.spawn("counter");
    for turn in 1..=2_000 {
        shared.begun.add(1);
        let answer = shared.rounds.blocking_wait_while(turn - 1, Some(PATIENCE));
        assert_eq!(answer, Some(turn), "a wake-up was lost");
    }
}

/// The other process. As a test of its own it does nothing.
#[test]
fn child() {
    let Ok(arguments) = std::env::var(VARIABLE) else {
        return;
    };
    let (role, fd) = arguments.split_once(' ').unwrap();
    let region = Region::attach(kit::inherited(fd.parse().unwrap()), KIND).unwrap();
    let shared = Shared::attach(region);
    match role {
        "locker" => loop {
            let guard = shared.lock.blocking_lock();
            shared.begun.store(1);
            shared.work(&guard);
        },
        "holder" => {
            let _guard = shared.lock.blocking_lock();
            shared.begun.store(1);
            shared.rounds.blocking_wait_while(0, None);
        }
        "counter" => {
            for turn in 1.. {
                shared
                    .begun
                    .blocking_wait_for(|value| value >= turn, None)
                    .unwrap();
                shared.rounds.add(1);
            }
        }
        role => panic!("no role {role}"),
    }
    std::process::exit(0);
}

struct Shared {
    region: Arc<Region>,
    begun: Counter,
    rounds: Counter,
    lock: Lock,
}

impl Shared {
    fn create() -> Shared {
        Shared::attach(Region::create("waiting processes", KIND, 4096).unwrap())
    }

    fn attach(region: Arc<Region>) -> Shared {
        let life = Life::begin(region.clone(), 0).unwrap();
        Shared {
            begun: Counter::attach(region.clone(), 128),
            rounds: Counter::attach(region.clone(), 256),
            lock: Lock::attach(life, 384),
            region,
        }
    }

    fn spawn(&self, role: &str) -> Process {
        Process::spawn(VARIABLE, role, &[&self.region.fd()])
    }

    /// Changes two words that the lock guards, so that a second holder or a death would show.
    fn work(&self, guard: &LockGuard) {
        let [one, two] = [512, 520].map(|at| self.region.word(at));
        let value = one.load(Relaxed);
        if guard.owner_died() {
            two.store(value, Relaxed);
        }
        assert_eq!(
            two.load(Relaxed),
            value,
            "half changed, and nobody was told"
        );
        one.store(value + 1, Relaxed);
        std::hint::spin_loop();
        two.store(value + 1, Relaxed);
        self.rounds.add(1);
    }
}

const VARIABLE: &str = "GANNET_SHM_CHILD";
const KIND: u32 = 0x7e57;
/// Far more than anything here takes.
const PATIENCE: Duration = Duration::from_secs(20);
