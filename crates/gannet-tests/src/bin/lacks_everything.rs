//! A handler that implements nothing but `start`: no listener can use it.

use gannet::{Handler, Result, Server, Settings, Worker};

struct Lacking;

impl Handler for Lacking {
    async fn start(_worker: &Worker) -> Result<Self> {
        Ok(Lacking)
    }
}

fn main() -> Result {
    Server::new(Settings::default()).run::<Lacking>()
}
