//! How the input is cut into reads means nothing to the rules for frames of HTTP/2.
#![no_main]

#[path = "../../tests/support/mod.rs"]
mod support;

use libfuzzer_sys::fuzz_target;
use support::{http2::assert_cuts_mean_nothing, random::Random};

fuzz_target!(|data: &[u8]| {
    let [seed, input @ ..] = data else {
        return;
    };
    let _ = assert_cuts_mean_nothing(input, &mut Random::new(u64::from(*seed)));
});
