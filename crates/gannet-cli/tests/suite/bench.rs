//! `gannet bench`: the generator, as a command of this program.

use std::{
    io::{Read, Write},
    net::TcpListener,
    process::{Command, Output},
    thread,
};

fn bench(arguments: &[&str]) -> Output {
    Command::new(env!("CARGO_BIN_EXE_gannet"))
        .arg("bench")
        .args(arguments)
        .output()
        .expect("the program runs")
}

#[test]
fn a_server_is_measured() {
    let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
    let address = listener.local_addr().expect("its address").to_string();
    thread::spawn(move || {
        let (mut stream, _) = listener.accept().expect("a client");
        let mut message = [0; 64];
        while stream.read_exact(&mut message).is_ok() && stream.write_all(&message).is_ok() {}
    });
    let flags = [
        "-c",
        "1",
        "--duration",
        "200ms",
        "--warmup",
        "10ms",
        "--json",
    ];
    let output = bench(&[&["tcp", &address][..], &flags].concat());
    assert!(output.status.success(), "{output:?}");
    let report: serde_json::Value = serde_json::from_slice(&output.stdout).expect("JSON");
    assert!(report["messages"].as_u64() > Some(0), "{report}");
    assert_eq!(report["errors"], 0);
}

#[test]
fn the_exit_code_says_what_was_wrong() {
    // Nobody listens there.
    assert_eq!(bench(&["tcp", "127.0.0.1:1"]).status.code(), Some(3));
    assert_eq!(bench(&["tcp", "no target"]).status.code(), Some(2));
}

#[test]
fn the_help_shows_the_flags_of_the_generator_only() {
    let output = bench(&["tcp", "--help"]);
    let help = String::from_utf8(output.stdout).expect("text");
    assert!(help.contains("--connections"), "{help}");
    assert!(!help.contains("--tls-client-ca"), "{help}");
    assert!(!help.contains("--data"), "{help}");
}
