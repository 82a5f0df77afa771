//! TLS with other people's clients: OpenSSL, GnuTLS, curl. `./test` installs them.

use std::{
    io::{BufRead, BufReader, Write},
    net::SocketAddr,
    path::{Path, PathBuf},
    process::{Child, Command, Output, Stdio},
};

use gannet_tests::{
    server::Server,
    tls::{Authority, Identity, Keys, Wish},
    wait::{wait_for, wait_until},
};

use crate::behave;

/// Files for clients that are programs.
struct Files {
    keys: Keys,
    ca: PathBuf,
}

impl Files {
    fn new() -> Self {
        let keys = Keys::default();
        let ca = keys.ca();
        Files { keys, ca }
    }

    fn client(&self, name: &str, identity: &Identity) -> (PathBuf, PathBuf) {
        identity.write(self.keys.directory.path(), name)
    }

    fn openssl(&self, address: SocketAddr) -> Command {
        let mut command = Command::new("openssl");
        command
            .args(["s_client", "-quiet", "-no_ign_eof", "-verify_return_error"])
            .args(["-servername", "localhost", "-verify_hostname", "localhost"])
            .arg("-CAfile")
            .arg(&self.ca)
            .args(["-connect", &address.to_string()]);
        command
    }

    fn gnutls(&self, address: SocketAddr) -> Command {
        let mut command = Command::new("gnutls-cli");
        command
            .args([
                "--verify-hostname",
                "localhost",
                "--sni-hostname",
                "localhost",
            ])
            .arg("--x509cafile")
            .arg(&self.ca)
            .args(["-p", &address.port().to_string(), "127.0.0.1"]);
        command
    }

    fn curl(&self, address: SocketAddr, path: &str) -> Command {
        let mut command = Command::new("curl");
        let port = address.port();
        command
            .args(["-sS", "--max-time", "20", "--cacert"])
            .arg(&self.ca)
            .args(["--resolve", &format!("localhost:{port}:127.0.0.1")])
            .arg(format!("https://localhost:{port}{path}"));
        command
    }
}

/// A client that reads commands, while it runs.
struct Session(Child);

impl Session {
    fn start(mut command: Command) -> Self {
        let child = command
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn();
        Session(child.unwrap_or_else(|error| panic!("{command:?}: {error}: install it")))
    }

    /// Sends these lines and reads until a line of the output is `answer`.
    fn expect(mut self, lines: &str, answer: &str) {
        let mut input = self.0.stdin.take().unwrap();
        input.write_all(lines.as_bytes()).unwrap();
        input.flush().unwrap();
        let output = BufReader::new(self.0.stdout.take().unwrap());
        let found = output
            .lines()
            .map_while(Result::ok)
            .any(|line| line.trim_end() == answer);
        drop(input);
        let ended = self.end();
        assert!(found, "no line {answer:?}: {ended:?}");
    }

    /// Sends these lines and gives all that it says until it ends by itself.
    fn talk(mut self, lines: &str) -> String {
        let mut input = self.0.stdin.take().unwrap();
        // It may have ended by now.
        let _ = input.write_all(lines.as_bytes());
        let ended = self.end();
        drop(input);
        let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
        text(&ended.stdout) + &text(&ended.stderr)
    }

    fn end(mut self) -> Output {
        wait_for("the client to end", || self.0.try_wait().unwrap());
        self.0.wait_with_output().unwrap()
    }
}

fn with(mut command: Command, arguments: &[&str], files: &[(&str, &Path)]) -> Command {
    command.args(arguments);
    for (flag, path) in files {
        command.arg(flag).arg(path);
    }
    command
}

fn text(output: &Output) -> String {
    assert!(output.status.success(), "{output:?}");
    String::from_utf8_lossy(&output.stdout).into_owned()
}

fn still_serves(files: &Files, server: &Server) {
    Session::start(files.openssl(server.address(0))).expect("echo served\n", "served");
}

#[test]
fn openssl_speaks_1_2_and_1_3() {
    let files = Files::new();
    let server = files.keys.serve(behave().tcp()).start();
    for version in ["-tls1_2", "-tls1_3"] {
        let command = with(files.openssl(server.address(0)), &[version], &[]);
        Session::start(command).expect("echo from openssl\n", "from openssl");
    }
    server.stop();
}

