// The client side of docs/protocol.md: connects, connects again, and keeps channels whole and in
// order. No DOM; what it needs of the world (WebSocket, timers, randomness) can be replaced, so that
// tests run it without any.

/** The browser's own WebSocket, timers and randomness. */
export const browser = {
  connect: (url) => new WebSocket(url),
  setTimeout: (act, ms) => setTimeout(act, ms),
  clearTimeout: (timer) => clearTimeout(timer),
  random: () => Math.random(),
  now: () => Date.now(),
  newKey: () => {
    // crypto.randomUUID is missing on pages that came over plain HTTP from another machine.
    const bytes = crypto.getRandomValues(new Uint8Array(16));
    return Array.from(bytes, (byte) => byte.toString(16).padStart(2, "0")).join("");
  },
};

/**
 * A connection to the hub that mends itself.
 *
 * Tells what happens by calling `on`:
 * - `state(state, detail)`: "connecting", "open", "waiting" (then `detail` is the ms until the next
 *   attempt) or "closed" (for good; `detail` says why);
 * - `messages(channel, messages)`: new ones at the end, in order, each once;
 * - `older(channel, messages)`: older ones in front, as asked for with `loadOlder`;
 * - `reset(channel)`: forget what you have, what comes next does not continue it;
 * - `sent(channel, message)`: a message of ours is stored; it also comes in `messages`;
 * - `refused(channel, key, error)`: a message of ours is not stored, and never will be;
 * - `present(channel, users)`: who is there;
 * - `direct(message)`: a message to the user;
 * - `trouble(channel, error)`: a request failed that is not tried again.
 */
export class Client {
  #url;
  #on;
  #world;
  #user;
  #device;
  #socket = null;
  #ready = false;
  #ended = false;
  #attempt = 0;
  #nextId = 1;
  #requests = new Map();
  #channels = new Map();
  /** Messages without a reply yet, oldest first: key → {channel, event, data, sent}. */
  #outbox = new Map();
  #reconnect = null;
  #heartbeat = null;
  #flush = null;

  constructor({ url, user, device, on, world = browser, outbox = [] }) {
    this.#url = url;
    this.#user = user;
    this.#device = device;
    this.#on = on;
    this.#world = world;
    for (const { key, channel, data, event } of outbox) {
      this.#outbox.set(key, { channel, data, event, sent: false });
    }
  }

  /** Begins; to be called once. */
  start() {
    this.#connect();
  }

  /** Ends for good. */
  stop(why = "stopped") {
    this.#ended = true;
    this.#drop();
    this.#world.clearTimeout(this.#reconnect);
    this.#tell("state", "closed", why);
  }

  /** Tries again at once, if it is waiting to (the network is back, the page is shown again). */
  wake() {
    if (this.#reconnect !== null && !this.#ended) {
      this.#world.clearTimeout(this.#reconnect);
      this.#connect();
    } else if (this.#ready) {
      this.#ping();
    }
  }

