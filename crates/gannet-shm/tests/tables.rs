//! Tables that several processes use, some of which are killed or stopped in the middle.
//!
//! The test program runs itself once more as the other processes (`child`, told apart by an
//! environment variable). `GANNET_SOAK=1` kills thousands.

#![allow(clippy::unwrap_used, clippy::expect_used, reason = "helpers of tests")]

use std::collections::HashSet;
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd};
use std::os::unix::process::CommandExt;
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::sync::atomic::Ordering::{Acquire, Relaxed, Release};
use std::time::{Duration, Instant};

use gannet_shm::Region;
use gannet_shm::table::{ColumnKind, ColumnSpec, Row, Rows, Table, TableError, ValueTooLong};
use rustix::io::FdFlags;
use rustix::process::{Pid, Signal};

/// Two processes change rows of ten columns that must agree; one of them is killed at random
/// instants, again and again.
#[test]
fn no_row_is_torn_and_nobody_hangs_when_writers_are_killed() {
    let (kills, keys) = if soak() { (4000, 1000) } else { (250, 1000) };
    // Less room than keys, so that slots run out and change hands all the time.
    let shared = Shared::create(Rows::up_to(keys as usize * 2 / 5).first(16));
    let steady = shared.spawn("hammer", 1);
    let mut random = Random(0x5eed);
    let mut most_alive = 0;
    for round in 0..kills {
        let victim = shared.spawn("hammer", round + 2);
        let until = shared.word(OPERATIONS).load(Relaxed) + random.below(3000);
        wait("the processes work", || {
            shared.word(OPERATIONS).load(Relaxed) >= until
        });
        // Anywhere between two operations or in one.
        let spin = random.below(20_000);
        (0..spin).for_each(|_| std::hint::spin_loop());
        victim.kill();
        most_alive = most_alive.max(shared.table.len());
        shared.check_rows();
    }
    assert!(shared.word(TORN).load(Relaxed) == 0, "a torn row was read");
    steady.kill();

    // The next one who comes finds everything in order.
    let table = &shared.table;
    for key in 0..keys {
        table.update(&key, |_| ()).unwrap();
    }
    let rows: HashSet<u64> = table.iter().map(|row| row.unwrap().0).collect();
    let found = (0..keys).filter(|key| table.contains(key).unwrap());
    assert_eq!(found.collect::<HashSet<_>>(), rows);
    assert_eq!(table.len(), rows.len());
    let stats = table.stats();
    let slowest = Duration::from_nanos(shared.word(SLOWEST).load(Relaxed));
    println!(
        "{kills} processes killed, {} with a lock; {} operations, the slowest took {slowest:?}; up to \
         {most_alive} of {} rows",
        stats.deaths,
        shared.word(OPERATIONS).load(Relaxed),
        stats.max_rows,
    );
    assert!(stats.deaths > 0, "no kill hit a holder of a lock");
    assert!(slowest < HANGS, "an operation hung");
    for key in 10_000..10_000 + stats.max_rows as u64 {
        match table.set(&key, &Agreeing::of(key)) {
            Ok(()) => {}
            Err(error) => {
                assert!(matches!(error, TableError::Full { .. }));
                break;
            }
        }
    }
    assert_eq!(table.len(), stats.max_rows, "a slot was lost");
    table.clear().unwrap();
    assert_eq!((table.len(), table.iter().count()), (0, 0));
}

/// A process that is stopped in the middle of a change holds up those who write rows of its stripe,
/// and nobody else; its change is whole when it goes on.
#[test]
fn a_stopped_holder_is_waited_for_and_never_robbed() {
    // So few that some thirty rows share a stripe.
    let shared = Shared::create(Rows::up_to(4000));
    let table = &shared.table;
    let keys = 0..2000;
    for key in keys.clone() {
        table.set(&key, &Agreeing::of(key)).unwrap();
    }
    // One of two keys of one stripe: which those are is random.
    let shares = |key: &u64| {
        let mut later = key + 1..keys.end;
        later.any(|other| table.share_lock(key, &other).unwrap())
    };
    let held = keys.clone().find(shares).unwrap();
    let holder = shared.spawn("hold", held);
    wait("the holder is inside", || {
        shared.word(INSIDE).load(Acquire) == 1
    });
    holder.signal(Signal::STOP);

    let (others, same): (Vec<u64>, Vec<u64>) =
        keys.partition(|key| !table.share_lock(key, &held).unwrap());
    assert!(same.len() > 1 && others.len() > 1500);
    let pause = Duration::from_secs(if soak() { 5 } else { 1 });
    std::thread::scope(|scope| {
        // Writers of its stripe wait ...
        let waiting = scope.spawn(|| {
            for key in &same {
                table.set(key, &Agreeing::of(key + 1_000_000)).unwrap();
            }
        });
        // ... while all others, and all readers, go on.
        let (started, mut rounds) = (Instant::now(), 0);
        while started.elapsed() < pause {
            for key in &others {
                table.set(key, &Agreeing::of(key + rounds)).unwrap();
            }
            for key in &same {
                assert_eq!(table.get(key).unwrap(), Some(Agreeing::of(*key)));
            }
            assert_eq!(table.iter().count(), 2000);
            rounds += 1;
        }
        assert!(
            rounds > 1 && !waiting.is_finished(),
            "the lock was taken from its holder"
        );
        shared.word(INSIDE).store(2, Release);
        holder.signal(Signal::CONT);
        waiting.join().unwrap();
    });
    wait("the holder has gone on", || {
        shared.word(INSIDE).load(Acquire) == 3
    });
    // What it wrote was there, whole, until the writer that had waited came.
    assert_eq!(shared.word(SEEN).load(Relaxed), 1);
    assert_eq!(
        table.get(&held).unwrap(),
        Some(Agreeing::of(held + 1_000_000))
    );
    assert_eq!(table.stats().deaths, 0);
    holder.kill();
}

