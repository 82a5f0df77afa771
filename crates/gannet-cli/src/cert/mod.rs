//! `gannet cert`: an authority, certificates of servers and of clients, and their revocation.
//!
//! All lies in one directory: `ca.pem` and `ca.key`, then `NAME.pem` and `NAME.key` for each
//! certificate, `NAME.p12` for a client's browser, `issued.txt` and `revoked.pem`. A private key is never
//! overwritten, and only its owner can read it. What is made is printed, and what comes next.
//!
//! `files` writes, `make` says what stands in a certificate, `issued` knows which were made, `revoked`
//! keeps the list.

mod files;
mod issued;
mod make;
mod revoked;

use std::{net::IpAddr, path::PathBuf};

use clap::{Args, Subcommand};
use gannet::{Error, Result};

use self::{
    files::Directory,
    make::{Kind, Names},
};

/// Make certificates for TLS: an authority, servers, clients
#[derive(Args, Debug)]
#[command(after_help = EXAMPLES)]
pub(crate) struct Cert {
    #[command(subcommand)]
    what: What,

    /// Directory of the certificates; made if it is not there
    #[arg(long, global = true, value_name = "DIR", default_value = "certs")]
    dir: PathBuf,
}

#[derive(Debug, Subcommand)]
enum What {
    /// Make an authority, which signs all others: ca.pem, and its key ca.key
    Ca {
        /// Its name, as browsers show it
        #[arg(long, default_value = "Gannet CA")]
        name: String,

        /// How long it is good, in days
        #[arg(long, default_value_t = 3650, value_parser = days())]
        days: i64,
    },
    /// Make a server's certificate, signed by the authority: server.pem and server.key
    Server {
        /// DNS names (also *.example.org) and IP addresses of the server
        /// [default: localhost 127.0.0.1 ::1]
        #[arg(value_name = "NAME")]
        names: Vec<String>,

        /// Name of the files
        #[arg(long, value_name = "NAME", default_value = "server")]
        file: String,

        /// How long it is good, in days
        #[arg(long, default_value_t = 397, value_parser = days())]
        days: i64,

        /// Make a new certificate for the key that is there; without names for those of the old one
        #[arg(long)]
        renew: bool,
    },
    /// Make a client's certificate: NAME.pem and NAME.key for programs, NAME.p12 for browsers
    Client {
        /// Whose it is: the common name in it, and the name of the files
        name: String,

        /// An e-mail address to stand in it
        #[arg(long, value_name = "ADDRESS")]
        email: Option<String>,

        /// How long it is good, in days
        #[arg(long, default_value_t = 397, value_parser = days())]
        days: i64,

        /// File with the password of NAME.p12 in its first line [default: one is made and printed]
        #[arg(long, value_name = "FILE")]
        password_file: Option<PathBuf>,

        /// Encrypt NAME.p12 the old way (3DES, SHA-1), for systems that cannot read it otherwise
        #[arg(long)]
        old_p12: bool,

        /// Make a new certificate for the key that is there
        #[arg(long)]
        renew: bool,
    },
    /// Put all certificates made for a name on the list of revoked ones, revoked.pem
    Revoke {
        /// The name of their files: server, or a client's name
        name: String,

        /// Only the one with this serial number, as `openssl x509 -serial` prints it
        #[arg(long, value_name = "HEX")]
        serial: Option<String>,
    },
}

/// Does what the command line says.
pub(crate) fn run(cert: &Cert) -> Result {
    let directory = Directory::new(&cert.dir);
    let out = match &cert.what {
        What::Ca { name, days } => authority(&directory, name, *days)?,
        What::Server {
            names,
            file,
            days,
            renew,
        } => server(&directory, names, file, *days, *renew)?,
        What::Client {
            name,
            email,
            days,
            password_file,
            old_p12,
            renew,
        } => {
            let kind = Kind::Client {
                name: name.clone(),
                email: email.clone(),
            };
            let password = match password_file {
                Some(path) => Some(files::first_line(path)?),
                None => None,
            };
            client(&directory, name, &kind, *days, password, *old_p12, *renew)?
        }
        What::Revoke { name, serial } => revoke(&directory, name, serial.as_deref())?,
    };
    gannet::cli::print(out.trim_end())
}

fn authority(directory: &Directory, name: &str, days: i64) -> Result<String> {
    directory.make()?;
    let _lock = directory.lock()?;
    if directory.path("ca.pem").exists() {
        return Err(directory.taken("ca.pem"));
    }
    let key = make::key()?;
    directory.write_key("ca.key", &key.serialize_pem())?;
    let certificate = make::authority(name, days, &key)?;
    directory.write("ca.pem", &certificate)?;
    Ok(format!(
        "made {}  the authority's private key: whoever has it can make certificates; keep it off \
         the server\n\
         made {}  its certificate: for curl --cacert, for browsers, for servers that ask clients \
         for theirs\n\n\
         Next, the server's:\n  gannet cert server --dir {} localhost 127.0.0.1",
        directory.show("ca.key"),
        directory.show("ca.pem"),
        directory.display()
    ))
}

