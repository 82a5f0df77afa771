//! The worker against a scripted master.

mod allocations;
mod events;
mod futures;
mod http;
mod lifecycle;
mod tasks;
mod timers;

use std::{
    cell::RefCell,
    collections::HashMap,
    rc::Rc,
    sync::atomic::{AtomicBool, Ordering::Relaxed},
};

use bytes::Bytes;
use tokio::sync::Notify;

use crate::{CloseReason, Conn, ConnId, Error, Handler, Result, TaskId, Worker, WorkerId};

/// A handler that does what the bytes it receives say.
struct Script {
    gates: RefCell<HashMap<String, Rc<Notify>>>,
}

/// Whether those who hold their thread may let go of it.
static LET_GO: AtomicBool = AtomicBool::new(false);

fn hold() {
    while !LET_GO.load(Relaxed) {
        std::thread::yield_now();
    }
}

impl Script {
    fn gate(&self, name: &str) -> Rc<Notify> {
        self.gates
            .borrow_mut()
            .entry(name.to_owned())
            .or_default()
            .clone()
    }
}

impl Handler for Script {
    async fn start(_worker: &Worker) -> Result<Self> {
        Ok(Script {
            gates: RefCell::default(),
        })
    }

    async fn receive(&self, conn: Conn, data: Bytes) -> Result {
        let text = std::str::from_utf8(&data)?;
        let (word, rest) = text.split_once(' ').unwrap_or((text, ""));
        match word {
            "echo" => conn.send(data.slice(5..)).await,
            "silent" => Ok(()),
            "wait" => {
                self.gate(rest).notified().await;
                conn.send(format!("woke {rest}")).await
            }
            "release" => {
                self.gate(rest).notify_one();
                Ok(())
            }
            "many" => {
                for number in 0..rest.parse::<usize>()? {
                    conn.send(format!("{number:0>1000}")).await?;
                }
                Ok(())
            }
            "big" => conn.send(vec![b'b'; rest.parse::<usize>()?]).await,
            "try" => match conn.try_send(vec![b'b'; rest.parse::<usize>()?]) {
                Ok(()) => Ok(()),
                Err(error) => conn.send(error.to_string()).await,
            },
            "to" => {
                let other = conn.worker().conn(rest.parse::<ConnId>()?);
                other.send("from afar").await
            }
            "redelivered" => conn.send(conn.is_redelivered().to_string()).await,
            "later" => {
                let (gate, to) = (self.gate(rest), conn.clone());
                conn.worker().spawn_local(async move {
                    gate.notified().await;
                    to.send("later").await.unwrap();
                });
                Ok(())
            }
            "thread" => {
                let to = conn.clone();
                let count = rest.parse::<usize>()?;
                tokio::task::spawn_blocking(move || {
                    let handle = tokio::runtime::Builder::new_current_thread()
                        .build()
                        .unwrap();
                    handle.block_on(async {
                        for number in 0..count {
                            to.send(number.to_string()).await.unwrap();
                        }
                    });
                })
                .await?;
                Ok(())
            }
            "publish" => {
                let (topic, what) = rest.split_once(' ').unwrap();
                conn.worker().publish_except(topic, what, conn.id()).await
            }
            "count" => {
                let count = conn.worker().topic_count(rest).await?;
                conn.send(count.to_string()).await
            }
            "drained" => {
                conn.drained(rest.parse()?).await?;
                conn.send("drained").await
            }
            "info" => {
                let info = conn.info().unwrap();
                let all = conn.worker().connections().count();
                conn.send(format!("{} {} of {all}", info.peer, conn.is_open()))
                    .await
            }
            "fail" => Err(Error::new("as told")),
            "panic" => panic!("as told"),
            "task" => match conn.worker().task(rest.to_owned()).await {
                Ok(result) => conn.send(result).await,
                Err(error) => conn.send(error.to_string()).await,
            },
            "detach" => {
                let task = conn.worker().detach_task(rest.to_owned()).await?;
                conn.send(format!("accepted {task}")).await
            }
            "detach-only" => {
                conn.worker().detach_task(rest.to_owned()).await?;
                Ok(())
            }
            "hold" => {
                hold();
                Ok(())
            }
            "detach-many" => {
                for _ in 0..rest.parse::<usize>()? {
                    conn.worker().detach_task("x").await?;
                }
                conn.send(format!("{rest} accepted")).await
            }
            "detach-aside" => {
                let (to, data) = (conn.clone(), rest.to_owned());
                conn.worker().spawn_local(async move {
                    to.worker().detach_task(data).await.unwrap();
                    hold();
                    to.send("released").await.unwrap();
                });
                Ok(())
            }
            "detach-thread" => {
                let (to, data) = (conn.worker().clone(), rest.to_owned());
                let runtime = tokio::runtime::Handle::current();
                let submit = move || runtime.block_on(to.detach_task(data));
                let task = tokio::task::spawn_blocking(submit).await??;
                conn.send(format!("accepted {task}")).await
            }
            "impatient" => {
                let worker = conn.worker().clone();
                tokio::select! {
                    biased;
                    _ = worker.task(rest.to_owned()) => Ok(()),
                    () = async { self.gate("enough").notified().await } => conn.send("gave up").await,
                }
            }
            "pipe" => conn.worker().pipe(WorkerId(0), rest.to_owned()).await,
            other => Err(Error::new(format!("unknown word {other}"))),
        }
    }

    async fn close(&self, conn: Conn, reason: CloseReason) -> Result {
        conn.send(format!("closed: {reason}")).await
    }

    async fn pipe_message(&self, from: WorkerId, data: Bytes) -> Result {
        let text = std::str::from_utf8(&data)?;
        assert_eq!(from, WorkerId(0));
        self.gate(text).notify_one();
        Ok(())
    }

    async fn finish(
        &self,
        task: TaskId,
        result: std::result::Result<Bytes, crate::TaskError>,
    ) -> Result {
        let result = result.map_err(|error| Error::new(error).to_string());
        self.gate(&format!("finished {task} {result:?}"))
            .notify_one();
        Ok(())
    }
}
