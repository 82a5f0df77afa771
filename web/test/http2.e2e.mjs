// A browser speaks HTTP/2 with the real program: pages, fetches, and the WebSocket of the chat, which
// is a stream of the same connection (RFC 8441). Needs a built program and Chromium.

import assert from "node:assert/strict";
import { after, before, test } from "node:test";

import { chromium } from "playwright-core";

import { Server } from "./server.mjs";

let server;
let browser;

before(async () => {
  server = await Server.startSecret();
  browser = await chromium.launch({
    executablePath: process.env.CHROMIUM ?? "/usr/bin/chromium",
    args: [
      "--no-sandbox",
      "--disable-gpu",
      "--no-first-run",
      "--disable-background-networking",
      "--disable-component-update",
      "--disable-sync",
    ],
  });
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
  const protocols = await page.evaluate(async () => {
    const statuses = await Promise.all(
      Array.from({ length: 30 }, async (_, n) => (await fetch(`/?again=${n}`)).status),
    );
    if (statuses.some((status) => status !== 200)) throw new Error(String(statuses));
    const entries = ["navigation", "resource"].flatMap((kind) => performance.getEntriesByType(kind));
    return entries.map((entry) => entry.nextHopProtocol);
  });
  assert.ok(protocols.length > 30);
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

  // The WebSocket is open, and needs no connection of its own.
  const { totals } = await server.status();
  assert.ok(totals.http2_streams > 30, JSON.stringify(totals));
  await context.close();
});
