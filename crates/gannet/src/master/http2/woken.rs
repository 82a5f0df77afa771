//! Which sessions and streams the library has woken.
//!
//! There is no executor: a waker puts its connection on a list of the reactor, which looks at it
//! several times a turn, always before it sleeps. An alarm is on the list once, however often it rings.

use std::{
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicBool, Ordering::Relaxed},
    },
    task::{Wake, Waker},
};

use crate::id::ConnId;

/// The list of one reactor.
#[derive(Clone, Default)]
pub(in crate::master) struct Woken(Arc<List>);

#[derive(Default)]
struct List {
    alarms: Mutex<Vec<Arc<Alarm>>>,
    /// There are some: saves the reactor a look.
    any: AtomicBool,
}

/// Behind the waker of one connection, of a socket or virtual.
struct Alarm {
    id: ConnId,
    /// It is on the list.
    rung: AtomicBool,
    list: Woken,
}

impl Woken {
    pub(super) fn waker(&self, id: ConnId) -> Waker {
        Waker::from(Arc::new(Alarm {
            id,
            rung: AtomicBool::new(false),
            list: self.clone(),
        }))
    }

    /// Moves all who are on the list to the end of `into`.
    pub(super) fn take(&self, into: &mut Vec<ConnId>) {
        // All in one thread: no order is needed, here and below.
        if !self.0.any.swap(false, Relaxed) {
            return;
        }
        let mut alarms = self.0.alarms.lock().unwrap_or_else(PoisonError::into_inner);
        for alarm in alarms.drain(..) {
            alarm.rung.store(false, Relaxed);
            into.push(alarm.id);
        }
    }

    pub(in crate::master) fn is_empty(&self) -> bool {
        !self.0.any.load(Relaxed)
    }
}

impl Wake for Alarm {
    fn wake(self: Arc<Self>) {
        self.wake_by_ref();
    }

    fn wake_by_ref(self: &Arc<Self>) {
        if !self.rung.swap(true, Relaxed) {
            let list = &self.list.0;
            list.any.store(true, Relaxed);
            let mut alarms = list.alarms.lock().unwrap_or_else(PoisonError::into_inner);
            alarms.push(self.clone());
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_alarm_is_on_the_list_once_until_it_is_taken() {
        let woken = Woken::default();
        let (one, other) = (
            woken.waker(ConnId::from_u64(1)),
            woken.waker(ConnId::from_u64(2)),
        );
        one.wake_by_ref();
        other.wake_by_ref();
        one.wake_by_ref();
        let mut taken = Vec::new();
        woken.take(&mut taken);
        assert_eq!(taken.len(), 2);
        assert!(woken.is_empty());
        one.wake();
        woken.take(&mut taken);
        assert_eq!(taken.len(), 3, "it can ring again");
    }
}
