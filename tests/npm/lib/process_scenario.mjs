// A test of the process API: a server of its own, one SDK client, and what was started is gone at the end.

import assert from 'node:assert/strict';
import { test } from 'node:test';

import { SandboxAgent, SandboxAgentError } from 'sandbox-agent';

import { Server } from './server.mjs';
import { isReference } from './target.mjs';
import { Terminal } from './terminal.mjs';
import { guard, until } from './wait.mjs';

const HANG_GUARD_MS = 60_000;

/**
 * Declares a test; `body` gets a ProcessStage and the test's context. `betterThanReference` says which defect of the reference
 * makes the test fail there; it is skipped against the reference alone. `todo` says which defect of ours does. After
 * `hangGuardMs` it is said to hang.
 */
export function processScenario(title, body, options) {
  stageScenario(ProcessStage, title, body, options);
}

/** The same on another kind of ProcessStage. */
export function stageScenario(Stage, title, body, { betterThanReference, todo, hangGuardMs = HANG_GUARD_MS, ...stageOptions } = {}) {
  const skip = isReference && betterThanReference ? `better than the reference: ${betterThanReference}` : false;
  test(title, { skip, todo: isReference ? false : todo }, async (t) => {
    const stage = new Stage(stageOptions);
    let failure;
    try {
      await stage.open();
      await guard(body(stage, t), title, hangGuardMs);
    } catch (error) {
      failure = error;
    }
    await stage.close().catch((error) => { failure ??= error; });
    if (failure instanceof Error && stage.server.stderrTail) failure.message += `\n--- server stderr ---\n${stage.server.stderrTail}`;
    if (failure) throw failure;
  });
}

export class ProcessStage {
  #terminals = [];
  #follows = [];

  constructor(serverOptions) {
    this.server = new Server(serverOptions);
  }

  async open() {
    await this.server.start();
    this.client = await SandboxAgent.connect({ baseUrl: this.server.url, token: this.server.token });
  }

  async close() {
    for (const terminal of this.#terminals) terminal.session.close();
    for (const follow of this.#follows) follow.close();
    await this.server.close();
    await this.client?.dispose();
  }

  /** A managed process that runs `script` in a shell. */
  async shell(script, options = {}) {
    return this.client.createProcess({ command: 'sh', args: ['-c', script], cwd: this.server.workDir, ...options });
  }

  async terminal(id, options) {
    const terminal = new Terminal(this.client, id, options);
    this.#terminals.push(terminal);
    return terminal;
  }

  /** Follows the log of a process; resolves to {entries, bytes(), text(), closed, close}. */
  async follow(id, query) {
    const entries = [];
    const subscription = await this.client.followProcessLogs(id, (entry) => entries.push(entry), query);
    subscription.closed.catch(() => {});
    this.#follows.push(subscription);
    return { entries, text: () => textOf(entries), close: () => subscription.close(), closed: subscription.closed };
  }

  async type(id, text) {
    return this.client.sendProcessInput(id, { data: text, encoding: 'utf8' });
  }

  async untilLogged(id, text, query) {
    const logged = async () => textOf((await this.client.getProcessLogs(id, query)).entries);
    return until(async () => (await logged()).includes(text), `"${text}" in the log of ${id}`, 10_000);
  }

  async untilExited(id) {
    return until(async () => {
      const info = await this.client.getProcess(id);
      return info.status === 'exited' && info;
    }, `exit of ${id}`);
  }

  /** Waits until the process `pid` is gone, which must be one of this server's. */
  async untilGone(pid) {
    await until(() => !isAlive(pid), `end of process ${pid}`, 10_000);
  }
}

/** What the contract says is there as it says; there may be more. */
export function assertHas(actual, expected) {
  const known = Object.fromEntries(Object.keys(expected).map((name) => [name, actual[name]]));
  assert.deepEqual(known, expected);
}

export function bytesOf(entries) {
  return Buffer.concat(entries.map(({ data, encoding }) => {
    assert.equal(encoding, 'base64');
    return Buffer.from(data, 'base64');
  }));
}

export function textOf(entries) {
  return bytesOf(entries).toString('utf8');
}

export function isAlive(pid) {
  try {
    process.kill(pid, 0);
    return true;
  } catch (error) {
    if (error.code === 'ESRCH') return false;
    throw error;
  }
}

/** Resolves to the problem that the SDK got as `status`, with the end of its type checked. */
export async function problem(promise, status, typeSuffix) {
  const error = await promise.then((value) => assert.fail(`no error but ${JSON.stringify(value)}`), (reason) => reason);
  assert.ok(error instanceof SandboxAgentError, `${error?.stack}`);
  assert.equal(error.status, status, JSON.stringify(error.problem));
  if (typeSuffix) assert.match(error.problem.type, new RegExp(`[:/]${typeSuffix}$`));
  return error.problem;
}
