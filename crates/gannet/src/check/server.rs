//! What belongs to the server: its user, files and addresses.
//!
//! If it is to run as another user, this process acts as that one meanwhile, and what a start does
//! as root is tried as root: see [`Rights`].

use std::{fs, io, path::Path};

use rustix::fs::{Access, AtFlags, CWD, accessat};

use super::Findings;
use crate::{
    Error, LogRotation, Settings,
    account::{By, Rights},
    control::Client,
    manager,
    settings::{self, Endpoint},
    tls::Material,
};

pub(super) fn look(findings: &mut Findings, settings: &mut Settings, addresses: &[Endpoint]) {
    let pid_file = settings::pid_file(settings);
    // Asked as who started this: a server of root's does not speak to the user.
    let running = pid_file.as_ref().ok().and_then(|path| pid_of(path));
    let Some(rights) = user(findings, settings) else {
        return;
    };
    if let Err(error) = settings::make_absolute(settings) {
        findings.refused("settings", &error);
    }
    working_directory(findings, settings);
    certificates(findings, settings, &rights);
    match (&pid_file, running) {
        (Err(error), _) => findings.refused("pid file", error),
        (Ok(path), Some(pid)) => findings.ok(
            "pid file",
            format!("{}: the server runs, with pid {pid}", path.display()),
        ),
        (Ok(path), None) => place_of_pid_file(findings, path, &rights),
    }
    log_file(findings, settings, &rights);
    match running {
        Some(_) => findings.ok("addresses", "not tried out: the running server has them"),
        None => match manager::try_to_listen(settings, addresses, &rights) {
            Ok(()) => findings.ok("addresses", "free"),
            Err(error) => findings.refused("addresses", &error),
        },
    }
}

/// From now on, as long as this is kept, the process acts as the server's user.
fn user(findings: &mut Findings, settings: &Settings) -> Option<Rights> {
    let stepped_down = Rights::wanted(settings).and_then(|mut rights| {
        let program = manager::Program::current(None)?;
        rights.step_down(&program.path)?;
        Ok(rights)
    });
    match stepped_down {
        Ok(rights) => {
            let name = rights.user().map_or_else(
                || {
                    let uid = rustix::process::geteuid().as_raw();
                    format!("as who starts it (uid {uid})")
                },
                |user| format!("as {user}"),
            );
            findings.ok("user", format!("the server runs {name}"));
            Some(rights)
        }
        Err(error) => {
            findings.refused("user", &error);
            None
        }
    }
}

fn working_directory(findings: &mut Findings, settings: &Settings) {
    let Some(directory) = &settings.working_directory else {
        return;
    };
    let shown = directory.display();
    let usable = fs::metadata(directory).and_then(|metadata| match metadata.is_dir() {
        true => access(directory, Access::EXEC_OK),
        false => Err(io::ErrorKind::NotADirectory.into()),
    });
    match usable {
        Ok(()) => findings.ok("directory", format!("works in {shown}")),
        Err(error) => findings.error(
            "directory",
            format!("`working_directory` = \"{shown}\": {error}"),
            "make it, where the server's user may go",
        ),
    }
}

fn certificates(findings: &mut Findings, settings: &Settings, rights: &Rights) {
    let with_tls = settings
        .listeners
        .iter()
        .filter(|listener| listener.tls.is_some());
    let count = with_tls.count();
    match rights.or_as_root(|| Material::read(settings)) {
        _ if count == 0 => {}
        Ok((_, By::User)) => {
            findings.ok("certificates", format!("good, for {count} listeners"));
        }
        Ok((_, By::Root)) => findings.warn(
            "certificates",
            "good, but only root can read them: a reload will not see new ones",
            "let the server's user read them",
        ),
        Err(error) => findings.refused("certificates", &error),
    }
}

/// The process id of the server with this pid file.
fn pid_of(path: &Path) -> Option<u32> {
    let status = Client::connect(path).and_then(|mut client| client.status());
    Some(status.ok()?.manager_pid)
}

fn place_of_pid_file(findings: &mut Findings, path: &Path, rights: &Rights) {
    let (shown, directory) = (path.display(), directory_of(path));
    // The control socket is made beside it.
    let place = rights.or_as_root(|| {
        if path.symlink_metadata().is_ok() {
            access(path, Access::READ_OK | Access::WRITE_OK)?;
        }
        Ok(access(directory, Access::WRITE_OK | Access::EXEC_OK)?)
    });
    match place {
        Ok(_) => findings.ok("pid file", format!("{shown}: no server runs")),
        Err(error) => findings.error(
            "pid file",
            format!("{shown} cannot be made: {error}"),
            format!(
                "make the directory {} for the user who starts the server, or choose another place \
                 with --pid-file",
                directory.display()
            ),
        ),
    }
}

fn log_file(findings: &mut Findings, settings: &Settings, rights: &Rights) {
    let Some(path) = &settings.log_file else {
        findings.ok("log", "to standard error");
        return;
    };
    let shown = path.display();
    match may_log(settings, path, rights) {
        Ok(()) => findings.ok("log", format!("to {shown}")),
        Err((place, error)) => findings.error(
            "log",
            format!("{shown} cannot be written: {error}"),
            match error.downcast_ref().map(io::Error::kind) {
                Some(io::ErrorKind::NotFound) => format!("make the directory {}", place.display()),
                _ => format!("let the server's user write {}", place.display()),
            },
        ),
    }
}

/// Whether the log could be opened, again after a HUP, and rotated if it is to; else where the fault
/// lies.
fn may_log<'a>(
    settings: &Settings,
    path: &'a Path,
    rights: &Rights,
) -> std::result::Result<(), (&'a Path, Error)> {
    let directory = directory_of(path);
    let in_directory = || {
        let may_make = Access::WRITE_OK | Access::EXEC_OK;
        access(directory, may_make).map_err(Error::from)
    };
    let rotates = settings.log_rotate_size > 0 || settings.log_rotate_every != LogRotation::Never;
    let is_file = match fs::metadata(path) {
        Ok(metadata) => {
            access(path, Access::WRITE_OK).map_err(|error| (path, error.into()))?;
            metadata.is_file()
        }
        Err(error) if error.kind() == io::ErrorKind::NotFound => {
            // Root makes it for the user, who has to find it again.
            let made = rights.or_as_root(in_directory).map(drop);
            let made = made.and_then(|()| Ok(access(directory, Access::EXEC_OK)?));
            made.map_err(|error| (directory, error))?;
            true
        }
        Err(error) => return Err((directory, error.into())),
    };
    match is_file && rotates {
        true => in_directory().map_err(|error| (directory, error)),
        false => Ok(()),
    }
}

fn directory_of(path: &Path) -> &Path {
    match path.parent() {
        Some(parent) if !parent.as_os_str().is_empty() => parent,
        _ => Path::new("."),
    }
}

/// Whether this process, as the user that it acts as, may do that.
fn access(path: &Path, what: Access) -> io::Result<()> {
    Ok(accessat(CWD, path, what, AtFlags::EACCESS)?)
}
