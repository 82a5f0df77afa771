//! What is counted: for each path a pass, which does it once. What it needs is made before, and is not
//! counted; nor are the first passes, after which buffers have their size.

use std::{hint::black_box, sync::Arc};

use anyhow::{Context, Result, bail};
use gannet::{Row, Rows, Str, Table, counts};
use gannet_proto::{
    http1::{self, encode_usual},
    tcp::{self, LengthPrefix, Marker, Width},
    websocket::{self, Mask, MessageKind, client},
};
use gannet_shm::{Consumer, Producer, Region, RingSpec};

/// Something that is counted.
pub(crate) struct Path {
    pub(crate) name: &'static str,
    /// What a pass does.
    pub(crate) what: &'static str,
    make: fn() -> Result<Pass>,
}

type Pass = Box<dyn FnMut() -> bool>;

/// Passes that are counted.
pub(crate) const PASSES: u32 = 1_000;
const WARM: u32 = 200;

pub(crate) const PATHS: &[Path] = &[
    Path {
        name: "ring",
        what: "64 bytes into a ring and out of it",
        make: ring,
    },
    Path {
        name: "event/header",
        what: "the header of an event, encoded and decoded",
        make: || Ok(Box::new(counts::event_header)),
    },
    Path {
        name: "event/round",
        what: "an event of 64 bytes written to a worker's ring, read, done, and off the ledger",
        make: || {
            let mut events = counts::Events::new().context("memory for a ring")?;
            Ok(Box::new(move || events.round()))
        },
    },
    Path {
        name: "event/own-thread",
        what: "the same in thread mode, and sent back",
        make: || {
            let mut own = counts::OwnThread::new();
            Ok(Box::new(move || own.round()))
        },
    },
    Path {
        name: "ledger",
        what: "four events entered, and done in another order",
        make: || {
            let mut ledger = counts::Numbers::new();
            Ok(Box::new(move || ledger.round()))
        },
    },
    Path {
        name: "wheel",
        what: "a tick of the wheel with a deadline that is set, one that is moved, one that comes up",
        make: || {
            let mut wheel = counts::Deadlines::new();
            Ok(Box::new(move || wheel.round()))
        },
    },
    Path {
        name: "websocket/decode",
        what: "a whole masked message of 64 bytes",
        make: || websocket_decode(1),
    },
    Path {
        name: "websocket/decode-pieces",
        what: "the same in two pieces",
        make: || websocket_decode(2),
    },
    Path {
        name: "websocket/unmask",
        what: "1,027 bytes unmasked",
        make: || {
            let mut bytes = vec![7; 1_027];
            Ok(Box::new(move || {
                Mask::new([1, 2, 3, 4]).apply(black_box(&mut bytes));
                true
            }))
        },
    },
    Path {
        name: "websocket/encode",
        what: "a message of 64 bytes",
        make: websocket_encode,
    },
    Path {
        name: "http1/decode-short",
        what: "a request of two lines",
        make: || http1_decode(SHORT),
    },
    Path {
        name: "http1/decode-browser",
        what: "a browser's request",
        make: || http1_decode(BROWSER),
    },
    Path {
        name: "http1/response",
        what: "a response with a body of 13 bytes",
        make: http1_encode,
    },
    Path {
        name: "framing/lines",
        what: "four lines of 16 bytes in one read",
        make: || {
            let framing = tcp::Framing::marker(Marker::lines(true));
            framed(framing, &b"fifteen bytes..\n".repeat(4), 4)
        },
    },
    Path {
        name: "framing/length",
        what: "four messages of 16 bytes behind their length in one read",
        make: || {
            let prefix = LengthPrefix::new(Width::Two);
            let message = [&[0, 16][..], b"sixteen bytes..."].concat();
            framed(tcp::Framing::length(prefix)?, &message.repeat(4), 4)
        },
    },
    Path {
        name: "table/get",
        what: "a row of two numbers and a text",
        make: || {
            let table = table()?;
            Ok(Box::new(move || {
                table.get(black_box("key")).is_ok_and(|row| row.is_some())
            }))
        },
    },
    Path {
        name: "table/set",
        what: "a row of two numbers and a text",
        make: || {
            let table = table()?;
            let row = seat()?;
            Ok(Box::new(move || table.set(black_box("key"), &row).is_ok()))
        },
    },
    Path {
        name: "table/incr",
        what: "a number of a row",
        make: || {
            let table = table()?;
            Ok(Box::new(move || {
                table.incr(black_box("key"), Seat::HITS, 1).is_ok()
            }))
        },
    },
];

/// Runs the passes of a path: this is what valgrind looks at.
pub(crate) fn walk(name: &str) -> Result<()> {
    let path = PATHS.iter().find(|path| path.name == name);
    let path = path.with_context(|| format!("there is no path {name}"))?;
    let mut one = (path.make)()?;
    for _ in 0..WARM {
        if !one() {
            bail!("a pass of {name} does not do what it is there for");
        }
    }
    pass(&mut one);
    Ok(())
}

/// Counting is on in here: see `callgrind`.
#[inline(never)]
fn pass(one: &mut Pass) {
    for _ in 0..PASSES {
        black_box(one());
    }
}

