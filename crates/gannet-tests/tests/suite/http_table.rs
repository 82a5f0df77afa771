//! The table of requests, over sockets: each is sent whole, in pieces and byte by byte, and has
//! its one outcome. And requests of all kinds, pipelined, are answered in order.

#[allow(dead_code, missing_docs, unreachable_pub)]
#[path = "../../../gannet-proto/tests/support/requests.rs"]
mod requests;

use std::{io::Write, thread};

use gannet_tests::{
    http::{HttpClient, Response, chunk_of, post},
    server::Server,
};

use self::requests::{Outcome, Row, Seen, table};
use crate::behave;

#[test]
fn what_is_refused_is_answered_so_and_seen_by_no_handler() {
    let server = server();
    for row in table() {
        if let Outcome::Refused(_) = row.outcome {
            play(&server, &row);
        }
    }
    assert_eq!(server.events(), 0, "a handler has seen something");
    server.stop();
}

#[test]
fn a_body_that_is_wrong_is_refused_and_the_connection_closed() {
    let server = server();
    for row in table() {
        if let Outcome::RefusedInBody(_) = row.outcome {
            play(&server, &row);
        }
    }
    server.stop();
}

#[test]
fn what_is_fine_is_seen_as_it_was_meant_and_what_follows_judged_by_itself() {
    let server = server();
    for row in table() {
        if let Outcome::Answered { .. } | Outcome::AnsweredThenRefused { .. } = row.outcome {
            play(&server, &row);
        }
    }
    server.stop();
}

#[test]
fn pipelined_requests_of_all_kinds_are_answered_in_order() {
    let server = server();
    let mut random = Random(11);
    for round in 0..4 {
        let mut sent = Vec::new();
        let mut expected = Vec::new();
        for n in 0..300 {
            let target = format!("/{round}/{n}");
            let size = [0, 1, 10, 1000, 70_000][random.below(if n % 40 == 0 { 5 } else { 4 })];
            let mut body = format!("{n} ").repeat(size);
            body.truncate(size);
            match random.below(3) {
                0 => {
                    body.clear();
                    sent.extend(format!("GET {target} HTTP/1.1\r\nHost: test\r\n\r\n").bytes());
                    expected.push(format!("GET {target}\n"));
                }
                1 => {
                    sent.extend(post(&target, body.as_bytes()));
                    expected.push(format!("POST {target}\n{body}"));
                }
                _ => {
                    let head = "HTTP/1.1\r\nHost: test\r\nTransfer-Encoding: chunked\r\n\r\n";
                    sent.extend(format!("POST {target} {head}").bytes());
                    for chunk in body.as_bytes().chunks(1 + random.below(9000)) {
                        sent.extend(chunk_of(chunk));
                    }
                    sent.extend(b"0\r\n\r\n");
                    expected.push(format!("POST {target}\n{body}"));
                }
            }
        }
        let mut client = server.http();
        let mut writer = client.tcp().socket().try_clone().unwrap();
        thread::scope(|scope| {
            scope.spawn(move || {
                let mut rest = &sent[..];
                while !rest.is_empty() {
                    let most = [1, 100, 5000, 100_000][random.below(4)];
                    let (piece, after) = rest.split_at((1 + random.below(most)).min(rest.len()));
                    writer.write_all(piece).unwrap();
                    rest = after;
                }
            });
            for expected in &expected {
                let response = client.response();
                assert_eq!(response.status, 200);
                assert!(
                    response.text() == expected,
                    "not the answer to {:.40}",
                    expected
                );
            }
        });
        random = Random(round + 12);
    }
    server.stop();
}

/// Sends the row's bytes in several ways; the outcome is always the same.
fn play(server: &Server, row: &Row) {
    let len = row.sent.len();
    let mut random = Random(len as u64);
    let mut ways = vec![vec![], vec![1 + random.below(len), 1 + random.below(len)]];
    if len <= 150 {
        ways.push((1..len).collect());
    }
    for mut cuts in ways {
        cuts.sort_unstable();
        play_cut(server, row, &cuts);
    }
}

fn play_cut(server: &Server, row: &Row, cuts: &[usize]) {
    let name = row.sent[..row.sent.len().min(200)].escape_ascii();
    let name = format!("{name} cut at {cuts:?}");
    let mut client = server.http();
    let mut start = 0;
    for &end in cuts.iter().chain(&[row.sent.len()]) {
        // It may be refused, and closed, before its end.
        if client.try_send(&row.sent[start..end]).is_err() {
            break;
        }
        start = end;
    }
    let (requests, end) = match &row.outcome {
        Outcome::Refused(status) | Outcome::RefusedInBody(status) => (&[][..], Some(*status)),
        Outcome::Answered { requests, .. } => (&requests[..], None),
        Outcome::AnsweredThenRefused { requests, status } => (&requests[..], Some(*status)),
    };
    let mut last = None;
    for seen in requests {
        let response = next(&mut client, &name);
        check(&response, seen, &name);
        last = Some(response);
    }
    if let Some(status) = end {
        let response = next(&mut client, &name);
        assert_eq!(response.status, status, "{name}: {}", response.text());
        last = Some(response);
    }
    let last = last.expect("a response");
    if let Outcome::Answered { keep: true, .. } = row.outcome {
        assert!(last.keeps_alive(), "{name}");
        let after = client.get("/after");
        assert_eq!(after.text(), "GET /after\n", "{name}");
    } else {
        assert!(!last.keeps_alive(), "{name}");
        client.tcp().expect_end();
    }
}

fn next(client: &mut HttpClient, name: &str) -> Response {
    client
        .try_response()
        .unwrap_or_else(|error| panic!("{name}: no response: {error}"))
}

/// Whether the handler has seen this request. The scheme of a URL loses its case on the way.
fn check(response: &Response, seen: &Seen, name: &str) {
    assert_eq!(response.status, 200, "{name}: {}", response.text());
    let expected = format!("{} {}\n{}", seen.method, seen.target, seen.body);
    assert!(
        response.text().eq_ignore_ascii_case(&expected),
        "{name}: {:?}, not {expected:?}",
        response.text()
    );
}

fn server() -> Server {
    // The limit that the table has in mind.
    behave()
        .http()
        .with("max_body_size", 2 << 20)
        // Its preface is one of the malformed requests.
        .with("http2", false)
        .env("BEHAVE_HTTP", "report")
        .start()
}

struct Random(u64);

impl Random {
    fn below(&mut self, end: usize) -> usize {
        self.0 = self
            .0
            .wrapping_mul(6_364_136_223_846_793_005)
            .wrapping_add(1);
        (self.0 >> 33) as usize % end.max(1)
    }
}