  join(name) {
    if (this.#channels.has(name)) return;
    const channel = new Channel();
    this.#channels.set(name, channel);
    if (this.#ready) this.#subscribe(name, channel);
  }

  leave(name) {
    const channel = this.#channels.get(name);
    if (!channel) return;
    this.#world.clearTimeout(channel.timer);
    this.#channels.delete(name);
    if (this.#ready) this.#ask({ op: "unsub", channel: name });
  }

  /** Says something. It is sent as soon and as often as it takes to be stored once. */
  say(channel, data, event) {
    const key = this.#world.newKey();
    this.#outbox.set(key, { channel, data, event, sent: false });
    if (this.#ready) this.#send();
    return key;
  }

  /** What was said and is not known to be stored, oldest first. */
  get unsent() {
    return Array.from(this.#outbox, ([key, { channel, data, event }]) => {
      return { key, channel, data, event };
    });
  }

  /** Whether there are messages in front of the first that was told. */
  hasOlder(name) {
    return this.#channels.get(name)?.older ?? false;
  }

  /** Reads a page of older messages; the answer comes as `older`. */
  async loadOlder(name, limit = 50) {
    const channel = this.#channels.get(name);
    if (!this.#ready || !channel?.older || channel.loading) return;
    channel.loading = true;
    const history = { op: "history", channel: name, before: channel.first, limit };
    const reply = await this.#ask(history);
    channel.loading = false;
    if (reply.err || this.#channels.get(name) !== channel || reply.ok.epoch !== channel.epoch) return;
    channel.older = reply.ok.more;
    if (reply.ok.messages.length > 0) channel.first = reply.ok.messages[0].offset;
    this.#tell("older", name, reply.ok.messages);
  }

  // The connection.

  #connect() {
    this.#reconnect = null;
    this.#tell("state", "connecting");
    const socket = this.#world.connect(this.#url);
    this.#socket = socket;
    socket.onopen = () => this.#hello();
    socket.onmessage = (event) => {
      if (socket === this.#socket) this.#receive(event.data);
    };
    socket.onclose = () => {
      if (socket === this.#socket) this.#lost();
    };
    // A close follows, which says all that can be known.
    socket.onerror = () => {};
    this.#watch(CONNECT_MS);
  }

  async #hello() {
    const reply = await this.#ask({ op: "hello", user: this.#user, device: this.#device });
    if (reply.lost) return;
    if (reply.err) {
      if (reply.err.retry_ms === undefined) this.stop(reply.err.msg);
      else this.#lost();
      return;
    }
    this.#ready = true;
    this.#attempt = 0;
    this.#watch(QUIET_MS);
    this.#tell("state", "open");
    for (const [name, channel] of this.#channels) this.#subscribe(name, channel);
    this.#send();
  }

  #lost() {
    this.#drop();
    if (this.#ended) return;
    const limit = Math.min(RETRY_MAX_MS, RETRY_MS * 2 ** this.#attempt);
    // At once the first time; then anywhere between half the limit and the limit, so that those who
    // lost their server together do not come back together.
    const wait = this.#attempt === 0 ? limit * this.#world.random() : (limit / 2) * (1 + this.#world.random());
    this.#attempt += 1;
    this.#reconnect = this.#world.setTimeout(() => this.#connect(), wait);
    this.#tell("state", "waiting", wait);
  }

  /** Forgets the connection; what was asked on it is not answered any more. */
  #drop() {
    const socket = this.#socket;
    this.#socket = null;
    this.#ready = false;
    this.#world.clearTimeout(this.#heartbeat);
    this.#world.clearTimeout(this.#flush);
    this.#flush = null;
    for (const message of this.#outbox.values()) message.sent = false;
    for (const channel of this.#channels.values()) {
      channel.live = false;
      channel.loading = false;
      channel.later.clear();
      this.#world.clearTimeout(channel.timer);
      channel.timer = null;
    }
    const requests = Array.from(this.#requests.values());
    this.#requests.clear();
    for (const answer of requests) answer({ err: { code: "lost" }, lost: true });
    socket?.close();
  }

  /** Something came: the connection lives. If nothing does for `ms`, ask; then give it up. */
  #watch(ms) {
    this.#world.clearTimeout(this.#heartbeat);
    this.#heartbeat = this.#world.setTimeout(() => {
      if (this.#ready) this.#ping();
      else this.#lost();
    }, ms);
  }

  #ping() {
    this.#world.clearTimeout(this.#heartbeat);
    this.#heartbeat = this.#world.setTimeout(() => this.#lost(), ANSWER_MS);
    this.#ask({ op: "ping" });
  }

  /** Sends a request; the promise gets the reply, or `{err, lost: true}` if there will be none. */
  #ask(request) {
    const id = this.#nextId++;
    return new Promise((answer) => {
      this.#requests.set(id, answer);
      this.#socket?.send(JSON.stringify({ id, ...request }));
    });
  }

  #receive(frame) {
    if (this.#ready) this.#watch(QUIET_MS);
    for (const line of frame.split("\n")) {
      if (line.trim() === "") continue;
      const message = JSON.parse(line);
      if ("re" in message) {
        const answer = this.#requests.get(message.re);
        this.#requests.delete(message.re);
        answer?.(message);
      } else {
        this.#pushed(message);
      }
    }
  }

  #pushed(push) {
    if (push.op === "msg" && push.channel === undefined) {
      this.#tell("direct", push);
      return;
    }
    const channel = this.#channels.get(push.channel);
    if (!channel) return;
    if (push.op === "msg") {
      channel.later.set(push.offset, push);
      if (channel.live) this.#advance(push.channel, channel);
    } else if (push.op === "join" || push.op === "leave") {
      if (push.op === "join") channel.users.add(push.user);
      else channel.users.delete(push.user);
      this.#tell("present", push.channel, Array.from(channel.users).sort());
    }
  }

  // Channels.

  async #subscribe(name, channel) {
    // What is pushed from now on waits in `later` until the reply says where it belongs.
    const since = channel.epoch ? { epoch: channel.epoch, offset: channel.last } : undefined;
    channel.fetching = true;
    const reply = await this.#ask({ op: "sub", channel: name, since });
    if (reply.lost || this.#channels.get(name) !== channel) return;
    channel.fetching = false;
    if (reply.err) {
      this.#retry(name, channel, reply.err, () => this.#subscribe(name, channel));
      return;
    }
    this.#take(name, channel, reply.ok, since === undefined);
    channel.live = true;
    channel.users = new Set(reply.ok.users);
    this.#tell("present", name, Array.from(channel.users).sort());
    if (reply.ok.more && since && !reply.ok.gap) this.#fetch(name, channel);
    else this.#advance(name, channel);
  }

  /** Takes a page that continues what is there, or, where it does not, begins anew with it. */
  #take(name, channel, page, first) {
    if (first || page.gap) {
      if (page.gap) {
        channel.later.forEach((_, offset) => {
          if (offset <= page.last) channel.later.delete(offset);
        });
      }
      if (channel.epoch) this.#tell("reset", name);
      channel.epoch = page.epoch;
      channel.older = page.more;
      channel.first = page.messages[0]?.offset ?? page.last + 1;
      channel.last = page.messages.length > 0 ? channel.first - 1 : page.last;
    }
    for (const message of page.messages) channel.later.set(message.offset, message);
    this.#deliver(name, channel);
  }

  /** Tells what continues what was told, and sees to what is missing. */
  #advance(name, channel) {
    this.#deliver(name, channel);
    if (channel.later.size === 0) {
      this.#world.clearTimeout(channel.timer);
      channel.timer = null;
    } else if (channel.timer === null && !channel.fetching) {
      // A hole. What fills it may be on its way by another process; if not, ask for it.
      channel.timer = this.#world.setTimeout(() => {
        channel.timer = null;
        this.#fetch(name, channel);
      }, HOLE_MS);
    }
  }

  #deliver(name, channel) {
    const messages = [];
    for (const offset of channel.later.keys()) {
      if (offset <= channel.last) channel.later.delete(offset);
    }
    for (let next; (next = channel.later.get(channel.last + 1)); ) {
      channel.later.delete(next.offset);
      channel.last = next.offset;
      messages.push(next);
    }
    if (messages.length === 0) return;
    this.#tell("messages", name, messages);
    for (const message of messages) {
      // Ours came back before its reply, or in place of it.
      if (message.key && message.from === this.#user) this.#stored(name, message.key, message);
    }
  }

  async #fetch(name, channel) {
    if (channel.fetching || !this.#ready) return;
    channel.fetching = true;
    const since = { epoch: channel.epoch, offset: channel.last };
    const reply = await this.#ask({ op: "history", channel: name, since });
    channel.fetching = false;
    if (reply.lost || this.#channels.get(name) !== channel) return;
    if (reply.err) {
      this.#retry(name, channel, reply.err, () => this.#fetch(name, channel));
      return;
    }
    this.#take(name, channel, reply.ok, false);
    if (reply.ok.more && !reply.ok.gap) this.#fetch(name, channel);
    else this.#advance(name, channel);
  }

  #retry(name, channel, error, act) {
    if (error.retry_ms === undefined) {
      this.#tell("trouble", name, error);
      return;
    }
    this.#world.clearTimeout(channel.timer);
    channel.timer = this.#world.setTimeout(() => {
      channel.timer = null;
      act();
    }, error.retry_ms);
  }

  // Messages of our own.

  /** Sends what was not sent on this connection, in order, as many at once as the hub takes. */
  #send() {
    const lines = [];
    for (const [key, message] of this.#outbox) {
      if (message.sent) continue;
      if (lines.length === BATCH) {
        // The rest after these; a reply calls again.
        break;
      }
      message.sent = true;
      const id = this.#nextId++;
      const { channel, data, event } = message;
      lines.push(JSON.stringify({ id, op: "pub", channel, data, event, key }));
      this.#requests.set(id, (reply) => this.#replied(channel, key, reply));
    }
    if (lines.length > 0) this.#socket.send(lines.join("\n"));
  }

  #replied(channel, key, reply) {
    if (reply.lost) return;
    const message = this.#outbox.get(key);
    if (reply.err && message) {
      if (reply.err.retry_ms === undefined) {
        this.#outbox.delete(key);
        this.#tell("refused", channel, key, reply.err);
      } else if (this.#flush === null) {
        // All that the hub has not taken go again, in their order.
        this.#flush = this.#world.setTimeout(() => {
          this.#flush = null;
          for (const waiting of this.#outbox.values()) waiting.sent = false;
          this.#send();
        }, reply.err.retry_ms);
      }
      return;
    }
    if (reply.ok) this.#stored(channel, key, reply.ok);
    if (this.#flush === null) this.#send();
  }

  #stored(channel, key, { id, offset, time }) {
    if (this.#outbox.delete(key)) this.#tell("sent", channel, { key, id, offset, time });
  }

  #tell(what, ...details) {
    this.#on[what]?.(...details);
  }
}

/** What is known of a channel. */
class Channel {
  /** Which history; nothing is known before the first reply. */
  epoch = null;
  /** Offsets of the first and last message that were told. */
  first = 1;
  last = 0;
  /** There are messages before `first`. */
  older = false;
  /** Messages that are not told yet, by offset: what is before them is missing. */
  later = new Map();
  users = new Set();
  /** The subscription is in force on the present connection. */
  live = false;
  fetching = false;
  loading = false;
  timer = null;
}

/** First and longest time between two attempts to connect. */
const RETRY_MS = 500;
const RETRY_MAX_MS = 15_000;
/** How long an attempt may take until `hello` is answered. */
const CONNECT_MS = 10_000;
/** After how much silence to ask whether the hub is there, and how long it may take to answer. */
const QUIET_MS = 25_000;
const ANSWER_MS = 10_000;
/** How long a missing message may be on its way before it is asked for. */
const HOLE_MS = 300;
/** Messages sent at once. */
const BATCH = 50;
