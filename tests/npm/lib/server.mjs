// One server of its own per test: fresh home, free port, and proof at the end that no process was left.

import { spawn } from 'node:child_process';
import { once } from 'node:events';
import fs from 'node:fs';
import os from 'node:os';
import path from 'node:path';
import readline from 'node:readline';

import { binary, isReference, portToAskFor, prepareBinary } from './target.mjs';
import { until } from './wait.mjs';

const STDERR_TAIL_CHARS = 6000;

export class Server {
  #child;
  #stderr = '';
  #port = 0;
  #flags;
  /** Called with all that it writes to stderr. */
  onStderr = () => {};

  /**
   * `flags` are added to the command line. Without a `token` everyone may call. `kept` servers have a keeper, as users have
   * it; else the end of the server is the end of all that it runs.
   */
  constructor({ token, flags = [], kept = false } = {}) {
    this.token = token;
    this.#flags = [...(token ? ['--token', token] : ['--no-token']), ...(kept || isReference ? [] : ['--no-keeper']), ...flags];
    this.home = fs.mkdtempSync(path.join(os.tmpdir(), 'sandboxd-npm-'));
    this.workDir = path.join(this.home, 'work');
    fs.mkdirSync(this.workDir);
    fs.mkdirSync(path.join(this.home, 'tmp'));
    this.env = {
      PATH: process.env.PATH,
      HOME: this.home,
      TMPDIR: path.join(this.home, 'tmp'),
      // Agents look for updates and model lists; a closed port makes them give up at once.
      HTTPS_PROXY: 'http://127.0.0.1:9',
      NO_PROXY: '127.0.0.1,localhost',
    };
  }

  get url() {
    return `http://127.0.0.1:${this.#port}`;
  }

  get pid() {
    return this.#child?.pid;
  }

  get stderrTail() {
    return this.#stderr.slice(-STDERR_TAIL_CHARS);
  }

  /** Starts the binary and resolves once it is ready. Later starts use the same home and the same port. */
  async start() {
    prepareBinary();
    this.#port = await portToAskFor(this.#port);
    const options = ['server', '--no-telemetry', '--host', '127.0.0.1', '--port', String(this.#port), ...this.#flags];
    this.#child = spawn(binary, options, { cwd: this.workDir, env: this.env, stdio: ['ignore', 'pipe', 'pipe'] });
    this.#child.stderr.setEncoding('utf8').on('data', (text) => {
      this.#stderr = (this.#stderr + text).slice(-2 * STDERR_TAIL_CHARS);
      this.onStderr(text);
    });
    if (isReference) await this.#untilHealthy();
    else this.#port = await readPort(this.#child, () => this.stderrTail);
  }

  /** The reference has no ready line. */
  async #untilHealthy() {
    const headers = this.token ? { authorization: `Bearer ${this.token}` } : {};
    const isHealthy = () => fetch(`${this.url}/v1/health`, { headers }).then(({ status }) => status === 200, () => false);
    await until(() => this.#child.exitCode !== null || isHealthy(), 'health');
    if (this.#child.exitCode !== null) throw new Error(`the reference ended at its start:\n${this.stderrTail}`);
  }

  /** Sends `signal` and resolves once the server is gone. */
  async stop(signal = 'SIGTERM') {
    const child = this.#child;
    if (!child || child.exitCode !== null || child.signalCode !== null) return;
    child.kill(signal);
    await once(child, 'exit');
  }

  async restart(signal) {
    await this.stop(signal);
    await this.start();
  }

  /** Of a kept server: the server itself, below the keeper, which is `pid`; none while the keeper starts the next one. */
  get keptPid() {
    return listProcesses().find(({ parentPid, command }) => parentPid === this.pid && command.endsWith(' --kept'))?.pid;
  }

  /** Of a kept server: kills what is below the keeper, and resolves to its pid once it is gone. */
  async crash() {
    const victim = await until(() => this.keptPid, 'a server to kill', 60_000);
    killQuietly(victim);
    await until(() => this.keptPid !== victim, `end of the server ${victim}`, 60_000);
    return victim;
  }

  /** Every living process of this test but the server: [{pid, parentPid, command}]. */
  processes() {
    const own = [this.pid, this.keptPid];
    return listProcesses().filter((entry) => !own.includes(entry.pid) && belongsTo(entry.pid, this.home));
  }

  /** The agent processes matching `pattern`, without those that another match has started. */
  agentProcesses(pattern) {
    const matches = this.processes().filter((entry) => pattern.test(entry.command));
    return matches.filter((entry) => !matches.some((other) => other.pid === entry.parentPid));
  }

  async waitUntilNoProcessIsLeft(milliseconds = 15_000) {
    try {
      await until(() => this.processes().length === 0, 'end of all processes', milliseconds);
    } catch {
      const left = this.processes().map((entry) => `${entry.pid} (parent ${entry.parentPid}): ${entry.command}`);
      if (left.length) throw new Error(`processes left behind:\n${left.join('\n')}`);
    }
  }

  /** Stops the server, checks that nothing outlives it, and removes the home. */
  async close() {
    try {
      const gone = new Promise((_, reject) => {
        setTimeout(reject, 20_000, new Error('the server did not end on SIGTERM')).unref();
      });
      await Promise.race([this.stop('SIGTERM'), gone]);
      if (!isReference) await this.waitUntilNoProcessIsLeft();
    } finally {
      await this.stop('SIGKILL');
      for (const { pid } of this.processes()) killQuietly(pid);
      fs.rmSync(this.home, { recursive: true, force: true, maxRetries: 5, retryDelay: 100 });
    }
  }
}

async function readPort(child, stderrTail) {
  const failure = once(child, 'close').then(([code, signal]) => {
    throw new Error(`the server ended before it was ready (code ${code}, signal ${signal}):\n${stderrTail()}`);
  });
  const ready = new Promise((resolve) => {
    readline.createInterface({ input: child.stdout }).on('line', (line) => {
      const message = parseJson(line);
      if (message?.event === 'listening') resolve(Number(new URL(message.url).port));
    });
  });
  failure.catch(() => {});
  return Promise.race([ready, failure]);
}

function listProcesses() {
  const pids = fs.readdirSync('/proc').filter((name) => /^\d+$/.test(name));
  return pids.map(Number).map(describeProcess).filter(Boolean);
}

function describeProcess(pid) {
  try {
    const stat = fs.readFileSync(`/proc/${pid}/stat`, 'utf8');
    // The name in parentheses may itself hold spaces and parentheses.
    const [state, parentPid] = stat.slice(stat.lastIndexOf(')') + 2).split(' ');
    if (state === 'Z') return undefined;
    const command = fs.readFileSync(`/proc/${pid}/cmdline`, 'utf8').replaceAll('\0', ' ').trim();
    return { pid, parentPid: Number(parentPid), command };
  } catch {
    return undefined;
  }
}

function belongsTo(pid, home) {
  try {
    if (fs.readlinkSync(`/proc/${pid}/cwd`).startsWith(home)) return true;
    return fs.readFileSync(`/proc/${pid}/environ`, 'utf8').includes(`HOME=${home}`);
  } catch {
    return false;
  }
}

function killQuietly(pid) {
  try {
    process.kill(pid, 'SIGKILL');
  } catch (error) {
    if (error.code !== 'ESRCH') throw error;
  }
}

function parseJson(text) {
  try {
    return JSON.parse(text);
  } catch {
    return undefined;
  }
}
