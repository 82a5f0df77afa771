// Pieces of the page. All text goes in as text: nothing that people write is ever read as HTML.

/** An element with attributes and children (elements or text). */
export function element(name, attributes = {}, ...children) {
  const made = document.createElement(name);
  for (const [attribute, value] of Object.entries(attributes)) made.setAttribute(attribute, value);
  made.append(...children.map((child) => (child instanceof Node ? child : String(child))));
  return made;
}

/** A coloured circle with the first letter of a name. */
export function avatar(name) {
  const [first] = name;
  const made = element("span", { class: "avatar", "aria-hidden": "true" }, first);
  let hash = 0;
  for (const char of name) hash = (hash * 31 + char.codePointAt(0)) % 360;
  made.style.setProperty("--hue", hash);
  return made;
}

/** A line across the messages with a text in it. */
export function rule(text, kind = "day") {
  return element("li", { class: `rule ${kind}` }, text);
}

/** A message. */
export function messageItem(message, me) {
  const from = message.from ?? (message.event === "message" ? "Announcement" : message.event);
  const kind = message.from === undefined ? "app" : message.from === me ? "own" : "other";
  const date = new Date(message.time);
  const time = element("time", { datetime: date.toISOString(), title: date.toLocaleString() });
  time.textContent = date.toLocaleTimeString([], { hour: "2-digit", minute: "2-digit" });
  const item = element("li", { class: `message ${kind}` });
  item.append(
    avatar(from),
    element("div", { class: "by" }, element("b", {}, from), time),
    element("div", { class: "text" }, shownText(message.data)),
  );
  if (message.offset !== undefined) item.dataset.offset = message.offset;
  return item;
}

/** Whether two messages stand under one name. */
export function sameBlock(before, message) {
  return before.from === message.from && message.time - before.time < 5 * 60_000;
}

/** The text of a message: its data if that is text, its `text`, or all of it as JSON. */
export function shownText(data) {
  if (typeof data === "string") return data;
  if (typeof data?.text === "string") return data.text;
  return JSON.stringify(data, null, 1);
}
