//! A PROXY header is what the naive model finds, however the input is cut into reads.
#![no_main]

#[path = "../../tests/support/mod.rs"]
mod support;

use libfuzzer_sys::fuzz_target;

fuzz_target!(|data: &[u8]| {
    support::proxy::assert_cuts_mean_nothing(data);
});