fn ring() -> Result<Pass> {
    let ring = RingSpec {
        offset: 0,
        capacity: 64 << 10,
    };
    let region = Region::create("counts", 1, RingSpec::bytes(ring.capacity))?;
    let mut producer = Producer::attach(region.clone(), ring);
    let mut consumer = Consumer::attach(region, ring);
    let mut out = Vec::with_capacity(64);
    Ok(Box::new(move || {
        let pushed = producer.push(&[black_box(&[7; 64])]).is_ok();
        producer.publish();
        out.clear();
        let read = consumer.next();
        let read = read.is_some_and(|record| record.append_to(.., &mut out).is_ok());
        consumer.commit();
        pushed && read && out.len() == 64
    }))
}

/// A masked message, in so many pieces. It is unmasked where it lies, so each pass masks it with other
/// bytes as its text: binary, for which all are as good.
fn websocket_decode(pieces: usize) -> Result<Pass> {
    let mut input = Vec::new();
    client::encode_message(&mut input, MessageKind::Binary, &[7; 64], [1, 2, 3, 4]);
    let mut decoder = websocket::Decoder::new(websocket::Limits::default());
    Ok(Box::new(move || {
        let mut found = false;
        for piece in input.chunks_mut(70_usize.div_ceil(pieces)) {
            let decoded = decoder.decode(black_box(piece));
            found = decoded.is_ok_and(|decoded| decoded.event.is_some());
        }
        found
    }))
}

fn websocket_encode() -> Result<Pass> {
    let mut out = Vec::with_capacity(128);
    Ok(Box::new(move || {
        out.clear();
        websocket::encode_message(&mut out, MessageKind::Binary, black_box(&[7; 64]));
        out.len() == 66
    }))
}

fn http1_decode(request: &'static [u8]) -> Result<Pass> {
    let mut decoder = http1::Decoder::new(http1::Limits::default());
    let mut input = request.to_vec();
    Ok(Box::new(move || {
        let decoded = decoder.decode(black_box(&mut input));
        let used = decoded.map_or(0, |decoded| decoded.used);
        let end = decoder.decode(&mut input[used..]);
        end.is_ok_and(|decoded| matches!(decoded.event, Some(http1::Event::End { .. })))
    }))
}

fn http1_encode() -> Result<Pass> {
    let date = http1::Date::at(784_111_777);
    let mut out = Vec::with_capacity(512);
    Ok(Box::new(move || {
        out.clear();
        let rest = b"Content-Type: text/plain\r\n\r\nhello, world\n";
        encode_usual(&mut out, &date, 13, black_box(rest));
        !out.is_empty()
    }))
}

/// What is in one read, which is so many messages.
fn framed(framing: tcp::Framing, input: &[u8], messages: usize) -> Result<Pass> {
    let mut decoder = tcp::Decoder::new(Arc::new(framing), 1 << 20);
    let mut input = input.to_vec();
    Ok(Box::new(move || {
        let (mut used, mut found) = (0, 0);
        while used < input.len() {
            let Ok(decoded) = decoder.decode(black_box(&mut input[used..])) else {
                return false;
            };
            used += decoded.used;
            found += usize::from(decoded.message.is_some());
        }
        found == messages
    }))
}

#[derive(Clone, Debug, PartialEq, Row)]
struct Seat {
    user: u64,
    hits: i64,
    name: Str<32>,
}

fn seat() -> Result<Seat> {
    Ok(Seat {
        user: 7,
        hits: 1,
        name: Str::new("somebody")?,
    })
}

/// One row only: the hash is keyed at random, and where rows meet the count would be another each time.
fn table() -> Result<Table<Seat>> {
    let table = Table::create("counts", Rows::up_to(64))?;
    table.set("key", &seat()?)?;
    Ok(table)
}

const SHORT: &[u8] = b"GET /plaintext HTTP/1.1\r\nHost: localhost:8080\r\n\r\n";
const BROWSER: &[u8] = b"GET /assets/app.js?v=12 HTTP/1.1\r\n\
    Host: www.example.com\r\n\
    User-Agent: Mozilla/5.0 (X11; Linux x86_64; rv:144.0) Gecko/20100101 Firefox/144.0\r\n\
    Accept: text/html,application/xhtml+xml,application/xml;q=0.9,*/*;q=0.8\r\n\
    Accept-Language: en-GB,en;q=0.7,de;q=0.3\r\n\
    Accept-Encoding: gzip, deflate, br, zstd\r\n\
    Referer: https://www.example.com/\r\n\
    Connection: keep-alive\r\n\
    Cookie: session=0123456789abcdef0123456789abcdef; theme=dark\r\n\
    Sec-Fetch-Dest: script\r\n\
    Sec-Fetch-Mode: no-cors\r\n\
    Sec-Fetch-Site: same-origin\r\n\
    If-None-Match: \"5f3c-62a1b2c3d4e5f\"\r\n\r\n";

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_path_does_what_it_is_there_for() {
        for path in PATHS {
            walk(path.name).unwrap();
        }
    }
}
