//! The examples are the files beside this one: `cargo run --release --example echo`.

/// The code in the page about HTTP is compiled; it takes what the examples take.
#[cfg(doctest)]
#[doc = include_str!("../docs/http.md")]
struct Http;
