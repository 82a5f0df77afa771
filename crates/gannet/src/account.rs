//! The user that the server runs as: `user`, `group`, `no_new_privs`.
//!
//! A server that root starts for another user goes through three states:
//!
//! ```text
//!   root ──step_down──▶ the user, root in reserve ──give_up──▶ the user for good
//! ```
//!
//! In the middle one the process acts as the user: what it makes belongs to him, and what he may not
//! do fails now and not later. [`Rights::or_as_root`] takes what only root may do from the reserve:
//! low ports, a pid file in `/run`, certificates that only root reads. `give_up` comes before anything
//! is started and before a byte of a client is read; the way back is closed, and that is checked.
//!
//! Without `user` all of it does nothing.

use std::{ffi::CString, fs, os::unix::fs::lchown, path::Path};

use nix::unistd::{
    Gid, Group, Uid, User, getegid, geteuid, getgrouplist, getgroups, setegid, seteuid, setgroups,
    setresgid, setresuid,
};

use crate::{Error, Result, Settings};

/// What the process may do on its way down.
#[derive(Debug)]
pub(crate) struct Rights {
    /// `None`: as whoever started it.
    account: Option<Account>,
    state: State,
}

#[derive(Clone, Debug)]
struct Account {
    name: String,
    uid: Uid,
    gid: Gid,
    groups: Vec<Gid>,
    home: String,
}

#[derive(Debug)]
enum State {
    AsStarted,
    /// With what to go back to.
    SteppedDown(Gid, Vec<Gid>),
    GivenUp,
}

impl Rights {
    /// As the settings say. Changes nothing yet.
    pub(crate) fn wanted(settings: &Settings) -> Result<Self> {
        let account = match settings.user.is_empty() {
            true if settings.group.is_empty() => None,
            true => {
                return Err(Error::usage(format!(
                    "`group` = {:?} without `user`: name the user as well",
                    settings.group
                )));
            }
            false => Account::of(&settings.user, &settings.group)?.if_another()?,
        };
        Ok(Rights {
            account,
            state: State::AsStarted,
        })
    }

    /// From now on this process acts as the user.
    pub(crate) fn step_down(&mut self, program: &Path) -> Result {
        let Some(account) = &self.account else {
            return Ok(());
        };
        let groups = getgroups().map_err(failed("read the groups of this process"))?;
        let before = State::SteppedDown(getegid(), groups);
        account.act_as()?;
        self.state = before;
        // Workers are started from it as this user.
        let mode = rustix::fs::Access::EXEC_OK;
        let flags = rustix::fs::AtFlags::EACCESS;
        rustix::fs::accessat(rustix::fs::CWD, program, mode, flags).map_err(|error| {
            Error::usage(format!(
                "user {} cannot run the program {}: {error}: put it where that user may go and \
                 read, such as /usr/local/bin",
                account.name,
                program.display()
            ))
        })
    }

    /// Does it as the user; if that fails, as root. Also says which of them it was.
    pub(crate) fn or_as_root<T>(&self, mut attempt: impl FnMut() -> Result<T>) -> Result<(T, By)> {
        match attempt() {
            Err(_) if self.has_reserve() => {
                let done = self.as_root(attempt)??;
                Ok((done, By::Root))
            }
            done => Ok((done?, By::User)),
        }
    }

    /// Does it as root, if root started the server for another user; else as it is.
    pub(crate) fn as_root<T>(&self, action: impl FnOnce() -> T) -> Result<T> {
        let (Some(account), State::SteppedDown(gid, groups)) = (&self.account, &self.state) else {
            return Ok(action());
        };
        rise(*gid, groups)?;
        let done = action();
        account.act_as()?;
        Ok(done)
    }

    /// Gives the user a file that root has made for him. Links are not followed: somebody could have
    /// put one there meanwhile.
    pub(crate) fn give(&self, path: &Path, by: By) -> Result {
        let Some(account) = self.account.as_ref().filter(|_| by == By::Root) else {
            return Ok(());
        };
        let given =
            self.as_root(|| lchown(path, Some(account.uid.as_raw()), Some(account.gid.as_raw())))?;
        given.map_err(|error| {
            Error::new(format!(
                "cannot give {} to user {}: {error}",
                path.display(),
                account.name
            ))
        })
    }

    /// Becomes the user for good.
    pub(crate) fn give_up(&mut self, settings: &Settings) -> Result {
        if settings.no_new_privs {
            rustix::thread::set_no_new_privs(true)
                .map_err(|error| Error::new(format!("cannot set no_new_privs: {error}")))?;
        }
        let State::SteppedDown(gid, groups) = &self.state else {
            return Ok(());
        };
        if let Some(account) = &self.account {
            rise(*gid, groups)?;
            account.become_for_good()?;
        }
        self.state = State::GivenUp;
        Ok(())
    }

    /// The user's name, if it is another than who started the server.
    pub(crate) fn user(&self) -> Option<&str> {
        Some(&self.account.as_ref()?.name)
    }

    /// What children find in their environment.
    pub(crate) fn environment(&self) -> Vec<(&'static str, String)> {
        let Some(account) = &self.account else {
            return Vec::new();
        };
        vec![
            ("HOME", account.home.clone()),
            ("USER", account.name.clone()),
            ("LOGNAME", account.name.clone()),
        ]
    }

    fn has_reserve(&self) -> bool {
        matches!(self.state, State::SteppedDown(..))
    }
}

/// Who has done something.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum By {
    User,
    Root,
}

/// A start that fails leaves the process as it was.
impl Drop for Rights {
    fn drop(&mut self) {
        if let State::SteppedDown(gid, groups) = &self.state
            && let Err(error) = rise(*gid, groups)
        {
            tracing::error!("{error}");
        }
    }
}

