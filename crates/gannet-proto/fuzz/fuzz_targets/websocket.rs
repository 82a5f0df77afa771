//! How the input is cut into reads means nothing to the websocket decoder.
#![no_main]

#[path = "../../tests/support/mod.rs"]
mod support;

use gannet_proto::websocket::Limits;
use libfuzzer_sys::fuzz_target;
use support::{random::Random, websocket::assert_cuts_mean_nothing};

fuzz_target!(|data: &[u8]| {
    let [choice, seed, input @ ..] = data else {
        return;
    };
    let limits = Limits {
        max_message_size: [16, 400, 4096, 1 << 20][usize::from(choice & 3)],
        ..Limits::default()
    };
    assert_cuts_mean_nothing(limits, input, &mut Random::new(u64::from(*seed)));
});
