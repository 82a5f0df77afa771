// A browser speaks HTTP/2 with the real program: pages, fetches, and the WebSocket of the chat, which
// is a stream of the same connection (RFC 8441). Needs a built program and Chromium.

import assert from "node:assert/strict";
import { after, before, test } from "node:test";

import { chromium } from "playwright-core";

import { CHROMIUM } from "./chromium.mjs";
import { Server } from "./server.mjs";

let server;
let browser;

before(async () => {
  server = await Server.startSecret();
  browser = await chromium.launch(CHROMIUM);
});

after(async () => {
  await browser?.close();
  await server?.remove();
});

test("page, fetches and WebSocket go over one connection of HTTP/2", async () => {
  const context = await browser.newContext({ ignoreHTTPSErrors: true });
  const page = await context.newPage();
  const troubles = [];
  page.on("pageerror", (error) => troubles.push(String(error)));
  await page.goto(server.url);
  const statuses = await page.evaluate(() => {
    const ask = async (n) => {
      const response = await fetch(`/?again=${n}`);
      await response.text();
      return response.status;
    };
    return Promise.all(Array.from({ length: 30 }, (_, n) => ask(n)));
  });
  assert.deepEqual([...new Set(statuses)], [200]);
  // They are noted a little later.
  const entries = await page.waitForFunction(() => {
    const fetches = performance.getEntriesByType("resource").filter((it) => it.name.includes("again="));
    const all = [...performance.getEntriesByType("navigation"), ...fetches];
    return all.length === 31 && all.map((entry) => entry.nextHopProtocol);
  });
  const protocols = await entries.jsonValue();
  assert.deepEqual([...new Set(protocols)], ["h2"]);

  await page.getByLabel("Your name").fill("ann");
  await page.getByLabel("Room", { exact: true }).fill("streams");
  await page.getByRole("button", { name: "Join", exact: true }).click();
  await page.waitForFunction(() => document.documentElement.dataset.state === "open");
  for (const text of ["one", "two", "three"]) {
    await page.getByLabel("Message", { exact: true }).fill(text);
    await page.keyboard.press("Enter");
  }
  await page.waitForFunction(() => document.querySelectorAll("#log .message").length === 3);
  assert.deepEqual(troubles, []);

  // What is left open is the WebSocket: a stream, and no connection of its own.
  let totals;
  const deadline = Date.now() + 30_000;
  do ({ totals } = await server.status());
  while (totals.http2_open !== 1 && Date.now() < deadline);
  assert.equal(totals.http2_open, 1, JSON.stringify(totals));
  assert.ok(totals.http2_streams > 31, JSON.stringify(totals));
  await context.close();
});
