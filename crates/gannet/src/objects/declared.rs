//! What a program declares.

use std::collections::BTreeSet;

use gannet_shm::table::TableSpec;

use super::{ObjectKind, Shared};
use crate::{Error, Result};

/// Counters, locks and tables, in the order of their declaration.
#[derive(Clone, Debug, Default)]
pub(crate) struct Declared(Vec<Declaration>);

/// An object that is to be.
#[derive(Clone, Debug)]
pub(crate) enum Declaration {
    Counter(String),
    Lock(String),
    Table(TableSpec),
}

impl Declared {
    pub(crate) fn push(&mut self, declaration: Declaration) {
        self.0.push(declaration);
    }

    pub(super) fn iter(&self) -> impl Iterator<Item = &Declaration> {
        self.0.iter()
    }

    pub(super) fn has_locks(&self) -> bool {
        self.count(ObjectKind::Lock) > 0
    }

    /// Counters and locks.
    pub(super) fn cells(&self) -> usize {
        self.count(ObjectKind::Counter) + self.count(ObjectKind::Lock)
    }

    /// Refuses names and numbers of objects that cannot be.
    pub(super) fn check(&self) -> Result {
        let mut names = BTreeSet::new();
        for declaration in &self.0 {
            let (kind, name) = (declaration.kind(), declaration.name());
            check_name(kind, name)?;
            if !names.insert(name) {
                return Err(Error::usage(format!(
                    "`{name}` is declared twice: counters, locks and tables need names of their own"
                )));
            }
        }
        let limits = [
            (
                "counters and locks",
                self.cells(),
                Shared::MAX_COUNTERS_AND_LOCKS,
            ),
            ("tables", self.count(ObjectKind::Table), Shared::MAX_TABLES),
        ];
        for (what, count, max) in limits {
            if count > max {
                return Err(Error::usage(format!(
                    "{count} {what} are declared: at most {max} are possible (for many numbers \
                     under changing names, declare one table)"
                )));
            }
        }
        Ok(())
    }

    fn count(&self, kind: ObjectKind) -> usize {
        self.0
            .iter()
            .filter(|declaration| declaration.kind() == kind)
            .count()
    }
}

impl Declaration {
    pub(super) fn name(&self) -> &str {
        match self {
            Declaration::Counter(name) | Declaration::Lock(name) => name,
            Declaration::Table(spec) => &spec.name,
        }
    }

    pub(super) fn kind(&self) -> ObjectKind {
        match self {
            Declaration::Counter(_) => ObjectKind::Counter,
            Declaration::Lock(_) => ObjectKind::Lock,
            Declaration::Table(_) => ObjectKind::Table,
        }
    }
}

fn check_name(kind: ObjectKind, name: &str) -> Result {
    let allowed = |byte: u8| byte.is_ascii_alphanumeric() || b"._-:".contains(&byte);
    if (1..=Shared::MAX_NAME).contains(&name.len()) && name.bytes().all(allowed) {
        return Ok(());
    }
    Err(Error::usage(format!(
        "{name:?} cannot be the name of a {kind}: 1 to {} ASCII letters, digits and `.`, `_`, `-`, \
         `:` are possible",
        Shared::MAX_NAME
    )))
}
