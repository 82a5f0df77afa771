//! Protocols as pure state machines: bytes in, events out; no I/O, no clock.
#![forbid(unsafe_code)]