/// All rows that have been added are found, by several processes, while the table grows a
/// thousandfold.
#[test]
fn every_row_is_found_while_the_table_grows() {
    let rows = 1_000_000;
    let shared = Shared::create(Rows::up_to(rows as usize).first(1024));
    let readers = [1, 2].map(|seed| shared.spawn("read", seed));
    for key in 0..rows {
        shared.table.set(&key, &Agreeing::of(key)).unwrap();
        shared.word(ADDED).store(key + 1, Release);
    }
    let until = shared.word(OPERATIONS).load(Relaxed) + 1000;
    wait("the readers see the last rows", || {
        shared.word(OPERATIONS).load(Relaxed) >= until
    });
    assert_eq!(shared.word(MISSED).load(Relaxed), 0, "a row was not found");
    for reader in readers {
        reader.kill();
    }
    let stats = shared.table.stats();
    assert_eq!(stats.rows, rows as usize);
    assert!(stats.buckets > stats.rows / 8, "{stats:?}");
    println!(
        "{} rows read while 1,000,000 were added; {stats:?}",
        shared.word(OPERATIONS).load(Relaxed)
    );
}

/// Not a test by itself: what the other processes do.
#[test]
fn child() {
    let Ok(role) = std::env::var(ROLE) else {
        return;
    };
    let mut arguments = role.split(' ');
    let role = arguments.next().unwrap();
    let mut number = || arguments.next().unwrap().parse::<u64>().unwrap();
    let (seed, table, words) = (number(), number() as i32, number() as i32);
    // SAFETY: the parent left these descriptors to this process, which uses them once.
    let [table, words] = [table, words].map(|fd| unsafe { OwnedFd::from_raw_fd(fd) });
    let shared = Shared {
        table: Table::attach("rows", table).unwrap(),
        words: Region::attach(words, WORDS).unwrap(),
    };
    match role {
        "hammer" => shared.hammer(seed),
        "hold" => shared.hold(seed),
        "read" => shared.read(seed),
        other => panic!("no role {other}"),
    }
}

/// Ten columns that all follow from the first.
#[derive(Clone, Copy, Debug, PartialEq)]
struct Agreeing {
    stamp: u64,
    agree: bool,
}

impl Agreeing {
    fn of(stamp: u64) -> Agreeing {
        Agreeing { stamp, agree: true }
    }

    fn column(stamp: u64, column: usize) -> u64 {
        (stamp + column as u64).wrapping_mul(0x9e37_79b9_7f4a_7c15)
    }
}

impl Row for Agreeing {
    const COLUMNS: &'static [ColumnSpec] = &[ColumnSpec {
        name: "all",
        kind: ColumnKind::Array(80),
    }];
    const WORDS: usize = 10;

    fn store(&self, mut put: impl FnMut(usize, u64)) -> Result<(), ValueTooLong> {
        put(0, self.stamp);
        (1..10).for_each(|column| put(column, Agreeing::column(self.stamp, column)));
        Ok(())
    }

    fn load(word: impl Fn(usize) -> u64) -> Self {
        let stamp = word(0);
        let agree = (1..10).all(|column| word(column) == Agreeing::column(stamp, column));
        Agreeing { stamp, agree }
    }
}

struct Shared {
    table: Table<Agreeing, u64>,
    words: Arc<Region>,
}

impl Shared {
    fn create(rows: Rows) -> Shared {
        Shared {
            table: Table::create("rows", rows).unwrap(),
            words: Region::create("words", WORDS, 4096).unwrap(),
        }
    }

    fn word(&self, word: usize) -> &std::sync::atomic::AtomicU64 {
        self.words.word(word * 8)
    }

