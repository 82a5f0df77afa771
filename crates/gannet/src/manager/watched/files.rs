//! Where to look for changes, and what there is now.

use std::{
    collections::{BTreeMap, BTreeSet, VecDeque},
    ffi::{OsStr, OsString},
    fs::{self, Metadata},
    io,
    os::unix::{ffi::OsStrExt, fs::MetadataExt},
    path::{Component, Path, PathBuf},
};

/// What a file is like. Another one is a change; times other than that of its content do not
/// matter, or a hard link to it would be one.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Stamp {
    device: u64,
    inode: u64,
    len: u64,
    modified: (i64, i64),
    mode: u32,
}

/// The files that were found, by path.
pub(super) type Found = BTreeMap<PathBuf, Stamp>;

/// What of a directory is of interest.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Interest {
    /// Everything but hidden files.
    pub(super) all: bool,
    pub(super) names: BTreeSet<OsString>,
    /// That one of them is written matters too, not only that it comes or goes.
    pub(super) content: bool,
}

/// Takes in what has been found; directories are told before they are read, so that what happens
/// meanwhile is not missed.
pub(super) trait Eyes {
    fn look_at(&mut self, directory: &Path, interest: &Interest) -> io::Result<()>;
}

impl Interest {
    fn all() -> Self {
        Interest {
            all: true,
            content: true,
            names: BTreeSet::new(),
        }
    }

    /// Whether an event about this name matters.
    pub(super) fn wants(&self, name: &OsStr) -> bool {
        self.names.contains(name) || (self.all && !is_hidden(name))
    }

    pub(super) fn merge(&mut self, other: &Interest) {
        self.all |= other.all;
        self.content |= other.content;
        self.names.extend(other.names.iter().cloned());
    }
}

impl Stamp {
    fn of(metadata: &Metadata) -> Self {
        Stamp {
            device: metadata.dev(),
            inode: metadata.ino(),
            len: metadata.len(),
            modified: (metadata.mtime(), metadata.mtime_nsec()),
            mode: metadata.mode(),
        }
    }
}

/// Looks at `path` and, if it is a directory, at all below. What is missing is no error.
///
/// `path` is absolute. Each name on the way to it is of interest in its directory: a directory may be
/// renamed, a symbolic link may be made anew.
pub(super) fn look(path: &Path, eyes: &mut impl Eyes, found: &mut Found) -> io::Result<()> {
    let Some(end) = follow(path, eyes)? else {
        return Ok(());
    };
    let Some(metadata) = none_if_gone(fs::metadata(&end))? else {
        return Ok(());
    };
    if !metadata.is_dir() {
        return add(found, path.to_owned(), Stamp::of(&metadata));
    }
    let mut directories = VecDeque::from([end]);
    while let Some(directory) = directories.pop_front() {
        match eyes.look_at(&directory, &Interest::all()) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => continue,
            looked => looked?,
        }
        let Some(entries) = none_if_gone(fs::read_dir(&directory))? else {
            continue;
        };
        for entry in entries {
            let entry = entry?;
            if is_hidden(&entry.file_name()) {
                continue;
            }
            let path = entry.path();
            let Some(metadata) = none_if_gone(fs::metadata(&path))? else {
                continue;
            };
            if !metadata.is_dir() {
                add(found, path, Stamp::of(&metadata))?;
            } else if !entry.file_type()?.is_symlink() {
                directories.push_back(path);
            } else if let Some(link) = none_if_gone(fs::symlink_metadata(&path))? {
                // Directories behind links are not followed: there is no end to those.
                add(found, path, Stamp::of(&link))?;
            }
        }
    }
    Ok(())
}

/// The paths that are not the same in both, in order.
pub(super) fn changed<'a>(before: &'a Found, now: &'a Found) -> impl Iterator<Item = &'a PathBuf> {
    let gone = before.keys().filter(|path| !now.contains_key(*path));
    let others = now
        .iter()
        .filter(|(path, stamp)| before.get(*path) != Some(stamp));
    gone.chain(others.map(|(path, _)| path))
}

/// Where the path leads to, through all links; `None` if it leads to nothing.
fn follow(path: &Path, eyes: &mut impl Eyes) -> io::Result<Option<PathBuf>> {
    let names = |path: &Path| -> VecDeque<OsString> {
        let names = path.components().filter_map(|component| match component {
            Component::Normal(name) => Some(name.to_owned()),
            Component::ParentDir => Some(OsString::from("..")),
            _ => None,
        });
        names.collect()
    };
    let mut left = names(path);
    let mut at = PathBuf::from("/");
    let mut links = 0;
    while let Some(name) = left.pop_front() {
        if name == ".." {
            at.pop();
            continue;
        }
        let interest = Interest {
            names: BTreeSet::from([name.clone()]),
            content: left.is_empty(),
            all: false,
        };
        match eyes.look_at(&at, &interest) {
            // One may be allowed to pass through a directory, and not to read it.
            Err(error) if error.kind() == io::ErrorKind::PermissionDenied && !left.is_empty() => {}
            looked => looked?,
        }
        let next = at.join(&name);
        let Some(metadata) = none_if_gone(fs::symlink_metadata(&next))? else {
            return Ok(None);
        };
        if !metadata.is_symlink() {
            at = next;
            continue;
        }
        links += 1;
        if links > LINKS {
            return Ok(None);
        }
        let Some(target) = none_if_gone(fs::read_link(&next))? else {
            return Ok(None);
        };
        if target.is_absolute() {
            at = PathBuf::from("/");
        }
        let mut names = names(&target);
        names.append(&mut left);
        left = names;
    }
    Ok(Some(at))
}

