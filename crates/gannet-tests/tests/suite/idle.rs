//! What an idle connection costs.

use gannet_tests::{server::Server, wait::wait_until, websocket::WebSocket};

use crate::{behave, heavy};

#[test]
fn an_idle_websocket_costs_at_most_a_kibibyte() {
    let _machine = heavy();
    let server = behave().websocket().start();
    // What the first connections touch for all the others is not theirs.
    let warm: Vec<_> = (0..200).map(|_| server.websocket()).collect();
    let before = memory(&server);
    let idle: Vec<WebSocket> = (0..8000).map(|_| server.websocket()).collect();
    wait_until("the server to know of all", || server.connections() == 8200);
    let each = memory(&server).saturating_sub(before) / idle.len() as u64;
    println!(
        "{} idle WebSockets: {each} B of server memory each",
        idle.len()
    );
    assert!(each <= 1024, "{each} B for each idle WebSocket");
    drop((warm, idle));
    wait_until("the server to forget them", || server.connections() == 0);
    server.stop();
}

/// User memory of all processes of the server.
fn memory(server: &Server) -> u64 {
    server
        .memory()
        .iter()
        .map(|(_, memory)| memory.proportional)
        .sum()
}
