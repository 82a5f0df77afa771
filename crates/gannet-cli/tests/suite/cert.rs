//! `gannet cert`: what it makes is what OpenSSL, curl and the server itself take.

use std::{
    fs,
    os::unix::fs::PermissionsExt,
    path::{Path, PathBuf},
    process::{Command, Output},
};

use tempfile::TempDir;

use crate::kit::{Server, wait_until};

/// A directory of certificates.
struct Certs(TempDir);

impl Certs {
    /// With an authority, and a server's certificate for localhost.
    fn new() -> Self {
        let certs = Certs(tempfile::tempdir().unwrap());
        certs.make(&["ca"]);
        certs.make(&["server"]);
        certs
    }

    fn path(&self, name: &str) -> PathBuf {
        self.0.path().join(name)
    }

    fn text(&self, name: &str) -> String {
        self.path(name).to_str().unwrap().to_owned()
    }

    fn run(&self, words: &[&str]) -> Output {
        let mut command = Command::new(env!("CARGO_BIN_EXE_gannet"));
        command
            .arg("cert")
            .args(words)
            .arg("--dir")
            .arg(self.0.path());
        command.output().unwrap()
    }

    /// Makes something and gives what was said.
    fn make(&self, words: &[&str]) -> String {
        let output = self.run(words);
        assert!(output.status.success(), "{words:?}: {output:?}");
        String::from_utf8(output.stdout).unwrap()
    }

    fn refused(&self, words: &[&str]) -> String {
        let output = self.run(words);
        assert_eq!(output.status.code(), Some(2), "{words:?}: {output:?}");
        String::from_utf8(output.stderr).unwrap()
    }

    fn start(&self, flags: &[&str]) -> Server {
        let (certificate, key) = (self.text("server.pem"), self.text("server.key"));
        let tls = ["--tls-cert", &certificate, "--tls-key", &key];
        Server::start_with(&[&tls, flags].concat())
    }

    /// What curl gets, if it gets anything.
    fn curl(&self, server: &Server, client: Option<&str>) -> Option<String> {
        let (_, port) = server.address.rsplit_once(':').unwrap();
        let mut curl = Command::new("curl");
        curl.args(["-sSf", "--max-time", "20", "--cacert"])
            .arg(self.path("ca.pem"));
        if let Some(name) = client {
            curl.arg("--cert").arg(self.path(&format!("{name}.pem")));
            curl.arg("--key").arg(self.path(&format!("{name}.key")));
        }
        let output = curl.arg(format!("https://localhost:{port}/")).output();
        let output = output.expect("curl is installed");
        let text = String::from_utf8_lossy(&output.stdout).into_owned();
        output.status.success().then_some(text)
    }
}

fn openssl(arguments: &[&str]) -> Output {
    let output = Command::new("openssl").args(arguments).output();
    output.expect("openssl is installed")
}

fn mode(path: &Path) -> u32 {
    fs::metadata(path).unwrap().permissions().mode() & 0o777
}

#[test]
fn what_is_made_verifies_and_says_what_comes_next() {
    let certs = Certs::new();
    let said = certs.make(&["server", "chat.example.org", "192.0.2.7", "--file", "chat"]);
    assert!(said.contains("chat.example.org, 192.0.2.7"), "{said}");
    assert!(said.contains("--tls-cert"), "{said}");
    let said = certs.make(&["client", "ann", "--email", "ann@example.org"]);
    assert!(
        said.contains("its password: ") && said.contains("--tls-client-ca"),
        "{said}"
    );
    let ca = certs.text("ca.pem");
    for (purpose, name) in [
        ("sslserver", "server.pem"),
        ("sslserver", "chat.pem"),
        ("sslclient", "ann.pem"),
    ] {
        let verified = openssl(&[
            "verify",
            "-x509_strict",
            "-CAfile",
            &ca,
            "-purpose",
            purpose,
            &certs.text(name),
        ]);
        assert!(verified.status.success(), "{name}: {verified:?}");
        let other = if purpose == "sslserver" {
            "sslclient"
        } else {
            "sslserver"
        };
        let wrong = openssl(&[
            "verify",
            "-CAfile",
            &ca,
            "-purpose",
            other,
            &certs.text(name),
        ]);
        assert!(!wrong.status.success(), "{name} is good for too much");
    }
    for (name, kind) in [("ca.key", 0o600), ("server.key", 0o600), ("ann.key", 0o600)] {
        assert_eq!(mode(&certs.path(name)), kind, "{name}");
    }
    assert_eq!(mode(&certs.path("ann.p12")), 0o600);
    let shown = openssl(&[
        "x509",
        "-noout",
        "-ext",
        "subjectAltName",
        "-in",
        &certs.text("chat.pem"),
    ]);
    let shown = String::from_utf8(shown.stdout).unwrap();
    assert!(
        shown.contains("DNS:chat.example.org, IP Address:192.0.2.7"),
        "{shown}"
    );
}

