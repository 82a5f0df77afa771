// Node's ws: what `compare` measures, on 127.0.0.1.
//
//     node server.js websocket|broadcast PORT

import { WebSocketServer } from "ws";

const [scenario, port] = process.argv.slice(2);
const server = new WebSocketServer({ host: "127.0.0.1", port: Number(port), backlog: 4096 });

server.on("connection", (socket) => {
  socket.on("error", () => socket.terminate());
  if (scenario === "broadcast") {
    socket.on("message", (data, binary) => {
      for (const each of server.clients) each.send(data, { binary });
    });
  } else {
    socket.on("message", (data, binary) => socket.send(data, { binary }));
  }
});
