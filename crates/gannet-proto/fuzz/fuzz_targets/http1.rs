//! How the input is cut into reads means nothing to the http1 decoder.
#![no_main]

#[path = "../../tests/support/mod.rs"]
mod support;

use gannet_proto::http1::Limits;
use libfuzzer_sys::fuzz_target;
use support::{http1::assert_cuts_mean_nothing, random::Random};

fuzz_target!(|data: &[u8]| {
    let [choice, seed, input @ ..] = data else {
        return;
    };
    let limits = match choice & 1 {
        0 => Limits::default(),
        _ => support::http1::small_limits(),
    };
    assert_cuts_mean_nothing(limits, input, &mut Random::new(u64::from(*seed)));
});
