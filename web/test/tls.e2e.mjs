// The walk through docs/tls.md in a real browser: `gannet cert` makes an authority, a server's and a
// client's certificate; the browser trusts the authority and has the client's PKCS#12 file. With it, it
// is let in, over HTTPS and WSS; without it, and without the authority, it is not.
//
// Needs a built program and the built example `tls`, Chromium (CHROMIUM, or /usr/bin/chromium) and
// certutil and pk12util (libnss3-tools). Which certificate a browser without a screen takes is said by a
// policy for this one port, in /etc/chromium/policies/managed, which takes root or `sudo` without a password.

import assert from "node:assert/strict";
import { execFile, spawn } from "node:child_process";
import { existsSync } from "node:fs";
import { mkdir, mkdtemp, rm, writeFile } from "node:fs/promises";
import { tmpdir } from "node:os";
import { dirname, join } from "node:path";
import { after, before, test } from "node:test";
import { promisify } from "node:util";

import { chromium } from "playwright-core";

import { CHROMIUM } from "./chromium.mjs";
import { program } from "./server.mjs";

const run = promisify(execFile);
const POLICY = `/etc/chromium/policies/managed/gannet-test-${process.pid}.json`;

let home;
let port;
let server;

before(async () => {
  home = await mkdtemp(join(tmpdir(), "gannet-tls-"));
  // As the page says.
  const cert = (...words) => run(program(), ["cert", ...words], { cwd: home });
  await cert("ca");
  await cert("server", "localhost", "127.0.0.1");
  const { stdout, stderr } = await cert("client", "ann");
  const password = `${stdout}${stderr}`.match(/password:?\s+(\S+)/i)?.[1];
  assert.ok(password, `no password in ${stdout}${stderr}`);

  // What "import" is in the browser's settings: Chromium reads the database of NSS.
  await database("ann", ["authority", "certificate"], password);
  await database("trusts", ["authority"]);
  await database("knows-nobody", []);

  const certs = (name) => JSON.stringify(join(home, "certs", name));
  await writeFile(
    join(home, "tls.toml"),
    `pid_file = ${JSON.stringify(join(home, "tls.pid"))}
workers = 1
[[listeners]]
protocol = "websocket"
address = "127.0.0.1:0"
[listeners.tls]
certificate = ${certs("server.pem")}
key = ${certs("server.key")}
client_ca = ${certs("ca.pem")}
client_auth = "required"
`,
  );
  server = spawn(example(), ["--config", join(home, "tls.toml")], { stdio: ["ignore", "pipe", "ignore"] });
  port = await listening();
});

after(async () => {
  if (server?.exitCode === null) {
    server.kill("SIGTERM");
    await new Promise((ended) => server.once("exit", ended));
  }
  await asRoot("rm", "-f", POLICY);
  if (home) await rm(home, { recursive: true, force: true });
});

test("with the authority and the certificate the page opens, and the WebSocket too", async () => {
  await choose({ pattern: `https://localhost:${port}`, filter: {} });
  await visit("ann", async (page) => {
    const response = await page.goto(`https://localhost:${port}/`);
    assert.match(await response.text(), /^Hello CN=ann \([0-9a-f]{16}\)\n$/);
    assert.equal((await response.securityDetails()).subjectName, "localhost");
    const said = await page.evaluate(
      (url) =>
        new Promise((resolve, reject) => {
          const socket = new WebSocket(url);
          socket.onopen = () => socket.send("hi");
          socket.onmessage = (event) => resolve(event.data);
          socket.onclose = (event) => reject(new Error(`closed with ${event.code}`));
        }),
      `wss://localhost:${port}/`,
    );
    assert.match(said, /^CN=ann \([0-9a-f]{16}\) says: hi$/);
  });
});

test("without a certificate nobody is let in, and the browser says so", async () => {
  await visit("trusts", async (page) => {
    const failed = page.goto(`https://localhost:${port}/`);
    // With TLS 1.3 the refusal comes after the browser's end of the handshake: if it comes before the
    // request, there is just no connection any more.
    await assert.rejects(failed, /ERR_(BAD_SSL_CLIENT_AUTH_CERT|SSL_CLIENT_AUTH_CERT_NEEDED|SOCKET_NOT_CONNECTED)/);
  });
});

test("without the authority the browser warns of the server", async () => {
  await visit("knows-nobody", async (page) => {
    await assert.rejects(page.goto(`https://localhost:${port}/`), /ERR_CERT_AUTHORITY_INVALID/);
  });
});

/** A home directory with a database of what was imported. */
async function database(name, imported, password) {
  const directory = join(home, name, ".pki", "nssdb");
  await mkdir(directory, { recursive: true });
  const nss = `sql:${directory}`;
  const certs = (file) => join(home, "certs", file);
  await run("certutil", ["-d", nss, "-N", "--empty-password"]);
  if (imported.includes("authority")) {
    await run("certutil", ["-d", nss, "-A", "-n", "Gannet test", "-t", "C,,", "-i", certs("ca.pem")]);
  }
  if (imported.includes("certificate")) {
    await run("pk12util", ["-d", nss, "-i", certs("ann.p12"), "-K", "", "-W", password]);
  }
}

/** Which certificate is taken without being asked. */
async function choose(rule) {
  const policy = join(home, "policy.json");
  const rules = [JSON.stringify(rule)];
  await writeFile(policy, JSON.stringify({ AutoSelectCertificateForUrls: rules }));
  await asRoot("install", "-D", "-m", "644", policy, POLICY);
}

function asRoot(...words) {
  if (process.getuid() !== 0) words.unshift("sudo", "-n");
  return run(words[0], words.slice(1));
}

async function visit(name, what) {
  const browser = await chromium.launchPersistentContext(join(home, `${name}-profile`), {
    ...CHROMIUM,
    env: { ...process.env, HOME: join(home, name) },
  });
  try {
    await what(await browser.newPage());
  } finally {
    await browser.close();
  }
}

/** The example: GANNET_TLS_EXAMPLE, or what cargo built beside the program. */
function example() {
  const path = process.env.GANNET_TLS_EXAMPLE ?? join(dirname(program()), "examples", "tls");
  if (!existsSync(path)) throw new Error("build the example first: cargo build --example tls");
  return path;
}

/** Waits until the server has written that it listens; the port. */
async function listening() {
  let said = "";
  // Without its output there is nothing to wait for.
  const patience = setTimeout(() => server.stdout.destroy(), 30_000);
  try {
    for await (const part of server.stdout) {
      said += part;
      const port = said.match(/listening on \S+:(\d+)\n/)?.[1];
      if (port) return port;
    }
  } catch (error) {
    said += error;
  } finally {
    clearTimeout(patience);
  }
  throw new Error(`the example did not start: ${said}`);
}
