//! Something later, and something again and again.
//!
//!     cargo run --release --example timers
//!     nc 127.0.0.1 9510

use std::{cell::RefCell, collections::HashMap, time::Duration};

use gannet::{Bytes, CloseReason, Conn, ConnId, Handler, Result, Server, Timer, Worker};

struct Timers {
    worker: Worker,
    /// The reminder of each client. Dropping one cancels it.
    reminders: RefCell<HashMap<ConnId, Timer>>,
}

impl Handler for Timers {
    async fn start(worker: &Worker) -> Result<Self> {
        // Every worker has timers of its own; this one there is to be once.
        if worker.id().0 == 0 {
            let (own, mut count) = (worker.clone(), 0);
            let tick = async move || {
                count += 1;
                own.publish("ticks", format!("tick {count}\n")).await
            };
            worker.every(Duration::from_secs(1), tick).detach();
        }
        Ok(Timers {
            worker: worker.clone(),
            reminders: RefCell::default(),
        })
    }

    async fn connect(&self, conn: Conn) -> Result {
        conn.subscribe("ticks").await?;
        self.remind(conn);
        Ok(())
    }

    async fn receive(&self, conn: Conn, _data: Bytes) -> Result {
        self.remind(conn);
        Ok(())
    }

    async fn close(&self, conn: Conn, _reason: CloseReason) -> Result {
        self.reminders.borrow_mut().remove(&conn.id());
        Ok(())
    }
}

impl Timers {
    /// From now on, again.
    fn remind(&self, conn: Conn) {
        let id = conn.id();
        let ask = async move || conn.send("are you still there?\n").await;
        let reminder = self.worker.after(Duration::from_secs(3), ask);
        self.reminders.borrow_mut().insert(id, reminder);
    }
}

fn main() -> Result {
    Server::tcp("127.0.0.1:9510").workers(2).run::<Timers>()
}
