//! A build of `behave` whose workers never get ready.

use gannet_tests::behave::{Start, Variant, serve};

fn main() -> gannet::Result {
    serve(Variant {
        version: "3",
        start: Start::Hangs,
    })
}
