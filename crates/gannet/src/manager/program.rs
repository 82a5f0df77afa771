//! The program that children run, and its title in `ps`.

use std::{
    convert::Infallible,
    ffi::{OsStr, OsString},
    io,
    os::unix::{ffi::OsStrExt, process::CommandExt},
    path::{Path, PathBuf},
    process::Command,
};

/// Set for the manager's second life: its process id, a colon, the path of the program.
pub(crate) const ENV: &str = "GANNET_MANAGER";

/// How to start this program again.
#[derive(Clone, Debug)]
pub(crate) struct Program {
    /// The path by which it was started: what stands there when a child is started is what it
    /// runs. A symbolic link is kept, so that a release can be switched by it.
    pub(crate) path: PathBuf,
    /// The arguments behind its name.
    pub(crate) arguments: Vec<OsString>,
    /// Shown behind the role in `ps`.
    pub(crate) name: Option<String>,
    titled: bool,
}

impl Program {
    /// The running program. Call it before anything could have replaced the file.
    pub(crate) fn current(name: Option<String>) -> io::Result<Self> {
        let arguments = std::env::args_os().skip(1).collect();
        if let Some(path) = path_from(std::env::var_os(ENV).as_deref()) {
            return Ok(Program {
                path,
                arguments,
                name,
                titled: true,
            });
        }
        let running = std::env::current_exe()?;
        let started_as = std::env::args_os().next().unwrap_or_default();
        let search = std::env::var_os("PATH").unwrap_or_default();
        let path = started_by(&started_as, &search, &running).unwrap_or(running);
        Ok(Program {
            path,
            arguments,
            name,
            titled: false,
        })
    }

    /// `gannet: worker 3 (echo)`.
    pub(crate) fn title(&self, role: &str) -> String {
        match &self.name {
            Some(name) => format!("gannet: {role} ({name})"),
            None => format!("gannet: {role}"),
        }
    }

    /// Gives this process its title. The only sound way is to execute the program once more, as the
    /// same process: `main` begins again, and this function then returns at once.
    pub(crate) fn take_title(&self, role: &str) {
        // Both are for the eyes only: a failure is no reason not to serve.
        let _ = rustix::thread::set_name(c"gannet: manager");
        if !self.titled {
            let error = self.execute_again(role);
            tracing::debug!("the manager keeps its title in ps: {}", error.unwrap_err());
        }
    }

    fn execute_again(&self, role: &str) -> io::Result<Infallible> {
        let mut marker = OsString::from(format!("{}:", std::process::id()));
        marker.push(&self.path);
        let mut command = Command::new("/proc/self/exe");
        command
            .arg0(self.title(role))
            .args(&self.arguments)
            .env(ENV, marker);
        Err(command.exec())
    }
}

/// The path in the marker, if that was set by this process.
fn path_from(marker: Option<&OsStr>) -> Option<PathBuf> {
    let own = format!("{}:", std::process::id());
    let path = marker?.as_bytes().strip_prefix(own.as_bytes())?;
    Some(PathBuf::from(OsStr::from_bytes(path)))
}

/// The path that `argv[0]` stands for, if it does stand for the running program.
fn started_by(started_as: &OsStr, search: &OsStr, running: &Path) -> Option<PathBuf> {
    let leads_to_it = |path: &PathBuf| path.canonicalize().is_ok_and(|path| path == running);
    if started_as.as_bytes().contains(&b'/') {
        return std::path::absolute(started_as).ok().filter(leads_to_it);
    }
    std::env::split_paths(search)
        .filter_map(|directory| std::path::absolute(directory.join(started_as)).ok())
        .find(leads_to_it)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_link_to_the_program_is_kept_and_a_strange_name_is_not() {
        let directory = std::env::temp_dir().join(format!("gannet-program-{}", std::process::id()));
        std::fs::create_dir_all(directory.join("v1")).unwrap();
        let directory = directory.canonicalize().unwrap();
        let running = directory.join("v1/echo");
        std::fs::write(&running, "").unwrap();
        let link = directory.join("current");
        std::os::unix::fs::symlink("v1", &link).unwrap();

        let through_link = link.join("echo");
        let started = |name: &OsStr, search: &OsStr| started_by(name, search, &running);
        assert_eq!(
            started(through_link.as_os_str(), OsStr::new("")),
            Some(through_link.clone())
        );
        assert_eq!(
            started(OsStr::new("echo"), link.as_os_str()),
            Some(through_link)
        );
        assert_eq!(started(OsStr::new("-title"), link.as_os_str()), None);
        assert_eq!(started(OsStr::new("/bin/sh"), OsStr::new("")), None);
        std::fs::remove_dir_all(directory).unwrap();
    }

    #[test]
    fn only_the_process_that_set_the_marker_follows_it() {
        let marker = format!("{}:/srv/echo", std::process::id());
        assert_eq!(
            path_from(Some(OsStr::new(&marker))),
            Some("/srv/echo".into())
        );
        assert_eq!(path_from(Some(OsStr::new("1:/srv/echo"))), None);
        assert_eq!(path_from(None), None);
    }
}
