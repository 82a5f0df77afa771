//! The examples are the files beside this one: `cargo run --release --example echo`.
