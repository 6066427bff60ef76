// A test with a server, a model provider and clients of its own, and a clean end whatever happens.

import path from 'node:path';
import { test } from 'node:test';

import { InMemorySessionPersistDriver, SandboxAgent } from 'sandbox-agent';

import { agents, equip } from './agents.mjs';
import { startModelProvider } from './model_provider.mjs';
import { Server } from './server.mjs';
import { guard, until } from './wait.mjs';

const HANG_GUARD_MS = 120_000;

/** Declares a test of an agent; `body` gets a Stage. `env` goes to the server, which finds the agents of `also`, too. */
export function scenario(agentName, title, body, { env = {}, also = [], guardMs = HANG_GUARD_MS } = {}) {
  test(`${agentName}: ${title}`, async () => {
    const stage = new Stage(agentName, also);
    let failure;
    try {
      await stage.open(env);
      await guard(orStrayRejection(() => body(stage)), title, guardMs);
    } catch (error) {
      failure = error;
    }
    // The server's words belong to the failure; leftovers are one only when nothing else went wrong.
    const stderr = () => (stage.server.stderrTail ? `\n--- server stderr ---\n${stage.server.stderrTail}` : '');
    await stage.close().catch((error) => { failure ??= error; });
    if (!failure) return;
    if (failure instanceof Error) failure.message += stderr();
    throw failure;
  });
}

/**
 * Runs `body`; rejects at the first rejection that nobody awaits. The SDK reports a refused POST only in that way, and its
 * own promises then never settle.
 */
async function orStrayRejection(body) {
  let onStray;
  const stray = new Promise((_, reject) => {
    onStray = reject;
    process.once('unhandledRejection', onStray);
  });
  try {
    return await Promise.race([body(), stray]);
  } finally {
    process.off('unhandledRejection', onStray);
  }
}

class Stage {
  server = new Server();
  /** The statuses of all DELETE replies that the SDK clients got. */
  deletions = [];
  #clients = [];
  #streams = [];
  #postsUnderWay = 0;

  #also;

  constructor(agentName, also) {
    this.agentName = agentName;
    this.agent = agents[agentName];
    this.#also = also;
  }

  async open(env) {
    this.provider = await startModelProvider();
    for (const name of [this.agentName, ...this.#also]) equip(this.server, name, this.provider);
    Object.assign(this.server.env, env);
    await this.server.start();
  }

  async close() {
    for (const stream of this.#streams) await (stream.close?.() ?? stream.leave());
    await this.server.close();
    // Only now: a client whose server is gone gives up at once, so it cannot hold up the end.
    for (const client of this.#clients) await guard(client.dispose(), 'dispose()', 10_000).catch(() => {});
    await this.provider?.stop();
  }

  file(name) {
    return path.join(this.server.workDir, name);
  }

  /** A new SDK client. Clients with the same `persist` driver know the same sessions. */
  async connect(options = {}) {
    const observed = (url, init) => this.#observedFetch(url, init);
    const client = await SandboxAgent.connect({ baseUrl: this.server.url, fetch: observed, ...options });
    this.#clients.push(client);
    return client;
  }

  async #observedFetch(url, init = {}) {
    if (init.method !== 'POST') {
      const response = await fetch(url, init);
      if (init.method === 'DELETE') this.deletions.push(response.status);
      return response;
    }
    this.#postsUnderWay += 1;
    try {
      const response = await fetch(url, init);
      const text = await response.text();
      return new Response(text || null, { status: response.status, headers: response.headers });
    } finally {
      this.#postsUnderWay -= 1;
    }
  }

  /**
   * Restarts the server between turns. An answer reaches the SDK by its stream a little before the POST ends, and a
   * POST that breaks is fatal to the SDK: so a turn is over only when no POST is under way.
   */
  async restartServer(signal) {
    await until(() => this.#postsUnderWay === 0, 'end of all POSTs');
    await this.server.restart(signal);
  }

  async createSession(client) {
    return new Talk(await client.createSession({ agent: this.agentName, cwd: this.server.workDir }));
  }

  /** `stream.leave()` or `stream.close()` is called at the end. */
  track(stream) {
    this.#streams.push(stream);
    return stream;
  }

  /** Begins a turn that does not end by itself, and resolves once it is under way. */
  async beginEndlessTurn(talk) {
    const { provider } = this;
    const turn = talk.session.prompt([{ type: 'text', text: this.agent.hang }]);
    turn.catch(() => {});
    const before = talk.chunks.length;
    const underWay = this.agent.hasModel
      ? provider.when(() => provider.hanging > 0)
      : until(() => talk.chunks.length >= before + 2, 'the first chunks of the endless turn');
    await guard(underWay, 'begin of the endless turn', 60_000);
    return { settled: () => settle(turn) };
  }

  async killAgent() {
    const victims = this.server.agentProcesses(this.agent.processPattern);
    if (victims.length !== 1) throw new Error(`expected one agent process, found ${JSON.stringify(this.server.processes())}`);
    process.kill(victims[0].pid, 'SIGKILL');
    return victims[0].pid;
  }

  async untilSaved(text) {
    if (this.agent.hasSaved) await until(() => this.agent.hasSaved(this.server.home, text), `the agent's own record of "${text}"`);
  }

  /** The newest request the model got about `text`, as one string: it shows what the agent remembers. */
  modelRequestAbout(text) {
    const request = this.provider.requests.findLast(({ plan, aside }) => !aside && plan.text === `echo: ${text}`);
    return JSON.stringify(request?.body ?? null);
  }
}

/** A session and everything its agent said. */
export class Talk {
  chunks = [];
  updates = [];

  constructor(session) {
    this.session = session;
    session.onEvent(({ sender, payload }) => {
      if (sender !== 'agent' || payload.method !== 'session/update') return;
      const { update } = payload.params;
      this.updates.push(update);
      if (update.sessionUpdate === 'agent_message_chunk') this.chunks.push(update.content.text);
    });
  }

  get text() {
    return this.chunks.join('');
  }

  /** One turn; resolves to the response and to what was said in it. */
  async say(text, expected) {
    const start = this.chunks.length;
    const response = await this.session.prompt([{ type: 'text', text }]);
    const said = () => this.chunks.slice(start).join('');
    // The SDK hands events to listeners through a queue of its own, a little after the response.
    if (expected) await until(() => said().includes(expected), `"${expected}" in the answer, which is "${said()}"`, 10_000);
    return { response, said: said() };
  }

  /** Answers each permission request with `reply`; the requests seen are in the returned array. */
  answerPermissions(reply) {
    const seen = [];
    this.session.onPermissionRequest((request) => {
      seen.push(request);
      this.session.respondPermission(request.id, reply).catch((error) => seen.push(error));
    });
    return seen;
  }
}

export async function settle(promise) {
  return promise.then((value) => ({ value }), (error) => ({ error }));
}

export { InMemorySessionPersistDriver };
