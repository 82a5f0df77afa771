// Two people chat in real browsers with the real program, while that is killed, reloaded and
// restarted. Needs a built program and Chromium (CHROMIUM, or /usr/bin/chromium).

import assert from "node:assert/strict";
import { after, before, test } from "node:test";

import { chromium } from "playwright-core";

import { CHROMIUM } from "./chromium.mjs";
import { Server } from "./server.mjs";

let server;
let browser;

before(async () => {
  server = await Server.start();
  browser = await chromium.launch(CHROMIUM);
});

after(async () => {
  await browser?.close();
  await server?.remove();
});

/** Somebody with a browser of their own. */
class Person {
  troubles = [];

  static async join(name, room, options = {}) {
    const person = new Person();
    person.context = await browser.newContext(options);
    person.page = await person.context.newPage();
    person.page.on("pageerror", (error) => person.troubles.push(String(error)));
    person.page.on("console", (message) => {
      if (message.type() === "error") person.troubles.push(message.text());
    });
    await person.page.addInitScript(() => {
      window.states = [];
      new MutationObserver(() => window.states.push(document.documentElement.dataset.state)).observe(
        document,
        { subtree: true, attributes: true, attributeFilter: ["data-state"] },
      );
    });
    await person.page.goto(server.url);
    await person.page.getByLabel("Your name").fill(name);
    await person.page.getByLabel("Room", { exact: true }).fill(room);
    await person.page.getByRole("button", { name: "Join", exact: true }).click();
    await person.connected();
    return person;
  }

  async connected() {
    await this.page.waitForFunction(() => document.documentElement.dataset.state === "open");
  }

  async say(text) {
    await this.page.getByLabel("Message", { exact: true }).fill(text);
    await this.page.keyboard.press("Enter");
  }

  /** [offset, text] of everything in the room, when there are so many. */
  async hears(count) {
    await this.page.waitForFunction(
      (count) =>
        document.querySelectorAll("#log .message").length >= count &&
        document.querySelectorAll("#pending .message").length === 0,
      count,
      { timeout: 30_000 },
    );
    return this.heard();
  }

  heard() {
    return this.page.$$eval("#log .message", (items) =>
      items.map((item) => [Number(item.dataset.offset), item.querySelector(".text").textContent]),
    );
  }

  states() {
    return this.page.evaluate(() => window.states);
  }

  async sees(...people) {
    await this.page.waitForFunction(
      (people) =>
        Array.from(document.querySelectorAll("#people li span:last-child"), (item) =>
          item.textContent.replace(" (you)", ""),
        ).join() === people.join(),
      people,
    );
  }
}

function assertWhole(heard, count) {
  assert.deepEqual(
    heard.map(([offset]) => offset),
    Array.from({ length: count }, (_, index) => index + 1),
  );
}

test("nobody notices that workers are killed and reloaded", async () => {
  const ann = await Person.join("ann", "storm");
  const bob = await Person.join("bob", "storm");
  await ann.sees("ann", "bob");
  await bob.sees("ann", "bob");
  const each = 40;
  const talk = async (person, name) => {
    for (let count = 0; count < each; count += 1) await person.say(`${name} ${count}`);
  };
  const disturb = async () => {
    assert.ok((await server.killWorkers()) > 0);
    await server.reload();
    assert.ok((await server.killWorkers()) > 0);
    await server.reload();
  };
  await Promise.all([talk(ann, "ann"), talk(bob, "bob"), disturb()]);
  await ann.say("done");
  const count = 2 * each + 1;
  const heard = await ann.hears(count);
  assertWhole(heard, count);
  assert.deepEqual(await bob.hears(count), heard);
  for (const name of ["ann", "bob"]) {
    const own = heard.map(([, text]) => text).filter((text) => text.startsWith(name));
    assert.deepEqual(own, Array.from({ length: each }, (_, index) => `${name} ${index}`));
  }
  for (const person of [ann, bob]) {
    assert.deepEqual(await person.states(), ["connecting", "open"], "the connection broke");
    assert.deepEqual(person.troubles, []);
  }

  await ann.page.reload();
  assert.deepEqual(await ann.hears(50), heard.slice(-50), "the history is there after a reload");
  await ann.page.getByLabel("Messages", { exact: true }).evaluate((list) => (list.scrollTop = 0));
  assert.deepEqual(await ann.hears(count), heard);

  await bob.context.close();
  await ann.sees("ann");
  await ann.context.close();
});

test("a message said while the server is away is sent once", async () => {
  const ann = await Person.join("ann", "outage");
  const bob = await Person.join("bob", "outage");
  await ann.say("before");
  await bob.hears(1);
  await server.stop();
  await ann.page.getByText("Reconnecting…").waitFor();
  await ann.say("meanwhile 1");
  await ann.say("meanwhile 2");
  // What was not sent survives a reload; the page is in the browser's cache or it is not, so only
  // the tab's memory is looked at.
  const kept = await ann.page.evaluate(() => JSON.parse(sessionStorage["gannet.tab"]).outbox.length);
  assert.equal(kept, 2);
  await server.again();
  await Promise.all([ann.connected(), bob.connected()]);
  const expected = [
    [1, "before"],
    [2, "meanwhile 1"],
    [3, "meanwhile 2"],
  ];
  assert.deepEqual(await ann.hears(3), expected);
  assert.deepEqual(await bob.hears(3), expected);
  await ann.sees("ann", "bob");
  await ann.context.close();
  await bob.context.close();
});

test("a message pushed by a program is shown, and shown as text", async () => {
  const eve = await Person.join("eve", "news");
  await eve.page.getByLabel("Join another room").fill("quiet");
  await eve.page.keyboard.press("Enter");
  await server.push("channel:news", { text: "<img src=x onerror=alert(1)>" });
  await eve.page.getByLabel("1 unread").waitFor();
  await eve.page.getByRole("button", { name: /news/ }).click();
  assert.deepEqual(await eve.hears(1), [[1, "<img src=x onerror=alert(1)>"]]);
  assert.equal(await eve.page.locator("#log img").count(), 0);
  assert.equal(await eve.page.locator("#log .new").count(), 1);
  const { reached } = await server.push("user:eve", "for your eyes");
  assert.equal(reached, 1);
  await eve.page.getByText("For you: for your eyes").waitFor();
  assert.deepEqual(eve.troubles, []);
  await eve.context.close();
});
