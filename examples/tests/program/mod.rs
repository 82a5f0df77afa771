//! Where the examples are.

use std::{env, path::PathBuf};

use gannet_tests::server::Spec;

/// A server that is this example.
pub(crate) fn example(name: &str) -> Spec {
    Spec::new(path(name))
}

/// Examples are built into a directory beside the one of the tests.
pub(crate) fn path(name: &str) -> PathBuf {
    let tests = env::current_exe().unwrap();
    tests
        .parent()
        .unwrap()
        .with_file_name("examples")
        .join(name)
}
