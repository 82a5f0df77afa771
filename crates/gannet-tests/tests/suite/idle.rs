//! What an idle connection costs. The bounds are what `docs/internals/reactor.md` says, with a half on top:
//! a field here and there does not fail them, something that each connection has twice does.

use gannet_tests::{server::Server, wait::wait_until};

use crate::{behave, heavy};

#[test]
fn an_idle_websocket_costs_at_most_640_bytes() {
    let _machine = heavy();
    let server = behave().websocket().start();
    let each = memory_of_each(server, Server::websocket);
    assert!(each <= 640, "{each} B for each idle WebSocket");
}

#[test]
fn an_idle_tcp_connection_costs_at_most_500_bytes() {
    let _machine = heavy();
    let server = behave().tcp().start();
    let each = memory_of_each(server, Server::tcp);
    assert!(each <= 500, "{each} B for each idle TCP connection");
}

#[test]
fn an_idle_http_connection_costs_at_most_900_bytes() {
    let _machine = heavy();
    let server = behave().http().start();
    let each = memory_of_each(server, |server| {
        let mut client = server.http();
        assert_eq!(client.get("/").status, 200);
        client
    });
    assert!(each <= 900, "{each} B for each idle HTTP connection");
}

/// Opens very many, and looks at what the server has for each of them.
fn memory_of_each<T>(server: Server, open: impl Fn(&Server) -> T) -> u64 {
    let connect = |count: usize| (0..count).map(|_| open(&server)).collect::<Vec<_>>();
    // What the first connections touch for all the others is not theirs: above all the rings, which cost
    // their whole size once they have gone round.
    let warm = connect(WARM);
    let before = memory(&server);
    let idle = connect(IDLE);
    let all = (WARM + IDLE) as u64;
    wait_until("the server to know of all", || server.connections() == all);
    let each = memory(&server).saturating_sub(before) / IDLE as u64;
    println!("{IDLE} idle connections: {each} B of server memory each");
    drop((warm, idle));
    wait_until("the server to forget them", || server.connections() == 0);
    server.stop();
    each
}

/// User memory of all processes of the server.
fn memory(server: &Server) -> u64 {
    server
        .memory()
        .iter()
        .map(|(_, memory)| memory.proportional)
        .sum()
}

const WARM: usize = 2_000;
const IDLE: usize = 6_000;
