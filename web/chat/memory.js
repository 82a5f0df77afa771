// What the page knows after a reload: the name and the rooms in every tab, the device and what was
// not sent yet in this tab only (two tabs are two devices).

import { browser } from "./client.js";

const SHARED = "gannet";
const OWN = "gannet.tab";

/** All that is remembered, with defaults for what is not. */
export function remembered() {
  const shared = read(localStorage, SHARED);
  const own = read(sessionStorage, OWN);
  if (!own.device) {
    own.device = browser.newKey();
    write(sessionStorage, OWN, own);
  }
  return { user: null, rooms: [], room: null, outbox: [], ...shared, ...own };
}

/** Remembers these, and keeps the rest. */
export function remember({ outbox, ...shared }) {
  if (outbox) write(sessionStorage, OWN, { ...read(sessionStorage, OWN), outbox });
  else write(localStorage, SHARED, { ...read(localStorage, SHARED), ...shared });
}

/** Forgets who this is. */
export function forget() {
  localStorage.removeItem(SHARED);
  sessionStorage.removeItem(OWN);
}

function read(storage, name) {
  try {
    return JSON.parse(storage.getItem(name)) ?? {};
  } catch {
    return {};
  }
}

function write(storage, name, value) {
  try {
    storage.setItem(name, JSON.stringify(value));
  } catch {
    // Full or forbidden: then a reload forgets, and nothing else breaks.
  }
}