fn server(
    directory: &Directory,
    names: &[String],
    file: &str,
    days: i64,
    renew: bool,
) -> Result<String> {
    files::check_name(file)?;
    let (certificate, key) = (format!("{file}.pem"), format!("{file}.key"));
    let names = match names {
        [] if renew => make::names_of(&directory.read(&certificate)?)
            .map_err(|what| directory.bad(&certificate, &what))?,
        [] => Names::parse(["localhost", "127.0.0.1", "::1"])?,
        names => Names::parse(names.iter().map(String::as_str))?,
    };
    let url = match names.first() {
        Some(name) => match name.parse::<IpAddr>() {
            Ok(IpAddr::V6(ip)) => format!("[{ip}]"),
            _ => name.replace('*', "www"),
        },
        None => return Err(directory.bad(&certificate, "there is no name in it: give some")),
    };
    let shown = names.to_string();
    let issuer = directory.issuer()?;
    let lock = directory.lock()?;
    let pair = directory.key(&key, renew)?;
    let made = make::signed(&Kind::Server(names), days, &pair.key, &issuer)?;
    issued::record(directory, &lock, file, &made.pem())?;
    directory.write(&certificate, &made.pem())?;
    Ok(format!(
        "{} {}  its private key\n\
         made {}  its certificate, for {shown}, good for {days} days\n\n\
         Serve with it (a running server takes it up by `reload`):\n  \
         gannet --listen 0.0.0.0:9500 --tls-cert {2} --tls-key {1}\n\
         Try it:\n  \
         curl --cacert {} https://{url}:9500/",
        pair.verb(),
        directory.show(&key),
        directory.show(&certificate),
        directory.show("ca.pem"),
    ))
}

fn client(
    directory: &Directory,
    name: &str,
    kind: &Kind,
    days: i64,
    password: Option<String>,
    old_p12: bool,
    renew: bool,
) -> Result<String> {
    files::check_name(name)?;
    let [certificate, key, p12] = ["pem", "key", "p12"].map(|end| format!("{name}.{end}"));
    let issuer = directory.issuer()?;
    let lock = directory.lock()?;
    let pair = directory.key(&key, renew)?;
    let made = make::signed(kind, days, &pair.key, &issuer)?;
    issued::record(directory, &lock, name, &made.pem())?;
    directory.write(&certificate, &made.pem())?;
    let authority = directory.read("ca.pem")?;
    let chosen = match &password {
        Some(password) => password.clone(),
        None => make::password()?,
    };
    let bundle = make::p12(name, &made, &pair.key, &authority, &chosen, old_p12)
        .map_err(|what| directory.bad(&p12, &what))?;
    directory.write_secret(&p12, &bundle)?;
    let says = match password {
        Some(_) => "its password is that of the file".to_owned(),
        None => format!("its password: {chosen}"),
    };
    Ok(format!(
        "{} {}  its private key\n\
         made {}  its certificate, good for {days} days\n\
         made {}  both, to be imported into a browser; {says}\n\n\
         Let in only clients of this authority:\n  \
         gannet --listen 0.0.0.0:9500 --tls-cert SERVER.pem --tls-key SERVER.key --tls-client-ca {}\n\
         Try it:\n  \
         curl --cacert {4} --cert {2} --key {1} https://localhost:9500/",
        pair.verb(),
        directory.show(&key),
        directory.show(&certificate),
        directory.show(&p12),
        directory.show("ca.pem"),
    ))
}

fn revoke(directory: &Directory, name: &str, serial: Option<&str>) -> Result<String> {
    files::check_name(name)?;
    let issuer = directory.issuer()?;
    let _lock = directory.lock()?;
    let mut serials = issued::all(directory, name)?;
    if serials.is_empty() {
        return Err(Error::usage(format!(
            "nothing was made for {name:?} in {}: there is no {}",
            directory.display(),
            directory.show(&format!("{name}.pem"))
        )));
    }
    if let Some(text) = serial {
        let wanted = make::parse_serial(text);
        let known = serials.iter().map(|it| make::hex(it.as_ref()));
        let known = known.collect::<Vec<_>>().join(", ");
        serials.retain(|serial| Some(serial) == wanted.as_ref());
        if serials.is_empty() {
            return Err(Error::usage(format!(
                "{text:?} is no serial number of a certificate of {name}; those are: {known}"
            )));
        }
    }
    let list = "revoked.pem";
    let before = match directory.path(list).exists() {
        true => revoked::read(&directory.read(list)?).map_err(|what| directory.bad(list, &what))?,
        false => revoked::List::default(),
    };
    let (list_text, new) = revoked::with(before, &serials, &issuer)?;
    directory.write(list, &list_text)?;
    let what = match (new, serials.len()) {
        (0, 1) => format!("was revoked before: 1 certificate of {name}"),
        (0, all) => format!("was revoked before: {all} certificates of {name}"),
        (1, _) => format!("revoked 1 certificate of {name}"),
        (new, _) => format!("revoked {new} certificates of {name}"),
    };
    Ok(format!(
        "{what}\n\
         made {}  the list of revoked certificates\n\n\
         Use it (a running server that has it takes up changes by `reload`):\n  \
         gannet ... --tls-client-ca {} --tls-client-crl {0}",
        directory.show(list),
        directory.show("ca.pem"),
    ))
}

fn days() -> clap::builder::RangedI64ValueParser<i64> {
    clap::value_parser!(i64).range(1..=36_500)
}

/// What no library says well enough for a command line.
fn failed(doing: &str, error: impl std::fmt::Display) -> Error {
    Error::new(format!("cannot {doing}: {error}"))
}

const EXAMPLES: &str = "Examples:
  gannet cert ca                                  an authority, in ./certs
  gannet cert server chat.example.org 192.0.2.7   a server's certificate
  gannet cert client ann                          a client's, also for her browser
  gannet cert server --renew                      the same names and key, new dates
  gannet cert revoke ann                          it is not let in any more";
