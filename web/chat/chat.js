// The chat page: what is shown. What is said and known is client.js's business.

import { Client } from "./client.js";
import { forget, remember, remembered } from "./memory.js";
import { avatar, element, messageItem, rule, sameBlock, shownText } from "./view.js";

const $ = (id) => document.getElementById(id);
const log = $("log");
const scroll = $("scroll");

/** Name → what is shown of a room. */
const rooms = new Map();
let client = null;
let me = null;
let active = null;
let everOpen = false;

class Room {
  /** Messages by ascending offset, without gaps. */
  messages = [];
  /** Said by us and not stored yet: key → its item in `#pending`. */
  pending = new Map();
  users = [];
  /** The history's newest part is here: what comes from now on is new. */
  loaded = false;
  unread = 0;
  /** Offset of the first message that came while nobody looked. */
  firstUnread = null;
  /** Some messages between those shown first and the ones before are lost. */
  gap = false;
  draft = "";
}

// Coming and going.

function enter(user, names, room) {
  me = user;
  remember({ user, rooms: names, room });
  $("welcome").hidden = true;
  $("chat").hidden = false;
  $("me").textContent = user;
  const url = new URL("v1/socket", location.href);
  url.protocol = location.protocol === "https:" ? "wss:" : "ws:";
  const { device, outbox } = remembered();
  client = new Client({ url: url.href, user, device, outbox, on });
  for (const { key, channel, data } of outbox) {
    if (!names.includes(channel)) names.push(channel);
    roomOf(channel).pending.set(key, pendingItem(shownText(data)));
  }
  for (const name of names) join(name);
  show(names.includes(room) ? room : names[0]);
  client.start();
}

function join(name) {
  roomOf(name);
  client.join(name);
}

function roomOf(name) {
  if (!rooms.has(name)) rooms.set(name, new Room());
  return rooms.get(name);
}

function leave(name) {
  client.leave(name);
  rooms.delete(name);
  if (rooms.size === 0) join("lobby");
  show(rooms.keys().next().value);
}

function welcome(user, problem) {
  $("welcome").hidden = false;
  $("chat").hidden = true;
  $("enter-name").value = user ?? "";
  $("enter-error").textContent = problem ?? "";
  $("enter-name").focus();
}

/** A name as the hub wants it, or null with the reason in `error`. */
function checkedName(input, error) {
  const name = input.value.trim().normalize("NFC");
  const long = new TextEncoder().encode(name).length > input.maxLength;
  const good = /^[\p{Alphabetic}\p{N}_.@-]+$/u.test(name) && !long;
  error.textContent = good ? "" : long ? "That is too long." : "Letters, digits and - _ . @ only, please.";
  input.setAttribute("aria-invalid", String(!good));
  return good ? name : null;
}

// What the client tells.

const on = {
  state(state, detail) {
    const status = $("status");
    status.classList.toggle("away", state === "connecting" || state === "waiting");
    status.classList.toggle("ended", state === "closed");
    everOpen ||= state === "open";
    const connecting = everOpen ? "Reconnecting…" : "Connecting…";
    const texts = { connecting, open: "Connected", waiting: "Reconnecting…" };
    $("status-text").textContent = texts[state] ?? `Disconnected: ${detail}`;
    $("retry").hidden = state !== "waiting";
    document.documentElement.dataset.state = state;
  },

  messages(name, messages) {
    const room = roomOf(name);
    const atEnd = isAtEnd();
    for (const message of messages) {
      room.messages.push(message);
      if (message.from === me) settle(room, message.key);
      else if (room.loaded && (name !== active || document.hidden)) {
        room.unread += 1;
        room.firstUnread ??= message.offset;
      }
    }
    if (room.messages.length > KEPT && (name !== active || atEnd)) {
      room.messages.splice(0, room.messages.length - KEPT);
      if (name === active) render();
    }
    if (name === active) {
      messages.forEach((message) => appendTo(log, room, message));
      showEdges(room);
      if (atEnd || messages.at(-1).from === me) toEnd();
      else $("to-end").hidden = false;
    }
    showRooms();
  },

  older(name, messages) {
    const room = roomOf(name);
    room.messages.unshift(...messages);
    if (name === active) keepPlace(render);
  },

  reset(name) {
    const room = roomOf(name);
    room.messages = [];
    room.gap = true;
    if (name === active) render();
  },

  sent() {
    saveOutbox();
  },

  refused(name, key, error) {
    const item = roomOf(name).pending.get(key);
    saveOutbox();
    if (!item) return;
    item.classList.replace("waiting", "failed");
    const remove = element("button", { class: "link", type: "button" }, "Remove");
    remove.addEventListener("click", () => {
      roomOf(name).pending.delete(key);
      item.remove();
    });
    item.querySelector(".note").replaceChildren(`Not sent: ${error.msg} `, remove);
  },

  present(name, users) {
    const room = roomOf(name);
    room.users = users;
    room.loaded = true;
    if (name === active) showPeople();
  },

  direct(message) {
    const from = message.from ? `${message.from} to you: ` : "For you: ";
    notice(from + shownText(message.data));
  },

  trouble(name, error) {
    notice(`${name}: ${error.msg}`);
  },
};

// What is shown.

function show(name) {
  const before = rooms.get(active);
  if (before) before.draft = $("text").value;
  active = name;
  const room = rooms.get(name);
  $("room-name").textContent = name;
  $("text").value = room.draft;
  $("text").placeholder = `Message ${name}`;
  room.unread = 0;
  render();
  room.firstUnread = null;
  showRooms();
  showPeople();
  const mark = log.querySelector(".new");
  if (mark) mark.scrollIntoView({ block: "center" });
  else toEnd();
}

