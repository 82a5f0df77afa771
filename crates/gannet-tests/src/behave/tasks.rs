//! What task workers do.
//!
//! `BEHAVE_FIRST_TASKS=COUNT TASK`: every worker submits so many detached tasks in `start`, and notes at `BEHAVE_RUNS`
//! what is said of them and of one that it awaits there (`first TASK`), of one that it awaits in a future beside
//! it (`aside TASK`), and what they come to.

use std::{env, io::Write, process, thread, time::Duration};

use bytes::Bytes;
use gannet::{Error, Result, Task};

use super::{
    Behave,
    commands::{number, two},
    gates, shared,
};

impl Behave {
    pub(super) async fn submit_first(&self) -> Result {
        let Some((count, task)) = first_tasks() else {
            return Ok(());
        };
        if self.worker.is_task_worker() {
            return Ok(());
        }
        for _ in 0..count {
            let id = self.worker.detach_task(task.clone()).await?;
            self.note(format!("submitted {id}").as_bytes());
        }
        let awaited = self.worker.task("echo first").await;
        self.note(format!("first {awaited:?}").as_bytes());
        if let Some(runs) = &self.runs {
            let (worker, mut runs) = (self.worker.clone(), runs.try_clone()?);
            self.worker.spawn_local(async move {
                let awaited = worker.task("echo aside").await;
                writeln!(runs, "aside {awaited:?}").expect("note a task");
            });
        }
        Ok(())
    }

    pub(super) fn note_first(&self, outcome: &str) {
        if first_tasks().is_some() {
            self.note(outcome.as_bytes());
        }
    }

    pub(super) async fn run_task(&self, task: Task) -> Result<Bytes> {
        let text = String::from_utf8_lossy(&task.data);
        let (word, rest) = text.split_once(' ').unwrap_or((&text, ""));
        let answer = match word {
            "echo" => rest.to_owned(),
            "pid" => process::id().to_string(),
            "version" => self.variant.version.to_owned(),
            "worker" => self.worker.id().to_string(),
            "is-task-worker" => self.worker.is_task_worker().to_string(),
            "id" => task.id.to_string(),
            "from" => task.from.to_string(),
            "attempts" => task.attempts.to_string(),
            "sleep" => {
                let (ms, rest) = two(rest)?;
                thread::sleep(Duration::from_millis(number(ms)?));
                rest.to_owned()
            }
            "gate" => {
                let (gate, rest) = two(rest)?;
                gates::block_at(gate);
                rest.to_owned()
            }
            "shared" => shared::command(&self.worker, rest).await?,
            "mark" => {
                self.note(&task.data);
                "marked".to_owned()
            }
            "send" => {
                let (to, rest) = two(rest)?;
                self.worker.send(number(to)?, rest.to_owned()).await?;
                "sent".to_owned()
            }
            "pipe" => {
                self.worker.pipe(task.from, rest.to_owned()).await?;
                "piped".to_owned()
            }
            "big" => "t".repeat(number(rest)?),
            "fail" => return Err(Error::new(rest)),
            "panic" => panic!("as asked: {rest}"),
            "abort" => process::abort(),
            "abort-once" if task.attempts == 0 => process::abort(),
            "abort-once" => format!("survived {rest}"),
            _ => return Err(Error::new(format!("unknown task: {text}"))),
        };
        Ok(answer.into())
    }
}

fn first_tasks() -> Option<(usize, String)> {
    let text = env::var("BEHAVE_FIRST_TASKS").ok()?;
    let (count, task) = text.split_once(' ')?;
    Some((count.parse().ok()?, task.to_owned()))
}
