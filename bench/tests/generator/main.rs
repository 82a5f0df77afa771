//! The generator as its users have it: a program, against servers that do right and servers that do
//! wrong.

#![allow(
    clippy::expect_used,
    clippy::unwrap_used,
    reason = "a test says what it expects, also in a function beside it"
)]

mod gannet;
mod kit;
mod stall;
mod wrong;