function render() {
  const room = rooms.get(active);
  log.replaceChildren();
  room.messages.forEach((message) => appendTo(log, room, message));
  $("pending").replaceChildren(...room.pending.values());
  showEdges(room);
}

function appendTo(list, room, message) {
  const before = list.lastElementChild?.message;
  if (!before && room.gap) list.append(rule("Some messages from before are no longer kept", "gap"));
  if (message.offset === room.firstUnread) list.append(rule("New", "new"));
  const day = new Date(message.time).toDateString();
  if (!before || new Date(before.time).toDateString() !== day) {
    list.append(rule(new Date(message.time).toLocaleDateString([], { dateStyle: "full" })));
  }
  const item = messageItem(message, me);
  const follows = list.lastElementChild?.message && sameBlock(before, message);
  item.classList.toggle("follow", Boolean(follows));
  item.message = message;
  list.append(item);
}

function showEdges(room) {
  $("older").hidden = !client.hasOlder(active);
  $("empty").hidden = room.messages.length + room.pending.size > 0;
}

function showRooms() {
  const items = Array.from(rooms, ([name, room]) => {
    const button = element("button", { type: "button" }, element("span", {}, name));
    if (name === active) button.setAttribute("aria-current", "true");
    if (room.unread > 0) {
      const unread = element("span", { class: "unread" }, room.unread > 99 ? "99+" : room.unread);
      unread.setAttribute("aria-label", `${room.unread} unread`);
      button.append(unread);
    }
    button.addEventListener("click", () => {
      show(name);
      $("text").focus();
    });
    return element("li", {}, button);
  });
  const focused = $("rooms").contains(document.activeElement);
  $("rooms").replaceChildren(...items);
  if (focused) $("rooms").querySelector("[aria-current]")?.focus();
  let unread = 0;
  for (const room of rooms.values()) unread += room.unread;
  document.title = unread > 0 ? `(${unread}) Gannet` : `${active} – Gannet`;
  remember({ rooms: Array.from(rooms.keys()), room: active });
}

function showPeople() {
  const { users } = rooms.get(active);
  $("count").textContent = users.length;
  const people = users.map((user) => {
    return element("li", {}, avatar(user), element("span", {}, user === me ? `${user} (you)` : user));
  });
  $("people").replaceChildren(...people);
}

function notice(text) {
  const close = element("button", { class: "link", type: "button" }, "Dismiss");
  const item = element("div", { class: "notice" }, element("span", {}, text), close);
  close.addEventListener("click", () => item.remove());
  $("notices").append(item);
}

function isAtEnd() {
  return scroll.scrollHeight - scroll.scrollTop - scroll.clientHeight < 80;
}

function toEnd() {
  scroll.scrollTop = scroll.scrollHeight;
  $("to-end").hidden = true;
}

/** Changes what is shown above without moving what one reads. */
function keepPlace(change) {
  const fromEnd = scroll.scrollHeight - scroll.scrollTop;
  change();
  scroll.scrollTop = scroll.scrollHeight - fromEnd;
}

// What we say.

function say(text) {
  const room = rooms.get(active);
  const key = client.say(active, { text });
  room.pending.set(key, pendingItem(text));
  $("pending").append(room.pending.get(key));
  showEdges(room);
  saveOutbox();
  toEnd();
}

function pendingItem(text) {
  const item = messageItem({ from: me, data: { text }, time: Date.now() }, me);
  item.classList.add("waiting");
  item.append(element("span", { class: "note" }, "Sending…"));
  return item;
}

/** A message of ours came back: it is shown in its place now. */
function settle(room, key) {
  room.pending.get(key)?.remove();
  room.pending.delete(key);
}

function saveOutbox() {
  remember({ outbox: client.unsent });
}

// What the user does.

$("enter").addEventListener("submit", (event) => {
  event.preventDefault();
  const user = checkedName($("enter-name"), $("enter-error"));
  const room = user && checkedName($("enter-room"), $("enter-error"));
  if (!room) return;
  const { rooms: known } = remembered();
  enter(user, known.includes(room) ? known : [...known, room], room);
  $("text").focus();
});

$("add-room").addEventListener("submit", (event) => {
  event.preventDefault();
  const name = checkedName($("new-room"), $("room-error"));
  if (!name) return;
  $("new-room").value = "";
  join(name);
  show(name);
  $("text").focus();
});

$("compose").addEventListener("submit", (event) => {
  event.preventDefault();
  const text = $("text").value.trim();
  if (text === "") return;
  $("text").value = "";
  say(text);
});

$("text").addEventListener("keydown", (event) => {
  if (event.key === "Enter" && !event.shiftKey && !event.isComposing) {
    event.preventDefault();
    $("compose").requestSubmit();
  }
});

$("leave").addEventListener("click", () => leave(active));
$("older").addEventListener("click", () => client.loadOlder(active));
$("to-end").addEventListener("click", toEnd);
$("retry").addEventListener("click", () => client.wake());
$("sign-out").addEventListener("click", () => {
  forget();
  location.reload();
});

scroll.addEventListener("scroll", () => {
  if (scroll.scrollTop < 120 && client.hasOlder(active)) client.loadOlder(active);
  if (isAtEnd()) $("to-end").hidden = true;
});

addEventListener("online", () => client?.wake());
document.addEventListener("visibilitychange", () => {
  if (document.hidden || !client) return;
  client.wake();
  const room = rooms.get(active);
  if (room.unread === 0) return;
  room.unread = 0;
  keepPlace(render);
  room.firstUnread = null;
  showRooms();
});

/** Messages shown of a room; older ones are read again when one scrolls up. */
const KEPT = 500;

const { user, rooms: names, room } = remembered();
if (user) enter(user, names.length > 0 ? names : ["lobby"], room);
else welcome();
