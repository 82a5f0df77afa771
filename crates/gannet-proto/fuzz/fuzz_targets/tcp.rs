//! The framings find what a naive model finds, however the input is cut into reads.
#![no_main]

#[path = "../../tests/support/mod.rs"]
mod support;

use libfuzzer_sys::fuzz_target;
use support::{
    random::Random,
    tcp::{assert_cuts_mean_nothing, random_spec},
};

fuzz_target!(|data: &[u8]| {
    let [choice, seed, input @ ..] = data else {
        return;
    };
    let mut random = Random::new(u64::from(*choice));
    let spec = random_spec(&mut random);
    let max = random.pick(&[0, 32, 200, 1 << 20]);
    assert_cuts_mean_nothing(&spec, max, input, &mut Random::new(u64::from(*seed)));
});
