// uWebSockets: what `compare` measures. It listens on 127.0.0.1 and the port it is given, and answers
// all three scenarios: HTTP hello, WebSocket echo, and broadcast at /all, where every message goes to all.
//
// Build it in the way of uWebSockets' own examples, without TLS: `--uws PROGRAM` says where it is.

#include "App.h"

#include <cstdlib>
#include <string_view>

namespace {

struct Nothing {};

constexpr std::string_view hello = "Hello from Gannet\n";
constexpr std::string_view all = "all";

/// What both kinds of WebSocket have: no compression, no limit that the measurement could reach.
template <typename Message, typename Open>
auto behavior(Open open, Message message) {
    return uWS::TemplatedApp<false>::WebSocketBehavior<Nothing>{
        .compression = uWS::DISABLED,
        .maxPayloadLength = 2 * 1024 * 1024,
        .idleTimeout = 120,
        .maxBackpressure = 64 * 1024 * 1024,
        .open = open,
        .message = message,
    };
}

}  // namespace

int main(int count, char **arguments) {
    int port = count > 1 ? std::atoi(arguments[1]) : 9001;
    bool listens = false;
    uWS::App app;
    app.get("/", [](auto *response, auto *) {
        response->writeHeader("Content-Type", "text/plain")->end(hello);
    });
    app.ws<Nothing>("/", behavior([](auto *) {}, [](auto *ws, std::string_view message, uWS::OpCode kind) {
        ws->send(message, kind, false);
    }));
    app.ws<Nothing>("/all", behavior([](auto *ws) { ws->subscribe(all); },
                                     [&app](auto *, std::string_view message, uWS::OpCode kind) {
        // The app's publish, unlike the socket's, has the publisher among those who get it.
        app.publish(all, message, kind, false);
    }));
    app.listen("127.0.0.1", port, [&listens](auto *socket) { listens = socket != nullptr; });
    if (!listens) {
        return 1;
    }
    app.run();
    return 0;
}
