//! What holds for every input: the cuts between reads mean nothing, and what was encoded
//! is what is decoded.

mod support;

use std::collections::BTreeSet;

use gannet_proto::{
    http1::{BodyLength, Limits as HttpLimits, encode_chunk, encode_last_chunk, is_token},
    websocket::{Decoder, Limits, Opcode, client},
};
use proptest::{collection::vec, prelude::*};
use support::{http1, http2, proxy, random::Random, tcp, websocket};

/// A smoke test of the fuzz target `http1`: the same property, the same cases every time.
#[test]
fn cuts_mean_nothing_to_http1() {
    let mut accepted = 0;
    let mut refused = 0;
    for seed in 0..6000 {
        let mut random = Random::new(seed);
        let input = http1::random_input(&mut random);
        let limits = match random.chance(4) {
            true => http1::small_limits(),
            false => HttpLimits::default(),
        };
        match http1::assert_cuts_mean_nothing(limits, &input, &mut random).error {
            None => accepted += 1,
            Some(_) => refused += 1,
        }
    }
    // The generator reaches both sides of the parser.
    assert!(
        accepted > 1000 && refused > 1000,
        "{accepted} accepted, {refused} refused"
    );
}

/// A smoke test of the fuzz target `http2`.
#[test]
fn cuts_mean_nothing_to_the_rules_of_http2() {
    let (mut kept, mut broken) = (0, BTreeSet::new());
    for seed in 0..6000 {
        let mut random = Random::new(seed);
        let input = http2::random_input(&mut random);
        match http2::assert_cuts_mean_nothing(&input, &mut random) {
            Ok(()) => kept += 1,
            Err(violation) => drop(broken.insert(violation.message)),
        }
    }
    // The generator reaches most rules.
    assert!(kept > 1000 && broken.len() > 8, "{kept} kept, {broken:?}");
}

/// A smoke test of the fuzz target `websocket`.
#[test]
fn cuts_mean_nothing_to_websocket() {
    let mut accepted = 0;
    let mut refused = 0;
    let mut inflated = 0;
    for seed in 0..6000 {
        let mut random = Random::new(seed);
        let input = match seed % 2 {
            0 => websocket::random_input(&mut random),
            _ => websocket::random_compressed_input(&mut random),
        };
        let limits = Limits {
            max_message_size: random.pick(&[16, 400, 1 << 20]),
            ..Limits::default()
        };
        let transcript = websocket::assert_cuts_mean_nothing(limits, &input, &mut random);
        inflated += transcript
            .events
            .iter()
            .filter(|event| is_long(event))
            .count();
        match transcript.error {
            None => accepted += 1,
            Some(_) => refused += 1,
        }
    }
    assert!(
        accepted > 1000 && refused > 1000 && inflated > 100,
        "{accepted} accepted, {refused} refused, {inflated} inflated"
    );
}

/// A smoke test of the fuzz target `tcp`: what the model finds, at every cut.
#[test]
fn cuts_mean_nothing_to_framed_tcp() {
    let mut accepted = 0;
    let mut refused = 0;
    for seed in 0..20_000 {
        let mut random = Random::new(seed);
        let spec = tcp::random_spec(&mut random);
        let max = random.pick(&[0, 1, 31, 32, 33, 200, 1 << 20]);
        let input = tcp::random_input(&spec, &mut random);
        match tcp::assert_cuts_mean_nothing(&spec, max, &input, &mut random).error {
            None => accepted += 1,
            Some(_) => refused += 1,
        }
    }
    assert!(
        accepted > 4000 && refused > 4000,
        "{accepted} accepted, {refused} refused"
    );
}

/// A smoke test of the fuzz target `proxy`: what the model finds, at every cut.
#[test]
fn cuts_mean_nothing_to_proxy_headers() {
    let mut found = [0; 3];
    for seed in 0..10_000 {
        let mut random = Random::new(seed);
        let input = proxy::random_input(&mut random);
        found[match proxy::assert_cuts_mean_nothing(&input) {
            proxy::Found::Header(..) => 0,
            proxy::Found::Unfinished => 1,
            proxy::Found::Wrong => 2,
        }] += 1;
    }
    let [headers, unfinished, wrong] = found;
    assert!(
        headers > 2000 && unfinished > 200 && wrong > 2000,
        "{headers} headers, {unfinished} unfinished, {wrong} wrong"
    );
}

