//! The server of the tests of exported spans: its handler makes spans of its own.

use std::time::Duration;

use gannet::{
    Body, Bytes, Conn, Error, Handler, Message, Process, ProcessMessage, Request, Response,
    Restart, Result, Server, Settings, Task, Worker, http::StatusCode,
};
use tracing::{Instrument, info_span};

struct Traced {
    worker: Worker,
}

impl Handler for Traced {
    async fn start(worker: &Worker) -> Result<Self> {
        let worker = worker.clone();
        Ok(Traced { worker })
    }

    async fn request(&self, _conn: Conn, request: Request) -> Result<Response> {
        let mut response = Response::new(Body::from("done"));
        match request.uri().path() {
            // Without a wait, and with one in the middle.
            "/at-once" => info_span!("inside", step = 1).in_scope(|| tracing::info!("at work")),
            "/waits" => {
                let work = async {
                    tokio::time::sleep(Duration::from_millis(5)).await;
                    tracing::info!("at work");
                };
                work.instrument(info_span!("inside", step = 1)).await;
            }
            "/logs" => tracing::info!("a line of the log"),
            "/error" => return Err(Error::new("as asked")),
            "/panic" => panic!("as asked"),
            "/busy" => *response.status_mut() = StatusCode::SERVICE_UNAVAILABLE,
            "/missing" => *response.status_mut() = StatusCode::NOT_FOUND,
            "/task" => {
                let command = request.uri().query().unwrap_or("").to_owned();
                let result = self.worker.task(command).await;
                let text = result.map_or_else(|error| error.to_string(), |_| "fine".to_owned());
                response = Response::new(Body::from(text));
            }
            "/tell" => {
                let listener = self.worker.process("listener")?;
                self.worker.pipe(listener, "hear").await?;
            }
            _ => {}
        }
        Ok(response)
    }

    async fn message(&self, conn: Conn, message: Message) -> Result {
        conn.send(message).await
    }

    async fn receive(&self, conn: Conn, data: Bytes) -> Result {
        if &data[..] == b"die" && !conn.is_redelivered() {
            std::process::abort();
        }
        conn.send(data).await
    }

    async fn task(&self, task: Task) -> Result<Bytes> {
        match &task.data[..] {
            b"fail" => Err(Error::new("as asked")),
            b"panic" => panic!("as asked"),
            _ => Ok(task.data),
        }
    }
}

async fn listen(process: Process) -> Result {
    while let Some(message) = process.recv().await {
        hear(&message);
    }
    Ok(())
}

fn hear(message: &ProcessMessage) {
    let _heard = info_span!("heard", bytes = message.data().len()).entered();
}

fn main() -> Result {
    // Listeners and settings come from the configuration file.
    Server::new(Settings::default())
        .add_process("listener", Restart::Always, listen)
        .run::<Traced>()
}
