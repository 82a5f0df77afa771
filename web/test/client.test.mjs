// The client's rules, with a scripted hub and a clock that the test moves.

import assert from "node:assert/strict";
import { test } from "node:test";

import { Client } from "../chat/client.js";

const EPOCH = "01ARZ3NDEKTSV4RRFFQ69G5FAV";

/** A world of sockets and timers in which nothing happens by itself. */
class World {
  time = 0;
  timers = new Map();
  sockets = [];
  keys = 0;
  told = [];

  client(options = {}) {
    const names = ["state", "messages", "older", "reset", "sent", "refused", "present", "direct"];
    const tell = (name) => [name, (...details) => this.told.push([name, ...details])];
    const on = Object.fromEntries(names.map(tell));
    const world = {
      connect: () => this.connect(),
      setTimeout: (act, ms) => {
        this.timers.set((this.keys += 1), { at: this.time + ms, act });
        return this.keys;
      },
      clearTimeout: (timer) => this.timers.delete(timer),
      random: () => 0.5,
      newKey: () => `key-${(this.keys += 1)}`,
    };
    return new Client({ url: "ws://hub", user: "ann", device: "d", on, world, ...options });
  }

  connect() {
    const socket = { lines: [], send: (text) => socket.lines.push(...text.split("\n").map(JSON.parse)) };
    socket.close = () => {};
    this.sockets.push(socket);
    return socket;
  }

  get socket() {
    return this.sockets.at(-1);
  }

  /** Lets time pass, with what was to happen in it. */
  async pass(ms) {
    const end = this.time + ms;
    for (;;) {
      const due = Array.from(this.timers).filter(([, timer]) => timer.at <= end);
      if (due.length === 0) break;
      due.sort(([, one], [, other]) => one.at - other.at);
      const [[id, timer]] = due;
      this.timers.delete(id);
      this.time = timer.at;
      timer.act();
      await settled();
    }
    this.time = end;
  }

  /** Takes the oldest request that the hub has not seen; it must be of this operation. */
  asked(op) {
    const request = this.socket.lines.shift();
    assert.equal(request?.op, op, JSON.stringify(request));
    return request;
  }

  async receive(...lines) {
    this.socket.onmessage({ data: lines.map((line) => JSON.stringify(line)).join("\n") });
    await settled();
  }

  async answer(request, ok) {
    await this.receive({ re: request.id, ok });
  }

  async refuse(request, code, retry_ms) {
    await this.receive({ re: request.id, err: { code, msg: code, retry_ms } });
  }

  /** The connection is there and the hub knows who it is. */
  async open() {
    this.socket.onopen();
    await this.answer(this.asked("hello"), { v: 1, epoch: EPOCH });
  }

  async close() {
    this.socket.onclose();
    await settled();
  }

  /** Offsets of the messages that were told, and forgets all that was told. */
  heard() {
    const told = this.told.filter(([name]) => name === "messages");
    this.told = [];
    return told.flatMap(([, , messages]) => messages.map((message) => message.offset));
  }
}

const settled = () => new Promise((resolve) => setImmediate(resolve));

function message(offset, more = {}) {
  return { offset, id: `id-${offset}`, from: "bob", event: "message", data: `text ${offset}`, time: 1, ...more };
}

function push(offset, more) {
  return { op: "msg", channel: "room", ...message(offset, more) };
}

function page(offsets, last, more = {}) {
  const messages = offsets.map((offset) => message(offset));
  return { channel: "room", epoch: EPOCH, last, messages, more: false, gap: false, users: ["ann"], count: 1, ...more };
}

/** A client that is in the room and has heard up to this offset. */
async function inRoom(last = 2, options) {
  const world = new World();
  const client = world.client(options);
  client.join("room");
  client.start();
  await world.open();
  const offsets = Array.from({ length: last }, (_, index) => index + 1);
  await world.answer(world.asked("sub"), page(offsets, last));
  world.told = [];
  return { world, client };
}

test("messages are told by offset, each once, whatever order they come in", async () => {
  const { world } = await inRoom(2);
  await world.receive(push(4));
  assert.deepEqual(world.heard(), []);
  await world.receive(push(3), push(4), push(3));
  assert.deepEqual(world.heard(), [3, 4]);
  await world.receive(push(1), push(4));
  assert.deepEqual(world.heard(), []);
  await world.pass(5_000);
  assert.deepEqual(world.socket.lines, [], "nothing is missing, so nothing is asked for");
});

test("a hole that stays is asked for", async () => {
  const { world } = await inRoom(2);
  await world.receive(push(5));
  await world.pass(299);
  assert.deepEqual(world.socket.lines, []);
  await world.pass(1);
  const asked = world.asked("history");
  assert.deepEqual(asked.since, { epoch: EPOCH, offset: 2 });
  await world.receive(push(6));
  await world.answer(asked, page([3, 4, 5], 5));
  assert.deepEqual(world.heard(), [3, 4, 5, 6]);
});

test("what is pushed before the subscription is answered is not lost", async () => {
  const world = new World();
  const client = world.client();
  client.join("room");
  client.start();
  await world.open();
  const sub = world.asked("sub");
  assert.equal(sub.since, undefined);
  await world.receive(push(9), push(10));
  await world.answer(sub, page([8, 9], 9, { more: true }));
  assert.deepEqual(world.heard(), [8, 9, 10]);
  assert.ok(client.hasOlder("room"));
});

test("after a reconnect the history continues where it was, in as many pages as it takes", async () => {
  const { world } = await inRoom(2);
  await world.close();
  await world.pass(500);
  await world.open();
  const sub = world.asked("sub");
  assert.deepEqual(sub.since, { epoch: EPOCH, offset: 2 });
  await world.receive(push(7));
  await world.answer(sub, page([3, 4], 6, { more: true }));
  const next = world.asked("history");
  assert.deepEqual(next.since, { epoch: EPOCH, offset: 4 });
  await world.answer(next, page([5, 6], 6));
  assert.deepEqual(world.heard(), [3, 4, 5, 6, 7]);
});

