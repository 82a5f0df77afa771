//! What the test suites and the fuzz targets share: decoders driven like a reactor drives
//! them, and the property that the cuts between reads mean nothing.
#![allow(dead_code, missing_docs, unreachable_pub, clippy::expect_used)]

pub mod http1;
pub mod http2;
pub mod proxy;
pub mod random;
pub mod requests;
pub mod tcp;
pub mod websocket;
