//! Handlers that do not wait cost no allocation but their own.
#![allow(unsafe_code, reason = "an allocator that counts")]

use std::{
    alloc::{GlobalAlloc, Layout, System},
    cell::Cell,
};

use bytes::Bytes;
use http::{HeaderValue, header};

use super::http::{parts, request};
use crate::{
    Conn, Handler, Request, Response, Result, Worker,
    wire::event::EventKind::Receive,
    worker::pair::{Got, Pair},
};

struct Counting;

thread_local! {
    static ALLOCATIONS: Cell<u64> = const { Cell::new(0) };
    static FREED: Cell<u64> = const { Cell::new(0) };
}

// SAFETY: everything is passed on to the system's allocator as it came.
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        ALLOCATIONS.set(ALLOCATIONS.get() + 1);
        // SAFETY: as the caller promises.
        unsafe { System.alloc(layout) }
    }

    unsafe fn dealloc(&self, pointer: *mut u8, layout: Layout) {
        FREED.set(FREED.get() + 1);
        // SAFETY: as the caller promises.
        unsafe { System.dealloc(pointer, layout) }
    }
}

#[global_allocator]
static ALLOCATOR: Counting = Counting;

/// Echoes; "?" answers how much was allocated since the last "?".
struct Echo {
    before: Cell<u64>,
}

impl Handler for Echo {
    async fn start(_worker: &Worker) -> Result<Self> {
        Ok(Echo {
            before: Cell::new(0),
        })
    }

    async fn receive(&self, conn: Conn, data: Bytes) -> Result {
        if data == "?" {
            let now = ALLOCATIONS.get();
            conn.send((now - self.before.get()).to_string()).await?;
            self.before.set(ALLOCATIONS.get());
            return Ok(());
        }
        conn.send(data).await
    }

    async fn request(&self, _conn: Conn, request: Request) -> Result<Response> {
        if request.uri().path() == "/count" {
            let now = ALLOCATIONS.get();
            return Ok(Response::new((now - self.before.get()).to_string().into()));
        }
        if request.uri().path() == "/begin" {
            self.before.set(ALLOCATIONS.get());
        }
        if request.uri().path() == "/in-use" {
            let in_use = ALLOCATIONS.get() - FREED.get();
            return Ok(Response::new(in_use.to_string().into()));
        }
        if request.uri().path() == "/owner" {
            return Ok(owner(request.method() == "POST"));
        }
        let mut response = Response::new("hello".into());
        let plain = HeaderValue::from_static("text/plain");
        response.headers_mut().insert(header::CONTENT_TYPE, plain);
        Ok(response)
    }
}

/// What the body of an answer says.
fn number(answer: &Got) -> u64 {
    let body = std::str::from_utf8(parts(answer).1).unwrap();
    body.parse().unwrap()
}

/// A response each part of which owns memory; without `headers`, its map has none.
fn owner(headers: bool) -> Response {
    let mut response = Response::new(String::from("some text").into());
    response.extensions_mut().insert([1; 100]);
    if headers {
        // This leaves a map of extensions that is empty, and has memory.
        response.extensions_mut().remove::<[i32; 100]>();
        let own = HeaderValue::from_bytes(&[b'x'; 100]).unwrap();
        response.headers_mut().insert("x-own", own.clone());
        response.headers_mut().append("x-own", own);
    }
    response
}

#[test]
fn an_inline_handler_allocates_nothing() {
    let mut pair = Pair::new::<Echo>();
    let conn = pair.connect(0, 1);
    let mut counts = Vec::new();
    for _ in 0..2 {
        for _ in 0..1000 {
            let seq = pair.event(Receive, conn, b"forty bytes of something to be sent back");
            assert_eq!(pair.until_done(0, seq).len(), 1);
        }
        pair.event(Receive, conn, b"?");
        counts.push(pair.expect().text().parse::<u64>().unwrap());
    }
    // The first round fills pools. In the second, the notification of the loop may cost a few.
    assert!(
        counts[1] < 10,
        "{counts:?} allocations for 1000 messages each"
    );
}

#[test]
fn a_request_allocates_nothing_but_what_its_handler_does() {
    let mut pair = Pair::new::<Echo>();
    let conn = pair.connect(0, 1);
    for path in ["/", "/begin"]
        .into_iter()
        .chain(["/hello/world?a=1"; 1000])
    {
        let seq = request(&mut pair, conn, "GET", path, b"");
        assert_eq!(pair.until_done(0, seq).len(), 1);
    }
    request(&mut pair, conn, "GET", "/count", b"");
    let got = pair.expect();
    let count = number(&got);
    // A map of headers has its memory in two pieces, and the handler makes one for each response.
    let made = 2 * 1000;
    assert!(
        (made..made + 100).contains(&count),
        "{count} allocations for 1000 requests"
    );
}

#[test]
fn a_response_that_was_sent_leaves_no_memory_behind() {
    let mut pair = Pair::new::<Echo>();
    let conn = pair.connect(0, 1);
    let mut in_use = Vec::new();
    for _ in 0..2 {
        for method in ["GET", "POST"].into_iter().cycle().take(1000) {
            let seq = request(&mut pair, conn, method, "/owner", b"");
            assert_eq!(pair.until_done(0, seq).len(), 1);
        }
        request(&mut pair, conn, "GET", "/in-use", b"");
        in_use.push(number(&pair.expect()));
    }
    // The first round fills what is kept.
    assert!(
        in_use[1] < in_use[0] + 100,
        "{in_use:?} allocations in use after 1000 and 2000 responses"
    );
}
