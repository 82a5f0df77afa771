//! ntex with one worker: HTTP hello.
//!
//!     compare-ntex PORT

use std::{env, io};

use ntex::web;

#[web::get("/")]
async fn hello() -> &'static str {
    "Hello from Gannet\n"
}

#[ntex::main]
async fn main() -> io::Result<()> {
    let port = env::args().nth(1).and_then(|port| port.parse().ok());
    web::server(async || web::App::new().service(hello))
        .workers(1)
        .bind(("127.0.0.1", port.unwrap_or(9505)))?
        .run()
        .await
}
