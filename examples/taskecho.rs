//! Sends everything back by way of a task worker: receive, task, finish, reply.
//!
//!     cargo run --release --example taskecho
//!     nc 127.0.0.1 9513

use gannet::{
    Bytes, Conn, ConnId, Error, Handler, Result, Server, Task, TaskError, TaskId, Worker,
};

struct TaskEcho {
    worker: Worker,
}

impl Handler for TaskEcho {
    async fn start(worker: &Worker) -> Result<Self> {
        Ok(TaskEcho {
            worker: worker.clone(),
        })
    }

    async fn receive(&self, conn: Conn, data: Bytes) -> Result {
        // The number of the connection goes along, so that `finish` knows whom to answer.
        let payload = [&conn.id().as_u64().to_le_bytes(), &data[..]].concat();
        self.worker.detach_task(payload).await?;
        Ok(())
    }

    /// In a task worker: here is what takes long or blocks.
    async fn task(&self, task: Task) -> Result<Bytes> {
        Ok(task.data)
    }

    /// Back in the worker.
    async fn finish(&self, task: TaskId, result: std::result::Result<Bytes, TaskError>) -> Result {
        let result = result?;
        let Some((client, data)) = result.split_first_chunk() else {
            return Err(Error::new(format!("task {task} has lost its client")));
        };
        let client = ConnId::from_u64(u64::from_le_bytes(*client));
        self.worker.send(client, result.slice_ref(data)).await
    }
}

fn main() -> Result {
    Server::tcp("127.0.0.1:9513")
        .task_workers(2)
        .run::<TaskEcho>()
}
