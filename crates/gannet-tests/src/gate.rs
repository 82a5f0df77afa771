//! What a handler waits for, as long as the test wants.
//!
//! A test that needs a handler to run while it looks cannot know how long it will look: where the machine is
//! busy, asking for the status takes as long as anything. So the handler waits for the test, not for a time.

use std::{fs::File, path::PathBuf};

use tempfile::TempDir;

/// A gate that is shut: commands of [`behave`](crate::behave) wait at it.
#[derive(Debug)]
pub struct Gate {
    directory: TempDir,
}

impl Gate {
    /// One that is shut.
    pub fn shut() -> Self {
        Gate {
            directory: tempfile::tempdir().expect("a directory for temporary files"),
        }
    }

    /// What a command is told to wait for.
    pub fn path(&self) -> String {
        self.file().display().to_string()
    }

    /// Lets everybody pass who waits or is to come.
    pub fn open(&self) {
        File::create(self.file()).expect("open the gate");
    }

    fn file(&self) -> PathBuf {
        self.directory.path().join("open")
    }
}
