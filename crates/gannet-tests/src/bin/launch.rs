//! Starts a program with sockets passed to it, as a service manager does: `LAUNCH` has a
//! `NAME=ADDRESS` for each, the arguments are the program and its own. A name with a `!` in front is
//! that of a descriptor that is no listening socket.

use std::{
    env,
    net::{TcpListener, UdpSocket},
    os::{
        fd::OwnedFd,
        unix::{net::UnixListener, process::CommandExt},
    },
    process::Command,
};

use gannet_tests::server::LAUNCH;
use rustix::io::{FdFlags, fcntl_setfd};

fn main() -> std::io::Result<()> {
    let wanted = env::var(LAUNCH).unwrap_or_default();
    let mut names = Vec::new();
    let mut passed = Vec::new();
    for socket in wanted.split_whitespace() {
        let (name, address) = socket.split_once('=').unwrap_or(("", socket));
        let fd: OwnedFd = match address.strip_prefix("unix:") {
            _ if name.starts_with('!') => std::fs::File::open("/dev/null")?.into(),
            Some(path) => UnixListener::bind(path)?.into(),
            None if address.starts_with("udp:") => UdpSocket::bind(&address[4..])?.into(),
            None => TcpListener::bind(address)?.into(),
        };
        // Nothing else was opened, so they have the numbers from 3.
        fcntl_setfd(&fd, FdFlags::empty())?;
        names.push(name);
        passed.push(fd);
    }
    let mut arguments = env::args_os().skip(1);
    Err(Command::new(arguments.next().unwrap_or_default())
        .args(arguments)
        .env("LISTEN_PID", std::process::id().to_string())
        .env("LISTEN_FDS", passed.len().to_string())
        .env("LISTEN_FDNAMES", names.join(":"))
        .exec())
}
