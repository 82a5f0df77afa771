//! `gannet-bench`: the same as `gannet bench`.
#![forbid(unsafe_code)]

use std::process::ExitCode;

use clap::Parser;
use gannet_bench::Bench;

#[derive(Debug, Parser)]
#[command(name = "gannet-bench", version, max_term_width = 100)]
struct Arguments {
    #[command(flatten)]
    bench: Bench,
}

fn main() -> ExitCode {
    Arguments::parse().bench.main()
}