test("a gap begins anew and is told", async () => {
  const { world } = await inRoom(2);
  await world.close();
  await world.pass(500);
  await world.open();
  const epoch = "01BX5ZZKBKACTAV9WEVGEMMVRZ";
  await world.answer(world.asked("sub"), page([50, 51], 51, { gap: true, epoch, more: true }));
  assert.deepEqual(
    world.told.filter(([name]) => name === "reset" || name === "messages").map(([name]) => name),
    ["reset", "messages"],
  );
  await world.receive(push(52));
  assert.deepEqual(world.heard(), [50, 51, 52]);
});

test("older messages come in pages", async () => {
  const world = new World();
  const client = world.client();
  client.join("room");
  client.start();
  await world.open();
  await world.answer(world.asked("sub"), page([5, 6], 6, { more: true }));
  client.loadOlder("room", 2);
  client.loadOlder("room", 2);
  const asked = world.asked("history");
  assert.deepEqual([asked.before, asked.limit, world.socket.lines.length], [5, 2, 0]);
  await world.answer(asked, page([3, 4], 6, { more: true }));
  client.loadOlder("room", 2);
  const last = world.asked("history");
  assert.equal(last.before, 3);
  await world.answer(last, page([1, 2], 6));
  assert.equal(client.hasOlder("room"), false);
  const older = world.told.filter(([name]) => name === "older");
  assert.deepEqual(older.map(([, , messages]) => messages.map(({ offset }) => offset)), [[3, 4], [1, 2]]);
});

test("a message is sent again with its key until it is stored", async () => {
  const { world, client } = await inRoom(2);
  const key = client.say("room", "hi");
  assert.equal(world.asked("pub").key, key);
  await world.close();
  const second = client.say("room", "there");
  await world.pass(500);
  await world.open();
  world.asked("sub");
  const again = world.asked("pub");
  assert.deepEqual([again.key, again.data], [key, "hi"]);
  assert.equal(world.asked("pub").key, second);
  await world.answer(again, { channel: "room", offset: 3, id: "id-3", time: 1 });
  assert.deepEqual(client.unsent.map((message) => message.key), [second]);
});

test("the push of our own message counts as its reply", async () => {
  const { world, client } = await inRoom(2);
  const key = client.say("room", "hi");
  const publish = world.asked("pub");
  await world.receive(push(3, { from: "ann", key }));
  assert.deepEqual(client.unsent, []);
  await world.answer(publish, { channel: "room", offset: 3, id: "id-3", time: 1 });
  const sent = world.told.filter(([name]) => name === "sent");
  assert.equal(sent.length, 1);
});

test("a busy hub is asked again, a refusal is final", async () => {
  const { world, client } = await inRoom(2);
  const busy = client.say("room", "hi");
  const wrong = client.say("room", "no");
  await world.refuse(world.asked("pub"), "busy", 500);
  await world.refuse(world.asked("pub"), "too_long");
  assert.deepEqual(world.told.find(([name]) => name === "refused").slice(1, 3), ["room", wrong]);
  await world.pass(499);
  assert.deepEqual(world.socket.lines, []);
  await world.pass(1);
  assert.equal(world.asked("pub").key, busy);
});

test("what an earlier page did not send is sent", async () => {
  const outbox = [{ key: "old", channel: "room", data: "hi" }];
  const world = new World();
  const client = world.client({ outbox });
  client.start();
  await world.open();
  assert.equal(world.asked("pub").key, "old");
});

test("attempts come less and less often, and start over after a success", async () => {
  const { world } = await inRoom();
  const waits = [];
  for (let attempt = 0; attempt < 8; attempt += 1) {
    await world.close();
    const [, wait] = world.told.filter(([name]) => name === "state").at(-1).slice(1);
    waits.push(wait);
    await world.pass(wait);
  }
  assert.deepEqual(waits, [250, 750, 1500, 3000, 6000, 11250, 11250, 11250]);
  await world.open();
  await world.close();
  assert.equal(world.told.at(-1)[2], 250);
});

test("a hub that went silent is given up", async () => {
  const { world } = await inRoom();
  await world.pass(25_000);
  const ping = world.asked("ping");
  await world.answer(ping, { time: 1 });
  await world.pass(25_000);
  world.asked("ping");
  await world.pass(10_000);
  assert.equal(world.told.filter(([name]) => name === "state").at(-1)[1], "waiting");
  // An attempt that gets no answer ends too.
  await world.pass(250);
  assert.equal(world.sockets.length, 2);
  await world.pass(10_000);
  assert.equal(world.told.filter(([name]) => name === "state").at(-1)[1], "waiting");
});

test("joins and leaves keep the list of who is there", async () => {
  const { world } = await inRoom();
  const seen = () => world.told.filter(([name]) => name === "present").at(-1)[2];
  await world.receive({ op: "join", channel: "room", user: "bob" });
  await world.receive({ op: "join", channel: "room", user: "bob" });
  assert.deepEqual(seen(), ["ann", "bob"]);
  await world.receive({ op: "leave", channel: "room", user: "ann" });
  assert.deepEqual(seen(), ["bob"]);
});

test("a user that the hub does not take is told once", async () => {
  const world = new World();
  world.client().start();
  world.socket.onopen();
  await world.refuse(world.asked("hello"), "bad_request");
  assert.deepEqual(world.told.at(-1), ["state", "closed", "bad_request"]);
  assert.equal(world.timers.size, 0);
});