    fn spawn(&self, role: &str, seed: u64) -> Process {
        let fds = [self.table.fd().as_raw_fd(), self.words.fd().as_raw_fd()];
        let mut command = Command::new(std::env::current_exe().unwrap());
        command
            .args(["child", "--exact", "--nocapture", "--test-threads=1"])
            .env(ROLE, format!("{role} {seed} {} {}", fds[0], fds[1]))
            .stdout(Stdio::null());
        // SAFETY: only system calls between fork and exec, on descriptors that are open.
        unsafe {
            command.pre_exec(move || {
                for fd in fds {
                    let fd = std::os::fd::BorrowedFd::borrow_raw(fd);
                    rustix::io::fcntl_setfd(fd, FdFlags::empty())?;
                }
                rustix::process::set_parent_process_death_signal(Some(Signal::KILL))?;
                Ok(())
            });
        }
        Process(command.spawn().unwrap())
    }

    /// Changes rows at random, forever, and looks at all it meets.
    fn hammer(&self, seed: u64) -> ! {
        let mut random = Random(seed.wrapping_mul(0x2545_f491_4f6c_dd1d) | 1);
        loop {
            let (key, stamp) = (random.below(1000), random.below(1 << 40));
            let started = Instant::now();
            let seen = match random.below(8) {
                0 => self
                    .full(self.table.set(&key, &Agreeing::of(stamp)))
                    .map(|()| None),
                1 => self
                    .full(self.table.insert(&key, &Agreeing::of(stamp)))
                    .map(|_| None),
                2 | 3 => Some(
                    self.table
                        .update(&key, |row| std::mem::replace(row, Agreeing::of(stamp)))
                        .unwrap(),
                ),
                4 | 5 => Some(self.table.remove(&key).unwrap()),
                6 => Some(
                    self.table
                        .remove_if(&key, |row| row.stamp % 2 == 0)
                        .unwrap(),
                ),
                _ => Some(self.table.get(&key).unwrap()),
            };
            let took = started.elapsed().as_nanos() as u64;
            self.word(SLOWEST).fetch_max(took, Relaxed);
            if seen.flatten().is_some_and(|row| !row.agree) {
                self.word(TORN).fetch_add(1, Relaxed);
            }
            self.word(OPERATIONS).fetch_add(1, Relaxed);
        }
    }

    fn full<T>(&self, result: Result<T, TableError>) -> Option<T> {
        match result {
            Ok(value) => Some(value),
            Err(TableError::Full { .. }) => None,
            Err(error) => panic!("{error}"),
        }
    }

    fn check_rows(&self) {
        for row in self.table.iter() {
            let (key, row) = row.unwrap();
            assert!(row.agree, "row {key} is torn");
        }
    }

    /// Is inside of a change of the row `key` until it is told to go on.
    fn hold(&self, key: u64) -> ! {
        self.table
            .update(&key, |row| {
                self.word(INSIDE).store(1, Release);
                while self.word(INSIDE).load(Acquire) == 1 {
                    std::hint::spin_loop();
                }
                *row = Agreeing::of(key + 500_000);
            })
            .unwrap();
        let seen = self.table.get(&key).unwrap().unwrap();
        let whole = [500_000, 1_000_000].map(|more| Agreeing::of(key + more));
        self.word(SEEN)
            .store(u64::from(whole.contains(&seen)), Relaxed);
        self.word(INSIDE).store(3, Release);
        loop {
            std::thread::park();
        }
    }

    /// Looks for rows that have been added.
    fn read(&self, seed: u64) -> ! {
        let mut random = Random(seed);
        loop {
            let added = self.word(ADDED).load(Acquire);
            if added == 0 {
                continue;
            }
            let key = random.below(added);
            if self.table.get(&key).unwrap() != Some(Agreeing::of(key)) {
                self.word(MISSED).fetch_add(1, Relaxed);
            }
            self.word(OPERATIONS).fetch_add(1, Relaxed);
        }
    }
}

/// A process that does not outlive its test.
struct Process(Child);

impl Process {
    fn kill(self) {
        drop(self);
    }

    fn signal(&self, signal: Signal) {
        rustix::process::kill_process(Pid::from_child(&self.0), signal).unwrap();
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

struct Random(u64);

impl Random {
    fn below(&mut self, end: u64) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0 % end
    }
}

fn wait(what: &str, condition: impl Fn() -> bool) {
    let started = Instant::now();
    while !condition() {
        assert!(
            started.elapsed() < Duration::from_secs(60),
            "not in time: {what}"
        );
        std::thread::yield_now();
    }
}

fn soak() -> bool {
    std::env::var_os("GANNET_SOAK").is_some_and(|soak| soak == "1")
}

const ROLE: &str = "GANNET_TEST_TABLE_ROLE";
const WORDS: u32 = 1;
/// No system is so busy that an operation takes this long, unless it waits for the dead.
const HANGS: Duration = Duration::from_secs(10);

/// Words that the processes share.
const OPERATIONS: usize = 0;
const TORN: usize = 16;
const SLOWEST: usize = 32;
const INSIDE: usize = 48;
const SEEN: usize = 64;
const ADDED: usize = 80;
const MISSED: usize = 96;
