//! The table of requests, read by the decoder: whole and cut at every place, or at many.

mod support;

use gannet_proto::http1::Limits;
use support::{
    http1::{Seen as Event, Transcript, read},
    random::Random,
    requests::{Outcome, Row, Seen, table},
};

#[test]
fn every_request_of_the_table_has_its_outcome_however_it_is_cut() {
    let table = table();
    assert!(table.len() >= 400, "{} rows", table.len());
    let mut random = Random::new(7);
    for row in &table {
        let name = row.sent[..row.sent.len().min(200)]
            .escape_ascii()
            .to_string();
        let whole = read(Limits::default(), &row.sent, &[]);
        check(row, &whole, &name);
        for cuts in cuts(row.sent.len(), &mut random) {
            let pieces = read(Limits::default(), &row.sent, &cuts);
            assert_eq!(pieces, whole, "{name} cut into {cuts:?}");
        }
    }
}

fn check(row: &Row, transcript: &Transcript, name: &str) {
    let events = transcript.events.as_slice();
    match &row.outcome {
        Outcome::Refused(status) => {
            assert_eq!(transcript.status(), Some(*status), "{name}: {transcript:?}");
            assert_eq!(transcript.heads().count(), 0, "{name}");
        }
        Outcome::RefusedInBody(status) => {
            assert_eq!(transcript.status(), Some(*status), "{name}: {transcript:?}");
            assert_eq!(transcript.heads().count(), 1, "{name}");
        }
        Outcome::Answered { requests, keep } => {
            assert_eq!(transcript.error, None, "{name}");
            seen(events, requests, name);
            assert_eq!(transcript.is_done, !keep, "{name}");
        }
        Outcome::AnsweredThenRefused { requests, status } => {
            assert_eq!(transcript.status(), Some(*status), "{name}: {transcript:?}");
            seen(events, requests, name);
        }
    }
}

/// Checks that these requests are what the events say, each of them whole.
fn seen(mut events: &[Event], requests: &[Seen], name: &str) {
    for request in requests {
        let [Event::Head(head), rest @ ..] = events else {
            panic!("{name}: {events:?}");
        };
        assert_eq!(head.method, request.method, "{name}");
        assert_eq!(head.target, request.target, "{name}");
        let (body, rest) = match rest {
            [Event::Body(body), rest @ ..] => (body.as_slice(), rest),
            rest => (&[][..], rest),
        };
        assert_eq!(body, request.body.as_bytes(), "{name}");
        let [Event::End(_), rest @ ..] = rest else {
            panic!("{name}: no end: {rest:?}");
        };
        events = rest;
    }
    assert!(events.is_empty(), "{name}: {events:?}");
}

/// Every place to cut a short input in two, byte by byte, and some random cuts.
fn cuts(len: usize, random: &mut Random) -> Vec<Vec<usize>> {
    let mut all: Vec<Vec<usize>> = (0..8).map(|_| random.cuts(len)).collect();
    if len <= 400 {
        all.extend((1..len).map(|at| vec![at]));
        all.push(vec![1; len]);
    }
    all
}
