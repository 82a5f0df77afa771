//! A newer build of `behave`.

use gannet_tests::behave::{Start, Variant, serve};

fn main() -> gannet::Result {
    serve(Variant {
        version: "2",
        start: Start::Ready,
    })
}