#[test]
fn openssl_is_refused_with_1_0_and_1_1() {
    let files = Files::new();
    let server = files.keys.serve(behave().tcp()).start();
    for version in ["-tls1", "-tls1_1"] {
        let arguments = [version, "-cipher", "DEFAULT@SECLEVEL=0"];
        let command = with(files.openssl(server.address(0)), &arguments, &[]);
        let said = Session::start(command).talk("echo old\n");
        // protocol_version, or, as the hello lacks what 1.2 asks for, handshake_failure.
        let alert = said.contains("alert number 70") || said.contains("alert number 40");
        assert!(alert && !said.lines().any(|line| line == "old"), "{said}");
    }
    assert_eq!(server.events(), 0);
    still_serves(&files, &server);
    server.stop();
}

#[test]
fn openssl_is_refused_renegotiation() {
    let files = Files::new();
    let server = files.keys.serve(behave().tcp()).start();
    let mut command = Command::new("openssl");
    command
        .args(["s_client", "-tls1_2", "-CAfile"])
        .arg(&files.ca)
        .args(["-connect", &server.address(0).to_string()]);
    // A line with an R asks openssl to renegotiate.
    let said = Session::start(command).talk("R\n");
    assert!(said.contains("RENEGOTIATING"), "{said}");
    assert!(said.contains("no renegotiation"), "{said}");
    still_serves(&files, &server);
    server.stop();
}

#[test]
fn openssl_resumes_its_session() {
    let files = Files::new();
    let server = files.keys.serve(behave().set("reactors", 2).tcp()).start();
    let ticket = files.keys.directory.path().join("ticket");
    for version in ["-tls1_2", "-tls1_3"] {
        let first = with(
            files.openssl(server.address(0)),
            &[version],
            &[("-sess_out", &ticket)],
        );
        Session::start(first).expect("echo first\n", "first");
        let again = with(
            files.openssl(server.address(0)),
            &[version],
            &[("-sess_in", &ticket)],
        );
        Session::start(again).expect("echo again\n", "again");
    }
    wait_until("it to be counted", || {
        server.status()["totals"]["tls_resumed"] == 2
    });
    server.stop();
}

#[test]
fn keys_of_every_kind_serve() {
    let files = Files::new();
    for (kind, options) in [
        ("rsa:2048", &[][..]),
        ("ec", &["-pkeyopt", "ec_paramgen_curve:P-384"]),
        ("ed25519", &[]),
    ] {
        let directory = files.keys.directory.path();
        let (certificate, key) = (directory.join("own.pem"), directory.join("own.key"));
        let made = Command::new("openssl")
            .args(["req", "-x509", "-nodes", "-days", "30", "-newkey", kind])
            .args(options)
            .args([
                "-subj",
                "/CN=localhost",
                "-addext",
                "subjectAltName=DNS:localhost",
            ])
            .arg("-keyout")
            .arg(&key)
            .arg("-out")
            .arg(&certificate)
            .output()
            .unwrap();
        text(&made);
        let server = behave().tcp().tls(&(certificate.clone(), key)).start();
        let command = Command::new("openssl");
        let command = with(
            command,
            &["s_client", "-quiet", "-no_ign_eof", "-verify_return_error"],
            &[("-CAfile", &certificate)],
        );
        let address = server.address(0).to_string();
        let command = with(command, &["-connect", &address], &[]);
        Session::start(command).expect("echo hello\n", "hello");
        server.stop();
    }
}

