//! Two clients of the `greet` example: one blocks, one watches its socket and the keyboard at once.
//!
//!     cargo run --release --example greet                    (in another terminal)
//!     cargo run --release --example greet_client             blocking, with a time-out of 1 s
//!     cargo run --release --example greet_client -- events   event-driven
//!
//! `GREET=host:port` is where the server is, if not at 127.0.0.1:9502.

use std::{
    io::{self, BufRead, Read, Write},
    net::{SocketAddr, TcpStream},
    time::Duration,
};

use rustix::event::{PollFd, PollFlags, poll};

fn main() -> io::Result<()> {
    let address = std::env::var("GREET").unwrap_or_else(|_| "127.0.0.1:9502".to_owned());
    let address: SocketAddr = address.parse().map_err(io::Error::other)?;
    let stream = TcpStream::connect_timeout(&address, Duration::from_secs(1))?;
    match std::env::args().nth(1).as_deref() {
        Some("events") => events(stream),
        _ => blocking(stream),
    }
}

/// Reads the greeting, sends one line, reads the answer.
fn blocking(mut stream: TcpStream) -> io::Result<()> {
    stream.set_read_timeout(Some(Duration::from_secs(1)))?;
    let mut reader = io::BufReader::new(stream.try_clone()?);
    let mut line = String::new();
    reader.read_line(&mut line)?;
    print!("{line}Your line: ");
    io::stdout().flush()?;

    line.clear();
    io::stdin().lock().read_line(&mut line)?;
    stream.write_all(line.as_bytes())?;
    line.clear();
    reader.read_line(&mut line)?;
    print!("{line}");
    Ok(())
}

/// Shows what comes from the server and sends what comes from the keyboard, whichever is first.
fn events(mut stream: TcpStream) -> io::Result<()> {
    // Not through `io::stdin`: its buffer may hold a line when `poll` sees nothing more to read.
    let keyboard = std::fs::File::open("/dev/stdin")?;
    let mut buffer = [0; 4096];
    loop {
        let mut ready = [
            PollFd::new(&stream, PollFlags::IN),
            PollFd::new(&keyboard, PollFlags::IN),
        ];
        poll(&mut ready, None)?;
        let [from_server, from_keyboard] = ready.map(|fd| !fd.revents().is_empty());
        if from_server {
            match stream.read(&mut buffer)? {
                0 => {
                    println!("the server has closed");
                    return Ok(());
                }
                count => io::stdout().write_all(&buffer[..count])?,
            }
        }
        if from_keyboard {
            match (&keyboard).read(&mut buffer)? {
                0 => return Ok(()),
                count => stream.write_all(&buffer[..count])?,
            }
        }
    }
}
