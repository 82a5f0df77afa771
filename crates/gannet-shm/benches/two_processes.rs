//! Messages of 128 bytes between two processes: how many a second one way, and how long there and
//! back. `cargo bench -p gannet-shm`; a number behind `--` multiplies the length of the run.

#![allow(
    clippy::unwrap_used,
    reason = "a benchmark may stop at the first error"
)]

use std::os::fd::{AsFd, AsRawFd, FromRawFd, OwnedFd};
use std::process::{Child, Command};
use std::time::{Duration, Instant};

use gannet_shm::{Consumer, Doorbell, Layout, Producer, Region, RingSpec};
use rustix::event::{PollFd, PollFlags, poll};
use rustix::io::FdFlags;

fn main() {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    if let [role, fds @ ..] = &arguments[..]
        && let Some(role) = role.strip_prefix("child=")
    {
        return child(role, fds);
    }
    let times = match arguments
        .iter()
        .find_map(|argument| argument.parse::<u64>().ok())
    {
        Some(times) => times * 100,
        None if arguments.iter().any(|argument| argument == "--bench") => 100,
        // As a test: only see that it runs.
        None => 1,
    };
    for batch in [1, 16, 256] {
        one_way(batch, 100_000 * times);
    }
    round_trip("sleep", 200 * times);
    round_trip("spin", 2_000 * times);
}

fn one_way(batch: u64, messages: u64) {
    let here = Shared::create();
    let (mut ring, peer, mine) = (here.producer(0), here.bell(0), here.bell(1));
    let mut child = here.spawn("sink");
    let message = [7; MESSAGE];
    let start = Instant::now();
    let mut bells = 0u64;
    for n in 1..=messages {
        while ring.push(&[&message]).is_err() {
            ring.publish();
            peer.ring();
            sleep(&mine, || ring.free() < ring.capacity() / 2);
        }
        if n % batch == 0 {
            ring.publish();
            bells += u64::from(peer.ring());
        }
    }
    ring.publish();
    peer.ring();
    while ring.consumer_position() < ring.head() {
        sleep(&mine, || ring.consumer_position() < ring.head());
    }
    let took = start.elapsed();
    println!(
        "one way, {batch:3} a batch: {:6.2} M messages/s, {:5.1} ns each, one bell per {} messages",
        messages as f64 / took.as_secs_f64() / 1e6,
        took.as_nanos() as f64 / messages as f64,
        messages.checked_div(bells).unwrap_or(messages),
    );
    end(&mut child);
}

fn round_trip(how: &str, trips: u64) {
    let here = Shared::create();
    let (mut there, mut back) = (here.producer(0), here.consumer(1));
    let (peer, mine) = (here.bell(0), here.bell(1));
    let mut child = here.spawn(if how == "spin" { "echo-spin" } else { "echo" });
    let mut buffer = Vec::new();
    let mut took = Vec::new();
    for _ in 0..trips {
        let start = Instant::now();
        there.push(&[&[7; MESSAGE]]).unwrap();
        there.publish();
        peer.ring();
        loop {
            if let Some(record) = back.next() {
                buffer.clear();
                record.append_to(.., &mut buffer).unwrap();
                back.commit();
                break;
            }
            wait(how == "spin", &mine, || back.is_empty());
        }
        took.push(start.elapsed());
    }
    took.sort_unstable();
    let at = |share: f64| took[((took.len() - 1) as f64 * share) as usize];
    let micros = |time: Duration| time.as_nanos() as f64 / 1000.0;
    println!(
        "there and back, {how:5}: {:6.2} µs median, {:6.2} µs in 99 of 100",
        micros(at(0.5)),
        micros(at(0.99)),
    );
    end(&mut child);
}