#[test]
fn openssl_with_a_certificate_is_let_in_and_without_is_told_why_not() {
    let files = Files::new();
    let server = files.keys.serve_mutual(behave().tcp()).start();
    let wish = Wish::new("till-1", &[]);
    let good = files.client("till", &files.keys.authority.sign(&wish));
    let expired = wish.clone().valid(-7200, -3600);
    let expired = files.client("expired", &files.keys.authority.sign(&expired));
    let stranger = files.client("stranger", &Authority::new("Another").sign(&wish));
    let own = files.client("own", &Identity::self_signed(&wish));
    let openssl = |(certificate, key): &(PathBuf, PathBuf), version| {
        let identity: [(&str, &Path); 2] = [("-cert", certificate), ("-key", key)];
        with(files.openssl(server.address(0)), &[version], &identity)
    };
    for version in ["-tls1_2", "-tls1_3"] {
        Session::start(openssl(&good, version)).expect("echo known\n", "known");
        for (who, alert) in [
            // certificate_expired, unknown_ca
            (&expired, "alert number 45"),
            (&stranger, "alert number 48"),
            (&own, "alert number 48"),
        ] {
            let said = Session::start(openssl(who, version)).talk("echo let me in\n");
            assert!(said.contains(alert), "{alert}: {said}");
        }
    }
    // certificate_required, in 1.2 too.
    let alert = "alert number 116";
    for version in ["-tls1_3", "-tls1_2"] {
        let command = with(files.openssl(server.address(0)), &[version], &[]);
        let said = Session::start(command).talk("echo let me in\n");
        assert!(said.contains(alert), "{alert}: {said}");
    }
    wait_until("it to be counted", || {
        server.status()["totals"]["tls_handshakes"] == 2
    });
    server.stop();
}

#[test]
fn gnutls_speaks_1_2_and_1_3_with_certificates_and_without() {
    let files = Files::new();
    let server = files
        .keys
        .serve_mutual(files.keys.serve(behave().tcp()).tcp())
        .start();
    let till = files.keys.authority.sign(&Wish::new("till-1", &[]));
    let (certificate, key) = files.client("till", &till);
    for version in [
        "NORMAL:-VERS-ALL:+VERS-TLS1.2",
        "NORMAL:-VERS-ALL:+VERS-TLS1.3",
    ] {
        let plain = with(
            files.gnutls(server.address(0)),
            &["--priority", version],
            &[],
        );
        Session::start(plain).expect("echo from gnutls\n", "from gnutls");
        let known: [(&str, &Path); 2] = [("--x509certfile", &certificate), ("--x509keyfile", &key)];
        let known = with(
            files.gnutls(server.address(1)),
            &["--priority", version],
            &known,
        );
        Session::start(known).expect("echo known to gnutls\n", "known to gnutls");
        let unknown = with(
            files.gnutls(server.address(1)),
            &["--priority", version],
            &[],
        );
        let said = Session::start(unknown).talk("echo let me in\n");
        assert!(said.contains("alert") || said.contains("Alert"), "{said}");
    }
    let old = "NORMAL:-VERS-ALL:+VERS-TLS1.1:%COMPAT";
    let old = with(files.gnutls(server.address(0)), &["--priority", old], &[]);
    let said = Session::start(old).talk("echo old\n");
    assert!(!said.lines().any(|line| line == "old"), "{said}");
    server.stop();
}

#[test]
fn curl_speaks_https() {
    let files = Files::new();
    let server = files.keys.serve(behave().http()).start();
    let address = server.address(0);
    let got = files.curl(address, "/").output().unwrap();
    assert_eq!(text(&got), "hello");
    let big = vec![b'c'; 3_000_000];
    let upload = files.keys.directory.path().join("big");
    std::fs::write(&upload, &big).unwrap();
    let mut post = files.curl(address, "/echo");
    post.arg("--data-binary")
        .arg(format!("@{}", upload.display()));
    let echoed = post.output().unwrap();
    assert!(echoed.status.success() && echoed.stdout == big);
    let old = with(files.curl(address, "/"), &["--tls-max", "1.1"], &[])
        .output()
        .unwrap();
    assert!(!old.status.success(), "{old:?}");
    server.stop();
}

#[test]
fn curl_shows_its_certificate_and_is_refused_without() {
    let files = Files::new();
    let server = files.keys.serve_mutual(behave().http()).start();
    let till = files.keys.authority.sign(&Wish::new("till-1", &[]));
    let (certificate, key) = files.client("till", &till);
    let known: [(&str, &Path); 2] = [("--cert", &certificate), ("--key", &key)];
    let known = with(files.curl(server.address(0), "/"), &[], &known);
    let mut known = known;
    assert_eq!(text(&known.output().unwrap()), "hello");
    let refused = files.curl(server.address(0), "/").output().unwrap();
    assert!(
        !refused.status.success() && refused.stdout.is_empty(),
        "{refused:?}"
    );
    server.stop();
}
