//! A build of `behave` that has no user processes.

use gannet_tests::behave::{Start, Variant, serve};

fn main() -> gannet::Result {
    serve(Variant {
        version: "no processes",
        start: Start::Ready,
    })
}
