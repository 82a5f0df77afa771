//! A compressed payload of any bytes: never more memory than the limit, never a panic, and how it
//! was cut into frames and reads means nothing.
#![no_main]

#[path = "../../tests/support/mod.rs"]
mod support;

use gannet_proto::websocket::{Limits, Opcode, client};
use libfuzzer_sys::fuzz_target;
use support::{random::Random, websocket::assert_cuts_mean_nothing};

fuzz_target!(|data: &[u8]| {
    let [choice, seed, cut, payload @ ..] = data else {
        return;
    };
    let limits = Limits {
        max_message_size: [16, 400, 4096, 1 << 20][usize::from(choice & 3)],
        ..Limits::default()
    };
    let opcode = match choice & 4 {
        0 => Opcode::Text,
        _ => Opcode::Binary,
    };
    let key = [*seed; 4];
    let (first, rest) = payload.split_at(usize::from(*cut).min(payload.len()));
    let mut input = Vec::new();
    client::encode_compressed_frame(&mut input, opcode, false, first, key);
    client::encode_frame(&mut input, Opcode::Ping, true, b"", key);
    client::encode_frame(&mut input, Opcode::Continuation, true, rest, key);
    // The next message may refer to this one, if windows are kept.
    client::encode_compressed_frame(&mut input, opcode, true, payload, key);
    assert_cuts_mean_nothing(limits, &input, &mut Random::new(u64::from(*seed)));
});