/// Longer than the generator makes what it does not compress.
fn is_long(event: &websocket::Seen) -> bool {
    match event {
        websocket::Seen::Text(text) => text.len() > 1000,
        websocket::Seen::Binary(data) => data.len() > 1000,
        _ => false,
    }
}

/// A message with the places where it is cut into frames.
fn message() -> impl Strategy<Value = (websocket::Seen, Vec<prop::sample::Index>)> {
    let seen = prop_oneof![
        ".{0,80}".prop_map(websocket::Seen::Text),
        vec(any::<u8>(), 0..400).prop_map(websocket::Seen::Binary),
    ];
    (seen, vec(any::<prop::sample::Index>(), 0..4))
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::default() })]

    /// Whatever a client has written to the left, the address that its proxy adds is found.
    #[test]
    fn what_a_client_forges_hides_nothing(
        forged in vec(prop_oneof![Just(b'"'), Just(b'\\'), Just(b','), Just(b';'), any::<u8>()], 0..40),
        own_line in any::<bool>(),
        quoted in any::<bool>(),
    ) {
        use gannet_proto::proxy::{Client, Header, client};
        for header in [Header::XForwardedFor, Header::Forwarded] {
            let added = match (header, quoted) {
                (Header::XForwardedFor, _) => "192.0.2.7:47",
                (_, true) => "proto=https;for=\"192.0.2.7:47\"",
                (_, false) => "for=\"192.0.2.7:47\";by=_proxy",
            };
            let mut lines = vec![forged.clone(), added.as_bytes().to_vec()];
            if !own_line {
                lines = vec![lines.join(&b", "[..])];
            }
            let values = lines.iter().rev().map(Vec::as_slice);
            let found = client(header, values, |_| false);
            prop_assert_eq!(found, Client::Address("192.0.2.7:47".parse().unwrap()));
        }
    }

    #[test]
    fn messages_come_back_however_they_are_fragmented_and_cut(
        messages in vec(message(), 0..6),
        key in any::<[u8; 4]>(),
        seed in any::<u64>(),
    ) {
        let mut input = Vec::new();
        let mut expected = Vec::new();
        for (message, places) in messages {
            let (opcode, payload) = match &message {
                websocket::Seen::Text(text) => (Opcode::Text, text.clone().into_bytes()),
                websocket::Seen::Binary(data) => (Opcode::Binary, data.clone()),
                other => panic!("{other:?}"),
            };
            encode_fragments(&mut input, opcode, &payload, &places, key);
            expected.push(message);
        }
        let cuts = Random::new(seed).cuts(input.len());
        let limits = Limits::default();
        let transcript = websocket::read(Decoder::new(limits), limits, &input, &cuts);
        prop_assert_eq!(transcript.error, None);
        prop_assert_eq!(transcript.events, expected);
        prop_assert_eq!(transcript.unused, 0);
        prop_assert!(transcript.is_idle);
    }

    #[test]
    fn framed_messages_come_back_however_they_are_cut(
        messages in vec(vec(any::<u8>(), 0..300), 0..6),
        seed in any::<u64>(),
    ) {
        let mut random = Random::new(seed);
        let spec = tcp::random_spec(&mut random);
        let framing = spec.framing();
        let mut input = Vec::new();
        // What cannot be encoded without doubt is refused, and so not expected.
        let sent: Vec<_> = messages
            .into_iter()
            .filter(|message| framing.encode(&mut input, message).is_ok())
            .collect();
        let cuts = random.cuts(input.len());
        let transcript = tcp::read(&spec, 1 << 20, &input, &cuts);
        prop_assert_eq!(transcript.error, None);
        prop_assert!(transcript.is_idle);
        prop_assert_eq!(transcript.messages.len(), sent.len());
        let mut again = Vec::new();
        for (got, sent) in transcript.messages.iter().zip(&sent) {
            let is_kept = matches!(
                spec,
                tcp::Spec::Marker { keep: true, .. } | tcp::Spec::Length(gannet_proto::tcp::LengthPrefix { keep_header: true, .. })
            );
            prop_assert!(is_kept || got == sent);
            framing.encode(&mut again, got).unwrap();
        }
        prop_assert_eq!(again, input);
    }

    #[test]
    fn requests_come_back_however_they_are_cut(
        method in "[A-Z!#$%&'*+.^_`|~a-z0-9-]{1,32}".prop_filter("other target forms", |method| {
            method != "CONNECT"
        }),
        path in "/[!$-;=?-_a-~]{0,60}",
        headers in vec(("[!#$%&'*+.^_`|~a-z0-9-]{1,16}", "([!-~]([ -~\t]{0,20}[!-~])?)?"), 0..12),
        body in prop::option::of(vec(any::<u8>(), 1..200)),
        chunk in prop::option::of(1..64usize),
        seed in any::<u64>(),
    ) {
        let headers: Vec<_> = headers
            .into_iter()
            .filter(|(name, _)| !SPECIAL.contains(&name.as_str()))
            .collect();
        let mut input = format!("{method} {path} HTTP/1.1\r\nhost: a\r\n").into_bytes();
        for (name, value) in &headers {
            prop_assert!(is_token(name.as_bytes()));
            input.extend_from_slice(format!("{name}:{value}\r\n").as_bytes());
        }
        let length = match (&body, chunk) {
            (None, _) => BodyLength::None,
            (Some(body), None) => BodyLength::Length(body.len() as u64),
            (Some(_), Some(_)) => BodyLength::Chunked,
        };
        match length {
            BodyLength::None => input.extend_from_slice(b"\r\n"),
            BodyLength::Length(len) => {
                input.extend_from_slice(format!("content-length: {len}\r\n\r\n").as_bytes());
                input.extend_from_slice(body.as_deref().unwrap_or_default());
            }
            BodyLength::Chunked => {
                input.extend_from_slice(b"transfer-encoding: chunked\r\n\r\n");
                for piece in body.as_deref().unwrap_or_default().chunks(chunk.unwrap_or(1)) {
                    encode_chunk(&mut input, piece);
                }
                encode_last_chunk(&mut input, b"");
            }
        }

        let cuts = Random::new(seed).cuts(input.len());
        let transcript = http1::read(HttpLimits::default(), &input, &cuts);
        prop_assert_eq!(&transcript.error, &None);
        let head = transcript.heads().next().unwrap();
        prop_assert_eq!(&head.method, &method);
        prop_assert_eq!(&head.target, &path);
        prop_assert_eq!(head.body, length);
        let seen: Vec<_> = head.headers.iter().skip(1).take(headers.len()).cloned().collect();
        let sent: Vec<_> =
            headers.into_iter().map(|(name, value)| (name, value.into_bytes())).collect();
        prop_assert_eq!(seen, sent);
        let expected: Vec<_> = body.into_iter().map(http1::Seen::Body).collect();
        prop_assert_eq!(&transcript.events[1..transcript.events.len() - 1], &expected);
        prop_assert!(transcript.is_idle);
    }
}

/// Headers that mean something to the parser.
const SPECIAL: &[&str] = &[
    "host",
    "expect",
    "upgrade",
    "connection",
    "content-length",
    "transfer-encoding",
];

fn encode_fragments(
    out: &mut Vec<u8>,
    opcode: Opcode,
    payload: &[u8],
    places: &[prop::sample::Index],
    key: [u8; 4],
) {
    let mut ends: Vec<usize> = places
        .iter()
        .map(|at| at.index(payload.len() + 1))
        .collect();
    ends.push(payload.len());
    ends.sort_unstable();
    let last = ends.len() - 1;
    let mut start = 0;
    for (index, end) in ends.into_iter().enumerate() {
        let opcode = if index == 0 {
            opcode
        } else {
            Opcode::Continuation
        };
        client::encode_frame(out, opcode, index == last, &payload[start..end], key);
        start = end;
    }
}