fn add(found: &mut Found, path: PathBuf, stamp: Stamp) -> io::Result<()> {
    found.insert(path, stamp);
    if found.len() > MAX_FILES {
        let message = format!("there are more than {MAX_FILES} files to watch: name fewer");
        return Err(io::Error::other(message));
    }
    Ok(())
}

/// What editors leave while they write, and what is nobody's business (`.git`).
fn is_hidden(name: &OsStr) -> bool {
    name.as_bytes().starts_with(b".") || name.as_bytes().ends_with(b"~")
}

fn none_if_gone<T>(result: io::Result<T>) -> io::Result<Option<T>> {
    match result {
        Err(error)
            if matches!(
                error.kind(),
                io::ErrorKind::NotFound | io::ErrorKind::NotADirectory
            ) =>
        {
            Ok(None)
        }
        other => other.map(Some),
    }
}

/// Links on the way to one file, as in the kernel.
const LINKS: usize = 40;
/// Files that are watched: a look at them takes some 50 ms, in which the manager does nothing else.
const MAX_FILES: usize = 20_000;

#[cfg(test)]
mod tests {
    use std::os::unix::fs::symlink;

    use super::*;

    #[derive(Default)]
    struct Noted(BTreeMap<PathBuf, Interest>);

    impl Eyes for Noted {
        fn look_at(&mut self, directory: &Path, interest: &Interest) -> io::Result<()> {
            let noted = self.0.entry(directory.to_owned()).or_default();
            noted.merge(interest);
            Ok(())
        }
    }

    fn directory(name: &str) -> PathBuf {
        let path = std::env::temp_dir().join(format!("gannet-watch-{name}-{}", std::process::id()));
        let _ = fs::remove_dir_all(&path);
        fs::create_dir_all(&path).unwrap();
        path.canonicalize().unwrap()
    }

    fn look_at(path: &Path) -> (Noted, Found) {
        let (mut noted, mut found) = (Noted::default(), Found::new());
        look(path, &mut noted, &mut found).unwrap();
        (noted, found)
    }

    #[test]
    fn every_link_on_the_way_to_a_file_is_of_interest() {
        let home = directory("links");
        fs::create_dir_all(home.join("v1")).unwrap();
        fs::write(home.join("v1/echo"), "1").unwrap();
        symlink("v1", home.join("current")).unwrap();
        symlink(home.join("current/echo"), home.join("echo")).unwrap();
        let (noted, found) = look_at(&home.join("echo"));
        let wants = |path: PathBuf, name: &str| noted.0[&path].wants(OsStr::new(name));
        assert!(wants(home.clone(), "echo") && wants(home.clone(), "current"));
        assert!(wants(home.join("v1"), "echo") && !wants(home.join("v1"), "other"));
        assert_eq!(found.len(), 1);

        // The same content in another release is a change.
        fs::create_dir_all(home.join("v2")).unwrap();
        fs::write(home.join("v2/echo"), "1").unwrap();
        fs::remove_file(home.join("current")).unwrap();
        symlink("v2", home.join("current")).unwrap();
        let (_, now) = look_at(&home.join("echo"));
        assert_eq!(
            changed(&found, &now).collect::<Vec<_>>(),
            [&home.join("echo")]
        );

        fs::remove_dir_all(home.join("v2")).unwrap();
        assert!(look_at(&home.join("echo")).1.is_empty(), "it leads nowhere");
        symlink("round", home.join("round")).unwrap();
        assert!(look_at(&home.join("round")).1.is_empty());
        fs::remove_dir_all(home).unwrap();
    }

    #[test]
    fn directories_are_watched_with_all_below_but_hidden_files() {
        let home = directory("tree");
        fs::create_dir_all(home.join("a/b")).unwrap();
        fs::create_dir_all(home.join(".git")).unwrap();
        for file in ["a/b/one", "two", ".git/index", "two~", ".two.swp"] {
            fs::write(home.join(file), file).unwrap();
        }
        symlink("..", home.join("a/up")).unwrap();
        let (noted, before) = look_at(&home);
        let files: Vec<_> = before
            .keys()
            .map(|path| path.strip_prefix(&home).unwrap())
            .collect();
        assert_eq!(files, ["a/b/one", "a/up", "two"].map(Path::new));
        assert!(noted.0[&home.join("a/b")].all && !noted.0.contains_key(&home.join(".git")));

        fs::write(home.join("a/b/one"), "more than before").unwrap();
        fs::write(home.join("three"), "").unwrap();
        fs::remove_file(home.join("two")).unwrap();
        fs::hard_link(home.join("three"), home.join(".other")).unwrap();
        let (_, now) = look_at(&home);
        let changes: Vec<_> = changed(&before, &now).collect();
        assert_eq!(
            changes,
            [
                &home.join("two"),
                &home.join("a/b/one"),
                &home.join("three")
            ]
        );
        fs::remove_dir_all(home).unwrap();
    }
}
