//! `gannet serve`.

use std::{
    io::{self, Write},
    net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr},
};

use gannet::cli::Start;
use gannet_hub::DataDir;

use crate::arguments::Serve;

/// Runs the server until it is stopped.
pub(crate) fn run(serve: &Serve, start: &Start) -> gannet::Result {
    let data = serve.data()?;
    let log = data.path().join("gannet.log");
    let is_daemon = start.daemon;
    let server = serve.server()?.on_ready(move |settings| {
        let addresses = settings
            .listeners
            .iter()
            .map(|listener| (listener.tls.is_some(), listener.address.as_str()));
        // With stdout closed nobody wants to know.
        let _ = greet(&mut io::stdout().lock(), addresses, &data);
    });
    let server = server.settings(|settings| {
        if is_daemon {
            settings.log_file.get_or_insert(log);
        }
    });
    gannet_hub::serve(serve.hub()?, start.apply(server))
}

/// Says where everything is, and at the first start how to use the key.
fn greet<'a>(
    out: &mut impl Write,
    addresses: impl Iterator<Item = (bool, &'a str)>,
    data: &DataDir,
) -> io::Result<()> {
    writeln!(out, "Gannet is ready.")?;
    let mut first = None;
    for (tls, address) in addresses {
        let url = url(tls, address);
        writeln!(out, "  Chat:  {url}")?;
        first.get_or_insert(url);
    }
    writeln!(out, "  Data:  {}", data.path().display())?;
    let file = data.key_file();
    match data.show_new_key()? {
        None => writeln!(out, "  Key:   in {}", file.display())?,
        Some(key) => {
            let key = key.reveal();
            let url = first.unwrap_or_default();
            writeln!(out, "  Key:   {key}  (kept in {})", file.display())?;
            writeln!(out)?;
            writeln!(out, "Push a message:")?;
            writeln!(out, "  curl {url}v1/messages \\")?;
            writeln!(
                out,
                "    -H 'Authorization: Bearer {key}' -H 'Content-Type: application/json' \\"
            )?;
            writeln!(
                out,
                "    -d '{{\"to\": \"channel:lobby\", \"data\": {{\"text\": \"Hello from curl\"}}}}'"
            )?;
        }
    }
    out.flush()
}

/// What to open in a browser on this machine.
fn url(tls: bool, address: &str) -> String {
    let scheme = if tls { "https" } else { "http" };
    match address.parse::<SocketAddr>() {
        Ok(mut address) => {
            match address.ip() {
                IpAddr::V4(ip) if ip.is_unspecified() => address.set_ip(Ipv4Addr::LOCALHOST.into()),
                IpAddr::V6(ip) if ip.is_unspecified() => address.set_ip(Ipv6Addr::LOCALHOST.into()),
                _ => {}
            }
            format!("{scheme}://{address}/")
        }
        Err(_) => format!("{scheme}://{address}/"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_url_can_be_opened() {
        assert_eq!(url(false, "127.0.0.1:9500"), "http://127.0.0.1:9500/");
        assert_eq!(url(false, "0.0.0.0:80"), "http://127.0.0.1:80/");
        assert_eq!(url(false, "[::]:80"), "http://[::1]:80/");
        assert_eq!(url(true, "[::]:443"), "https://[::1]:443/");
    }
}