fn child(role: &str, fds: &[String]) {
    let here = Shared::inherit(fds);
    let (mut ring, mut back) = (here.consumer(0), here.producer(1));
    let (mine, peer) = (here.bell(0), here.bell(1));
    let mut buffer = Vec::new();
    loop {
        buffer.clear();
        let mut any = false;
        while let Some(record) = ring.next() {
            record.append_to(.., &mut buffer).unwrap();
            any = true;
            // A reactor's or worker's turn is bounded too.
            if buffer.len() > 64 << 10 {
                break;
            }
        }
        ring.commit();
        if any && role != "sink" {
            back.push(&[&buffer]).unwrap();
            back.publish();
        }
        peer.ring();
        if !any {
            wait(role == "echo-spin", &mine, || ring.is_empty());
        }
    }
}

fn wait(spin: bool, bell: &Doorbell, nothing_to_do: impl Fn() -> bool) {
    if spin {
        for _ in 0..20_000 {
            if !nothing_to_do() {
                return;
            }
            std::hint::spin_loop();
        }
    }
    sleep(bell, nothing_to_do);
}

fn sleep(bell: &Doorbell, nothing_to_do: impl Fn() -> bool) {
    bell.prepare_sleep();
    if nothing_to_do() {
        let fd = bell.fd();
        poll(&mut [PollFd::new(&fd, PollFlags::IN)], None).unwrap();
    }
    bell.cancel_sleep();
    bell.drain();
}

/// Two bells and two rings: 0 there, 1 back.
struct Shared {
    region: std::sync::Arc<Region>,
    bells: [OwnedFd; 2],
}

impl Shared {
    fn create() -> Shared {
        let region = Region::create("bench", KIND, plan().2).unwrap();
        let bells = plan().0.map(|offset| {
            Doorbell::create(region.clone(), offset)
                .unwrap()
                .fd()
                .try_clone_to_owned()
                .unwrap()
        });
        Shared { region, bells }
    }

    fn inherit(fds: &[String]) -> Shared {
        let mut fds = fds.iter().map(|fd| {
            // SAFETY: the parent has left these descriptors open for us, and nobody else in
            // this process knows their numbers.
            unsafe { OwnedFd::from_raw_fd(fd.parse().unwrap()) }
        });
        let mut next = || fds.next().unwrap();
        let region = Region::attach(next(), KIND).unwrap();
        Shared {
            region,
            bells: [next(), next()],
        }
    }

    fn spawn(&self, role: &str) -> Child {
        let region = self.region.fd();
        let fds = [region, self.bells[0].as_fd(), self.bells[1].as_fd()].map(|fd| {
            let fd = fd.try_clone_to_owned().unwrap();
            rustix::io::fcntl_setfd(&fd, FdFlags::empty()).unwrap();
            fd
        });
        Command::new(std::env::current_exe().unwrap())
            .arg(format!("child={role}"))
            .args(fds.each_ref().map(|fd| fd.as_raw_fd().to_string()))
            .spawn()
            .unwrap()
    }

    fn producer(&self, which: usize) -> Producer {
        Producer::attach(self.region.clone(), plan().1[which])
    }

    fn consumer(&self, which: usize) -> Consumer {
        Consumer::attach(self.region.clone(), plan().1[which])
    }

    fn bell(&self, which: usize) -> Doorbell {
        let fd = self.bells[which].try_clone().unwrap();
        Doorbell::attach(self.region.clone(), plan().0[which], fd)
    }
}

fn plan() -> ([usize; 2], [RingSpec; 2], usize) {
    let mut layout = Layout::new();
    let bells = [(); 2].map(|()| layout.take(Doorbell::BYTES, 128));
    let rings = [(); 2].map(|()| {
        let offset = layout.take(RingSpec::bytes(CAPACITY), RingSpec::ALIGN);
        RingSpec {
            offset,
            capacity: CAPACITY,
        }
    });
    (bells, rings, layout.total())
}

fn end(child: &mut Child) {
    child.kill().unwrap();
    child.wait().unwrap();
}

const MESSAGE: usize = 128;
const CAPACITY: usize = 1 << 20;
const KIND: u32 = 0xbe7c;
