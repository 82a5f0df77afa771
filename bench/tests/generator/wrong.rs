//! Servers that do wrong, and command lines that are.

use std::{
    io::{Read, Write},
    net::{Shutdown, TcpStream},
    sync::{
        Mutex,
        mpsc::{self, Receiver, Sender},
    },
    thread,
    time::Duration,
};

use crate::kit::{Reserved, bench, echo, respond, run, serve};

#[test]
fn another_byte_is_told_with_its_place() {
    let address = serve(|stream, number| {
        echo(stream, 64, |message, bytes| {
            if number == 1 && message == 5 {
                bytes[40] ^= 1;
            }
            Some(())
        });
    });
    let outcome = bench(&["tcp", &address.to_string(), "--connections", "2"]);
    outcome.expect_error("message 5: byte 40 of the answer: expected");
    assert_eq!(outcome.number("error_kinds.wrong"), 1.0);
    assert!(outcome.number("messages") > 0.0, "the other one goes on");
}

#[test]
fn the_answer_to_another_connection_is_told() {
    // Two connections, each of which gets what the other one sent.
    type Ends = (Sender<Vec<u8>>, Receiver<Vec<u8>>);
    let ((to_a, from_b), (to_b, from_a)) = (mpsc::channel(), mpsc::channel());
    let ends: Mutex<Vec<Ends>> = Mutex::new(vec![(to_a, from_a), (to_b, from_b)]);
    let address = serve(move |mut stream, _| {
        let Some((give, take)) = ends.lock().expect("the ends").pop() else {
            return;
        };
        let mut message = vec![0; 64];
        stream.read_exact(&mut message).expect("a message");
        give.send(message).expect("the other one");
        stream
            .write_all(&take.recv().expect("the other one"))
            .expect("room");
        let _ = stream.read(&mut [0]);
    });
    let outcome = bench(&["tcp", &address.to_string(), "--connections", "2"]);
    outcome.expect_error("it is the answer to message 0 of connection 1");
}

#[test]
fn an_old_answer_is_told() {
    let address = serve(|stream, _| {
        let mut last = Vec::new();
        echo(stream, 64, move |message, bytes| {
            if message == 7 {
                bytes.clone_from(&last);
            }
            last.clone_from(bytes);
            Some(())
        });
    });
    let outcome = bench(&["tcp", &address.to_string(), "--connections", "1"]);
    outcome.expect_error("it is the answer to message 6 of connection 0");
}

#[test]
fn a_connection_that_ends_in_the_middle_is_an_error() {
    let address = serve(|stream, number| {
        echo(stream, 64, |message, bytes| {
            if number == 0 && message == 3 {
                bytes.truncate(20);
                return None;
            }
            Some(())
        });
    });
    let outcome = bench(&["tcp", &address.to_string(), "--connections", "2"]);
    outcome.expect_error("message 3: the server closed the connection");
    assert_eq!(outcome.number("error_kinds.lost_messages"), 1.0);
    assert_eq!(outcome.number("error_kinds.lost_connections"), 1.0);
}

#[test]
fn with_reconnect_it_goes_on_and_counts_what_was_lost() {
    let address = serve(|stream, _| {
        echo(stream, 64, |message, bytes| {
            if message == 50 {
                bytes.clear();
                return None;
            }
            Some(())
        });
    });
    let target = address.to_string();
    let outcome = bench(&["tcp", &target, "--connections", "2", "--reconnect"]);
    assert_eq!(outcome.code, Some(1), "{outcome:?}");
    let lost = outcome.number("error_kinds.lost_messages");
    assert!(lost >= 2.0, "{outcome:?}");
    assert!(outcome.number("reconnects") >= lost - 2.0, "{outcome:?}");
    assert!(outcome.number("messages") > 100.0, "{outcome:?}");
    assert_eq!(outcome.number("errors"), lost);
}

#[test]
fn with_reconnect_a_server_may_come_late() {
    let port = Reserved::new();
    let address = port.address;
    let late = thread::spawn(move || {
        // By now the generator has tried.
        thread::sleep(Duration::from_millis(1_500));
        let listener = port.listen();
        let (stream, _) = listener.accept().expect("a client");
        echo(stream, 64, |_, _| Some(()));
    });
    let target = address.to_string();
    let outcome = bench(&["tcp", &target, "--connections", "1", "--reconnect"]);
    outcome.expect_clean();
    assert!(outcome.number("error_kinds.failed_connects") >= 1.0);
    late.join().expect("the server");
}

