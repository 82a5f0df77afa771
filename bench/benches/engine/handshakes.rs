//! TLS handshakes, one after another: what each costs the server.

use std::{
    io::{Read, Write},
    net::{SocketAddr, TcpStream},
    time::{Duration, Instant},
};

use anyhow::{Result, bail};
use gannet_tests::{
    server::Server,
    tls::{Authority, Client},
};

use crate::Used;

/// Connects again and again, sends one message, and leaves: over plain TCP first, so that what a
/// handshake costs can be told from what a connection does.
pub(crate) fn measure(
    plain: &Server,
    secure: &Server,
    authority: &Authority,
    length: Duration,
) -> Result<()> {
    let bare = round("a connection without TLS", plain, length, |address| {
        let mut stream = TcpStream::connect(address)?;
        stream.set_nodelay(true)?;
        echo(&mut stream)
    })?;
    let client = Client::new(authority);
    let forgetful = client.clone().forgetful();
    let full = round("full handshake", secure, length, |address| {
        let mut stream = forgetful.try_connect(address)?;
        if stream.is_resumed() {
            bail!("a session was resumed");
        }
        echo(&mut stream.stream())
    })?;
    // The first one brings the ticket that the second one uses.
    echo(&mut client.try_connect(secure.address(0))?.stream())?;
    let resumed = round("resumed handshake", secure, length, |address| {
        let mut stream = client.try_connect(address)?;
        if !stream.is_resumed() {
            bail!("a session was not resumed");
        }
        echo(&mut stream.stream())
    })?;
    println!(
        "  the handshake alone: {:.0} µs full, {:.0} µs resumed",
        full - bare,
        resumed - bare
    );
    Ok(())
}

/// Microseconds of the server's processors for each connection.
fn round(
    what: &str,
    server: &Server,
    length: Duration,
    once: impl Fn(SocketAddr) -> Result<()>,
) -> Result<f64> {
    let address = server.address(0);
    for _ in 0..WARM {
        once(address)?;
    }
    let (before, begin, mut count) = (Used::of(server), Instant::now(), 0);
    while begin.elapsed() < length {
        once(address)?;
        count += 1;
    }
    let (took, after) = (begin.elapsed(), Used::of(server));
    let used = after.cpu_since(&before).as_secs_f64() * 1e6 / f64::from(count);
    println!(
        "{what}: {:.0} a second, one at a time; {used:.0} µs of the server's processors each, of a \
         core {:.0} a second",
        f64::from(count) / took.as_secs_f64(),
        1e6 / used
    );
    Ok(used)
}

/// One message there and back; a ticket comes before it.
fn echo(stream: &mut (impl Read + Write)) -> Result<()> {
    let mut answer = [0; 5];
    stream.write_all(b"hello")?;
    stream.flush()?;
    stream.read_exact(&mut answer)?;
    match &answer == b"hello" {
        true => Ok(()),
        false => bail!("other bytes came back"),
    }
}

/// Connections before it is measured.
const WARM: usize = 20;
