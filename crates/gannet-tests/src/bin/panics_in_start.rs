//! A build of `behave` whose workers panic in `start`.

use gannet_tests::behave::{Start, Variant, serve};

fn main() -> gannet::Result {
    serve(Variant {
        version: "3",
        start: Start::Panics,
    })
}