#[test]
fn an_answer_that_does_not_come_is_an_error() {
    let address = serve(|mut stream, _| {
        let mut bytes = [0; 1024];
        while stream.read(&mut bytes).is_ok_and(|count| count > 0) {}
    });
    let target = address.to_string();
    let outcome = bench(&["tcp", &target, "--connections", "3", "--timeout", "200ms"]);
    outcome.expect_error("no answer in time");
    assert_eq!(outcome.number("error_kinds.timeout"), 3.0);
}

#[test]
fn what_nobody_asked_for_is_told() {
    let address = serve(|mut stream: TcpStream, _| {
        stream.write_all(b"220 welcome\r\n").expect("room");
        echo(stream, 64, |_, _| Some(()));
    });
    let outcome = bench(&["tcp", &address.to_string(), "--connections", "1"]);
    assert_eq!(outcome.code, Some(1), "{outcome:?}");
    assert_eq!(outcome.number("error_kinds.wrong"), 1.0);
}

#[test]
fn another_status_is_told_and_the_connection_goes_on() {
    let busy = "HTTP/1.1 503 Service Unavailable\r\nContent-Length: 4\r\n\r\nbusy";
    let address = serve(|stream, _| respond(stream, busy));
    let outcome = bench(&["http", &format!("http://{address}/"), "--connections", "2"]);
    outcome.expect_error("message 1: status 503");
    assert_eq!(outcome.number("messages"), 0.0);
    assert!(outcome.number("error_kinds.status") > 2.0);
}

#[test]
fn another_body_is_told() {
    let response = "HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nhello";
    let address = serve(move |stream, _| respond(stream, response));
    let url = format!("http://{address}/");
    bench(&["http", &url, "--expect-body", "hello"]).expect_clean();
    bench(&["http", &url]).expect_clean();
    let outcome = bench(&["http", &url, "--expect-body", "hallo"]);
    outcome.expect_error("byte 1 of the answer: expected \\\"allo\\\", got \\\"ello\\\"");
}

#[test]
fn a_server_that_is_not_what_it_should_be_is_told_at_once() {
    let address = serve(|stream, _| {
        respond(
            stream,
            "HTTP/1.1 404 Not Found\r\nContent-Length: 0\r\n\r\n",
        );
    });
    let outcome = bench(&["ws", &format!("ws://{address}/")]);
    assert_eq!(outcome.code, Some(3), "{outcome:?}");
    assert!(outcome.errors.contains("status 404"), "{outcome:?}");
    let address = serve(|stream, _| stream.shutdown(Shutdown::Both).expect("a socket"));
    let outcome = bench(&["tcp", &format!("tls://{address}"), "--insecure"]);
    assert_eq!(outcome.code, Some(3), "{outcome:?}");
}

#[test]
fn what_cannot_be_measured_says_why() {
    let port = Reserved::new();
    let free = port.address.to_string();
    for (arguments, code, text) in [
        (
            &["tcp", free.as_str()][..],
            3,
            "refused: nothing listens there",
        ),
        (&["tcp", "nobody.invalid:80"], 3, "is the name right?"),
        (&["tcp", "localhost"], 2, "no port"),
        (
            &["tcp", "http://localhost/"],
            2,
            "tcp wants a target with tcp://",
        ),
        (&["tcp", "localhost:1", "--size", "0"], 2, "--size 0"),
        (
            &["tcp", "localhost:1", "--duration", "5"],
            2,
            "a number and its unit",
        ),
        (
            &["tcp", "localhost:1", "-c", "1", "--threads", "2"],
            2,
            "--threads 2",
        ),
        (
            &["tcp", free.as_str(), "--server-pid", "4194304"],
            3,
            "no such process",
        ),
        (
            &["tcp", "tls://localhost:1", "--ca", "/nowhere"],
            3,
            "/nowhere",
        ),
        (
            &["tcp", free.as_str(), "-c", "10000000"],
            3,
            "raise the limit",
        ),
        (
            &["broadcast", "ws://localhost:1/", "--size", "7"],
            2,
            "8 bytes",
        ),
    ] {
        let outcome = run(arguments);
        assert_eq!(outcome.code, Some(code), "{arguments:?}: {outcome:?}");
        assert!(outcome.errors.contains(text), "{arguments:?}: {outcome:?}");
        assert_eq!(outcome.output, "");
    }
}
