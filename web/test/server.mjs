// Starts the real program on a free port, with a data directory of its own.

import { execFile, spawn } from "node:child_process";
import { mkdtemp, rm } from "node:fs/promises";
import { existsSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { promisify } from "node:util";

const run = promisify(execFile);

// The program takes variables of this form for settings, and refuses those that are none.
const given = process.env.GANNET_BIN;
delete process.env.GANNET_BIN;

/** The program: GANNET_BIN, or what cargo built last. */
export function program() {
  const target = process.env.CARGO_TARGET_DIR ?? new URL("../../target", import.meta.url).pathname;
  const built = ["release", "debug"].map((profile) => join(target, profile, "gannet"));
  const found = given ?? built.find((path) => existsSync(path));
  if (!found) throw new Error("build the program first: cargo build --release");
  return found;
}

export class Server {
  #process;
  #data;
  #more = [];
  url;
  key;

  static async start() {
    const server = new Server();
    server.#data = await mkdtemp(join(tmpdir(), "gannet-web-"));
    await server.#launch("127.0.0.1:0");
    return server;
  }

  /** With TLS, and a certificate that nobody knows. */
  static async startSecret() {
    const server = new Server();
    server.#data = await mkdtemp(join(tmpdir(), "gannet-web-"));
    const certificates = join(server.#data, "certs");
    for (const kind of ["ca", "server"]) await run(program(), ["cert", kind, "--dir", certificates]);
    const [certificate, key] = ["server.pem", "server.key"].map((name) => join(certificates, name));
    server.#more = ["--tls-cert", certificate, "--tls-key", key];
    await server.#launch("127.0.0.1:0");
    return server;
  }

  async #launch(listen) {
    const flags = ["--data", this.#data, "--listen", listen, "--workers", "2", ...this.#more];
    this.#process = spawn(program(), flags, { stdio: ["ignore", "pipe", "inherit"] });
    let said = "";
    for await (const part of this.#process.stdout) {
      said += part;
      this.url ??= said.match(/Chat: +(\S+)/)?.[1];
      this.key ??= said.match(/Bearer (\S+)'/)?.[1];
      if (/Key: .*\n/.test(said) && (this.key || !said.includes("Push"))) break;
    }
    if (!this.url) throw new Error(`the server did not start: ${said}`);
  }

  /** Starts again, where it was, after `stop`. */
  async again() {
    await this.#launch(new URL(this.url).host);
  }

  async stop() {
    await this.command("stop");
  }

  async command(...words) {
    const { stdout } = await run(program(), [...words, "--data", this.#data]);
    return stdout;
  }

  async reload() {
    await this.command("reload");
  }

  /** How many it killed: one that a reload has replaced may have ended since it was listed. */
  async killWorkers() {
    const status = await this.status();
    const pids = status.workers.map((worker) => worker.pid).filter(Boolean);
    return pids.filter(kill).length;
  }

  async status() {
    return JSON.parse(await this.command("status", "--json"));
  }

  async push(to, data) {
    const response = await fetch(new URL("v1/messages", this.url), {
      method: "POST",
      headers: { authorization: `Bearer ${this.key}`, "content-type": "application/json" },
      body: JSON.stringify({ to, data }),
    });
    if (response.status !== 202) throw new Error(await response.text());
    return response.json();
  }

  async remove() {
    try {
      await this.stop();
    } catch {
      this.#process.kill("SIGKILL");
    }
    // Its processes may be a moment behind it.
    await rm(this.#data, { recursive: true, force: true, maxRetries: 10, retryDelay: 100 });
  }
}

/** Whether the process was there to be killed. */
function kill(pid) {
  try {
    return process.kill(pid, "SIGKILL");
  } catch (error) {
    if (error.code === "ESRCH") return false;
    throw error;
  }
}
