//! What task workers do.

use std::{process, thread, time::Duration};

use bytes::Bytes;
use gannet::{Error, Result, Task};

use super::{
    Behave,
    commands::{number, two},
    shared,
};

impl Behave {
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
