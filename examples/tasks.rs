//! Long, blocking work in task workers, while the workers go on.
//!
//!     cargo run --release --example tasks
//!     nc 127.0.0.1 9503

use std::{thread, time::Duration};

use gannet::{Bytes, Conn, ConnId, Handler, Result, Server, Task, TaskError, TaskId, Worker};

struct Tasks {
    worker: Worker,
}

impl Handler for Tasks {
    async fn start(worker: &Worker) -> Result<Self> {
        Ok(Tasks {
            worker: worker.clone(),
        })
    }

    async fn receive(&self, conn: Conn, data: Bytes) -> Result {
        // Any payload will do; this one says whom to tell.
        let payload = format!(
            "{} {}",
            conn.id(),
            String::from_utf8_lossy(&data).trim_end()
        );
        let task = self.worker.detach_task(payload).await?;
        conn.send(format!(
            "Continue Handle Worker (task {task} was submitted)\n"
        ))
        .await
    }

    /// Runs in a task worker, which has nothing else to do meanwhile: it may block.
    async fn task(&self, task: Task) -> Result<Bytes> {
        let payload = String::from_utf8_lossy(&task.data);
        let (client, text) = payload.split_once(' ').unwrap_or((&payload, ""));
        let client: ConnId = client.parse()?;
        for step in 1..=3 {
            thread::sleep(Duration::from_secs(1));
            let line = format!("Data in Task {} (step {step}): {text}\n", task.id);
            self.worker.send(client, line).await?;
        }
        Ok(format!("{text:?}, asked for by worker {}", task.from).into())
    }

    /// Back in the worker that submitted the task.
    async fn finish(&self, task: TaskId, result: std::result::Result<Bytes, TaskError>) -> Result {
        match result {
            Ok(result) => println!("task {task} ended: {}", String::from_utf8_lossy(&result)),
            Err(error) => println!("task {task} failed: {error}"),
        }
        Ok(())
    }
}

fn main() -> Result {
    Server::tcp("127.0.0.1:9503")
        .workers(2)
        .task_workers(8)
        .run::<Tasks>()
}
