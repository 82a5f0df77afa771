//! What the hub counts for `/metrics`, for all its workers together.

use gannet::Server;

/// Clients that have said who they are.
pub(crate) const HELLOS: &str = "hub_hellos_total";
/// Messages accepted for a user or channel.
pub(crate) const MESSAGES: &str = "hub_messages_total";
/// Those among them that were repeats.
pub(crate) const REPEATS: &str = "hub_repeats_total";

/// Names, and what they mean.
pub(crate) const METRICS: [(&str, &str); 3] = [
    (HELLOS, "Clients that have said who they are."),
    (
        MESSAGES,
        "Messages accepted for a user or channel, repeats included.",
    ),
    (REPEATS, "Messages that were there already, by their key."),
];

/// Declares the counters.
pub(crate) fn declare(server: Server) -> Server {
    METRICS.iter().fold(server, |server, (name, help)| {
        server.counter_metric(*name, *help)
    })
}
