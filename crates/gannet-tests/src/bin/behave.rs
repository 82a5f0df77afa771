//! The server of most tests.

use gannet_tests::behave::{Start, Variant, serve};

fn main() -> gannet::Result {
    serve(Variant {
        version: "1",
        start: Start::Ready,
    })
}