impl Account {
    fn of(user: &str, group: &str) -> Result<Self> {
        let number = user.parse().ok().map(Uid::from_raw);
        let entry = match number {
            Some(uid) => User::from_uid(uid),
            None => User::from_name(user),
        };
        let entry = entry.map_err(failed("look up `user`"))?;
        let unknown = |what: &str, hint: &str| Err(Error::usage(format!("{what}: {hint}")));
        let gid = match (group, &entry) {
            ("", Some(entry)) => entry.gid,
            ("", None) if number.is_some() => {
                return unknown(
                    &format!("`user` = {user:?}: no user has this number"),
                    "name the group as well (`group`), or another user",
                );
            }
            ("", None) => Gid::from_raw(0),
            _ => match group.parse() {
                Ok(gid) => Gid::from_raw(gid),
                Err(_) => match Group::from_name(group).map_err(failed("look up `group`"))? {
                    Some(group) => group.gid,
                    None => {
                        return unknown(
                            &format!("`group` = {group:?}: there is no such group"),
                            "`getent group` lists those that there are",
                        );
                    }
                },
            },
        };
        match (entry, number) {
            (Some(entry), _) => {
                let name = CString::new(entry.name.as_str())?;
                let groups = getgrouplist(&name, gid).map_err(failed("look up the groups"))?;
                Ok(Account {
                    uid: entry.uid,
                    gid,
                    groups,
                    home: entry.dir.display().to_string(),
                    name: entry.name,
                })
            }
            (None, Some(uid)) => Ok(Account {
                name: user.to_owned(),
                uid,
                gid,
                groups: vec![gid],
                home: "/".to_owned(),
            }),
            (None, None) => unknown(
                &format!("`user` = {user:?}: there is no such user"),
                "`getent passwd` lists those that there are; `useradd --system` makes one",
            ),
        }
    }

    /// `None` if the process is this user already. Only root can become another.
    fn if_another(self) -> Result<Option<Self>> {
        if (self.uid, self.gid) == (geteuid(), getegid()) {
            return Ok(None);
        }
        if !geteuid().is_root() {
            let now = name_of(geteuid().as_raw());
            return Err(Error::usage(format!(
                "only root can start the server as user {}, and this is {now}: start it as root, \
                 or leave `user` out",
                self.name
            )));
        }
        Ok(Some(self))
    }

    fn act_as(&self) -> Result {
        let doing = || format!("act as user {}", self.name);
        setgroups(&self.groups).map_err(failed(doing()))?;
        setegid(self.gid).map_err(failed(doing()))?;
        seteuid(self.uid).map_err(failed(doing()))
    }

    fn become_for_good(&self) -> Result {
        let doing = || format!("become user {}", self.name);
        setgroups(&self.groups).map_err(failed(doing()))?;
        setresgid(self.gid, self.gid, self.gid).map_err(failed(doing()))?;
        setresuid(self.uid, self.uid, self.uid).map_err(failed(doing()))?;
        // A kernel or a sandbox that only pretends would leave a server with root's rights.
        let way_back = !self.uid.is_root() && seteuid(Uid::from_raw(0)).is_ok();
        if way_back || has_capabilities() {
            return Err(Error::new(format!(
                "user {} still has rights of root: not served",
                self.name
            )));
        }
        Ok(())
    }
}

/// The name of the user with this number, or the number.
pub(crate) fn name_of(uid: u32) -> String {
    let user = User::from_uid(Uid::from_raw(uid)).ok().flatten();
    user.map_or_else(|| uid.to_string(), |user| user.name)
}

/// Back to root, out of the middle state.
fn rise(gid: Gid, groups: &[Gid]) -> Result {
    seteuid(Uid::from_raw(0)).map_err(failed("go back to root"))?;
    setegid(gid).map_err(failed("go back to root"))?;
    setgroups(groups).map_err(failed("go back to root"))
}

/// Whether a process that is not root has a capability that it could use, or take.
fn has_capabilities() -> bool {
    let status = fs::read_to_string("/proc/self/status").unwrap_or_default();
    let set = |name: &str| {
        let line = status.lines().find_map(|line| line.strip_prefix(name))?;
        u64::from_str_radix(line.trim(), 16).ok()
    };
    !geteuid().is_root()
        && ["CapPrm:", "CapEff:"]
            .iter()
            .any(|name| set(name).is_some_and(|set| set != 0))
}

fn failed(doing: impl std::fmt::Display) -> impl FnOnce(nix::Error) -> Error {
    move |error| Error::new(format!("cannot {doing}: {}", error.desc()))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn wanted(user: &str, group: &str) -> Result<Rights> {
        Rights::wanted(&Settings {
            user: user.to_owned(),
            group: group.to_owned(),
            ..Settings::default()
        })
    }

    fn refused(user: &str, group: &str) -> String {
        let error = wanted(user, group).unwrap_err();
        assert!(error.is_usage());
        error.to_string()
    }

    #[test]
    fn users_and_groups_that_are_not_there_are_named() {
        assert!(refused("no-such-user", "").contains("no-such-user"));
        assert!(refused("nobody", "no-such-group").contains("no-such-group"));
        assert!(refused("", "nogroup").contains("without `user`"));
        assert!(refused("3999999999", "").contains("no user has this number"));
    }

    #[test]
    fn who_it_is_already_needs_no_rights() {
        let (uid, gid) = (geteuid().to_string(), getegid().to_string());
        assert_eq!(wanted(&uid, &gid).unwrap().user(), None);
        assert_eq!(wanted("", "").unwrap().user(), None);
        let account = Account::of("nobody", "").unwrap();
        match geteuid().is_root() {
            true => assert!(account.if_another().unwrap().is_some()),
            false => assert!(account.if_another().unwrap_err().is_usage()),
        }
    }
}