#[test]
fn a_p12_file_opens_with_its_password_only() {
    let certs = Certs::new();
    let password = certs.path("password");
    fs::write(&password, "correct horse\nsecond line\n").unwrap();
    for (name, old) in [("ann", false), ("bob", true)] {
        let mut words = vec![
            "client",
            name,
            "--password-file",
            password.to_str().unwrap(),
        ];
        words.extend(old.then_some("--old-p12"));
        certs.make(&words);
        let p12 = certs.text(&format!("{name}.p12"));
        let open = |password: &str| {
            let mut arguments = vec!["pkcs12", "-in", &p12, "-nodes", "-passin", password];
            arguments.extend(old.then_some("-legacy"));
            openssl(&arguments)
        };
        let opened = open("pass:correct horse");
        assert!(opened.status.success(), "{opened:?}");
        let text = String::from_utf8(opened.stdout).unwrap();
        assert_eq!(
            text.matches("BEGIN CERTIFICATE").count(),
            2,
            "with the authority's"
        );
        assert!(
            text.contains("BEGIN PRIVATE KEY") && text.contains(name),
            "{text}"
        );
        assert!(!open("pass:wrong").status.success());
    }
}

#[test]
fn no_key_is_overwritten_and_renewal_keeps_it() {
    let certs = Certs::new();
    let read = |name: &str| fs::read_to_string(certs.path(name)).unwrap();
    let (key, certificate, authority) = (read("server.key"), read("server.pem"), read("ca.key"));
    assert!(certs.refused(&["ca"]).contains("an authority is made once"));
    assert!(certs.refused(&["server"]).contains("--renew"));
    assert_eq!(
        (read("server.key"), read("ca.key")),
        (key.clone(), authority)
    );
    assert_eq!(read("server.pem"), certificate);

    let said = certs.make(&["server", "--renew"]);
    assert!(said.contains("for localhost, 127.0.0.1, ::1"), "{said}");
    assert!(read("server.key") == key && read("server.pem") != certificate);
    certs.make(&["client", "ann"]);
    assert!(
        certs
            .refused(&["client", "ann"])
            .contains("ann.key is there")
    );
    certs.make(&["client", "ann", "--renew"]);
}

#[test]
fn what_cannot_be_is_said() {
    let certs = Certs(tempfile::tempdir().unwrap());
    assert!(
        certs
            .refused(&["server"])
            .contains("make an authority first")
    );
    certs.make(&["ca"]);
    assert!(
        certs
            .refused(&["server", "https://a"])
            .contains("without https://")
    );
    assert!(
        certs
            .refused(&["client", "../ann"])
            .contains("name of files")
    );
    assert!(certs.refused(&["client", "ca"]).contains("is taken"));
    assert!(certs.refused(&["revoke", "ann"]).contains("ann.pem"));
    fs::write(certs.path("ca.pem"), "nothing").unwrap();
    assert!(
        certs
            .refused(&["server"])
            .contains("there is no certificate in it")
    );
}

#[test]
fn the_server_speaks_tls_with_them() {
    let certs = Certs::new();
    let server = certs.start(&[]);
    assert!(
        server.greeting.contains("Chat:  https://"),
        "{}",
        server.greeting
    );
    let page = certs.curl(&server, None).unwrap();
    assert!(page.contains("<html"), "{page}");
    assert!(server.command(&["status"]).status.success());
}

#[test]
fn clients_come_in_by_certificate_until_it_is_revoked() {
    let certs = Certs::new();
    certs.make(&["client", "ann"]);
    certs.make(&["client", "bob"]);
    certs.make(&["client", "eve"]);
    let said = certs.make(&["revoke", "eve"]);
    assert!(said.contains("--tls-client-crl"), "{said}");
    let (ca, list) = (certs.text("ca.pem"), certs.text("revoked.pem"));
    let server = certs.start(&["--tls-client-ca", &ca, "--tls-client-crl", &list]);
    assert_eq!(certs.curl(&server, None), None);
    assert_eq!(certs.curl(&server, Some("eve")), None);
    assert!(certs.curl(&server, Some("ann")).is_some());
    assert!(certs.curl(&server, Some("bob")).is_some());

    certs.make(&["revoke", "bob"]);
    assert!(
        certs
            .make(&["revoke", "bob"])
            .contains("was revoked before")
    );
    server.reload();
    assert_eq!(certs.curl(&server, Some("bob")), None);
    assert_eq!(
        certs.curl(&server, Some("eve")),
        None,
        "those of before stay on the list"
    );
    assert!(certs.curl(&server, Some("ann")).is_some());
}

#[test]
fn a_renewed_certificate_is_taken_up_by_reload() {
    let certs = Certs::new();
    let server = certs.start(&[]);
    let serial = || {
        let connect = ["s_client", "-connect", &server.address, "-showcerts"];
        let shown = openssl(&connect).stdout;
        let file = certs.path("shown.pem");
        fs::write(&file, shown).unwrap();
        openssl(&["x509", "-noout", "-serial", "-in", file.to_str().unwrap()]).stdout
    };
    let before = serial();
    certs.make(&["server", "--renew"]);
    server.reload();
    wait_until("the new certificate", || serial() != before);

    fs::write(certs.path("server.pem"), "nothing").unwrap();
    let output = server.command(&["reload"]);
    let error = String::from_utf8(output.stderr).unwrap();
    assert!(
        error.contains("the certificates stay as they are"),
        "{error}"
    );
    assert!(
        error.contains("server.pem: there is no certificate in it"),
        "{error}"
    );
    assert!(certs.curl(&server, None).is_some());
}

