//! The commands for a running server.

use std::io::{self, Write};

use gannet::control::{Client, ClientTable};

use crate::arguments::Serve;

/// `gannet stop`.
pub(crate) fn stop(serve: &Serve) -> gannet::Result {
    connect(serve)?.stop()?;
    Ok(())
}

/// `gannet reload`.
pub(crate) fn reload(serve: &Serve) -> gannet::Result {
    let reloaded = connect(serve)?.reload(false)?;
    if let Some(error) = &reloaded.certificates {
        return Err(gannet::Error::new(format!(
            "the certificates stay as they are: {error} (workers: {})",
            reloaded.error.as_deref().unwrap_or("reloaded")
        )));
    }
    match reloaded.error {
        None => print(&format!("reloaded {} workers", reloaded.workers.len())),
        Some(error) => Err(gannet::Error::new(format!("reload aborted: {error}"))),
    }
}

/// `gannet status`.
pub(crate) fn status(serve: &Serve, json: bool) -> gannet::Result {
    let status = connect(serve)?.status()?;
    match json {
        true => print(&serde_json::to_string(&status)?),
        false => print(status.to_string().trim_end()),
    }
}

/// `gannet clients`.
pub(crate) fn clients(serve: &Serve, json: bool) -> gannet::Result {
    let clients = connect(serve)?.clients()?;
    match json {
        true => print(&serde_json::to_string(&clients)?),
        false => print(ClientTable(&clients).to_string().trim_end()),
    }
}

fn connect(serve: &Serve) -> gannet::Result<Client> {
    serve.server()?.control()
}

pub(crate) fn print(text: &str) -> gannet::Result {
    match writeln!(io::stdout(), "{text}") {
        Err(error) if error.kind() != io::ErrorKind::BrokenPipe => Err(error.into()),
        _ => Ok(()),
    }
}