#[test]
fn revocation_takes_every_certificate_of_a_name() {
    let certs = Certs::new();
    let keep = |name: &str, to: &str| {
        for end in ["pem", "key"] {
            fs::copy(
                certs.path(&format!("{name}.{end}")),
                certs.path(&format!("{to}.{end}")),
            )
            .unwrap();
        }
    };
    certs.make(&["client", "ann"]);
    keep("ann", "first");
    certs.make(&["client", "ann", "--renew"]);
    keep("ann", "second");
    certs.make(&["client", "ann", "--renew"]);
    certs.make(&["client", "anna"]);
    let said = certs.make(&["revoke", "ann"]);
    assert!(said.contains("revoked 3 certificates"), "{said}");
    // One that was made before there was a record of them.
    certs.make(&["client", "old"]);
    fs::remove_file(certs.path("issued.txt")).unwrap();
    keep("old", "old-1");
    certs.make(&["client", "old", "--renew"]);
    certs.make(&["revoke", "old"]);
    let (ca, list) = (certs.text("ca.pem"), certs.text("revoked.pem"));
    let server = certs.start(&["--tls-client-ca", &ca, "--tls-client-crl", &list]);
    for name in ["first", "second", "ann", "old-1", "old"] {
        assert_eq!(certs.curl(&server, Some(name)), None, "{name}");
    }
    assert!(certs.curl(&server, Some("anna")).is_some());
}

#[test]
fn one_certificate_is_revoked_by_its_serial_number() {
    let certs = Certs::new();
    certs.make(&["client", "ann"]);
    certs.make(&["client", "bob"]);
    let serial = |name: &str| {
        let shown = openssl(&["x509", "-noout", "-serial", "-in", &certs.text(name)]).stdout;
        let shown = String::from_utf8(shown).unwrap();
        shown.trim().strip_prefix("serial=").unwrap().to_owned()
    };
    let first = serial("ann.pem");
    certs.make(&["client", "ann", "--renew"]);
    let refused = certs.refused(&["revoke", "ann", "--serial", &serial("bob.pem")]);
    assert!(refused.contains(&first.to_lowercase()), "{refused}");
    let said = certs.make(&["revoke", "ann", "--serial", &first]);
    assert!(said.contains("revoked 1 certificate of ann"), "{said}");
    let list = openssl(&["crl", "-noout", "-text", "-in", &certs.text("revoked.pem")]).stdout;
    let list = String::from_utf8(list).unwrap();
    assert!(
        list.contains(&first) && !list.contains(&serial("ann.pem")),
        "{list}"
    );
}

#[test]
fn what_is_done_at_once_is_all_kept() {
    let certs = Certs::new();
    let names: Vec<String> = (0..12).map(|n| format!("client-{n}")).collect();
    std::thread::scope(|scope| {
        for name in &names {
            scope.spawn(|| certs.make(&["client", name]));
        }
    });
    std::thread::scope(|scope| {
        for name in &names {
            scope.spawn(|| certs.make(&["revoke", name]));
        }
    });
    let list = openssl(&["crl", "-noout", "-text", "-in", &certs.text("revoked.pem")]).stdout;
    let list = String::from_utf8(list).unwrap();
    assert_eq!(
        list.matches("Serial Number: ").count(),
        names.len(),
        "{list}"
    );
    let issued = fs::read_to_string(certs.path("issued.txt")).unwrap();
    assert_eq!(issued.lines().count(), names.len() + 1, "{issued}");
    let rest = fs::read_dir(certs.0.path())
        .unwrap()
        .map(|file| file.unwrap().file_name());
    let rest: Vec<_> = rest
        .filter(|name| name.to_string_lossy().ends_with(".new"))
        .collect();
    assert!(rest.is_empty(), "{rest:?}");
}

#[test]
fn a_key_that_cannot_be_written_leaves_nothing() {
    let certs = Certs::new();
    // As on a full disk: files may be made, but nothing can stand in them.
    let output = Command::new("sh")
        .args(["-c", "trap '' XFSZ; ulimit -f 0; exec \"$@\"", "sh"])
        .args([
            env!("CARGO_BIN_EXE_gannet"),
            "cert",
            "client",
            "ann",
            "--dir",
        ])
        .arg(certs.0.path())
        .output()
        .unwrap();
    let error = String::from_utf8(output.stderr).unwrap();
    assert!(
        error.contains("cannot write") && error.contains("ann.key"),
        "{error}"
    );
    let left = fs::read_dir(certs.0.path()).unwrap();
    let left = left.map(|file| file.unwrap().file_name().into_string().unwrap());
    let left: Vec<_> = left.filter(|name| name.contains("ann")).collect();
    assert!(left.is_empty(), "{left:?}");
    certs.make(&["client", "ann"]);
}
