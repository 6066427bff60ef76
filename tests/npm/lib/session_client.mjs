// A plain client of `/v1/sessions`, and a watcher of event streams that comes back after every cut.

import assert from 'node:assert/strict';
import { setTimeout as sleep } from 'node:timers/promises';

import { RETRY_PAUSE_MS, ResumingStream } from './resuming_stream.mjs';
import { until } from './wait.mjs';

/** A patient client gives up when nothing at all gets through for so long: whoever started the server has ended it. */
const PATIENCE_MS = 90_000;
const WAIT_MS = 20_000;

/** An answer that is no success, as an error. */
export class Refusal extends Error {
  constructor(status, problem) {
    const resolution = problem?.request?.resolution;
    super(`${status}: ${problem?.detail ?? JSON.stringify(problem)}${resolution ? ` ${JSON.stringify(resolution)}` : ''}`);
    this.status = status;
    this.problem = problem;
  }
}

export class SessionClient {
  #patient;

  /** `url` is that of a server or of a proxy before it. A `patient` client repeats every request that was cut off. */
  constructor(url, { patient = false } = {}) {
    this.url = url;
    this.#patient = patient;
    /** How often a request broke off. */
    this.cuts = 0;
  }

  async call(method, path, body, headers = {}) {
    const giveUpAt = Date.now() + PATIENCE_MS;
    for (;;) {
      try {
        return await this.#callOnce(method, path, body, headers);
      } catch (error) {
        if (error instanceof Refusal || !this.#patient || Date.now() > giveUpAt) throw error;
        this.cuts += 1;
        await sleep(RETRY_PAUSE_MS);
      }
    }
  }

  async #callOnce(method, path, body, headers) {
    const init = { method, headers: { ...headers, ...(body && { 'content-type': 'application/json' }) } };
    const response = await fetch(`${this.url}${path}`, { ...init, body: body && JSON.stringify(body) });
    const text = await response.text();
    const value = text.trim() ? JSON.parse(text) : undefined;
    if (!response.ok) throw new Refusal(response.status, value);
    return value;
  }

  create(spec, key) {
    return this.call('POST', '/v1/sessions', spec, key ? { 'idempotency-key': key } : {});
  }

  async list() {
    return (await this.call('GET', '/v1/sessions?limit=100')).sessions;
  }

  get(id) {
    return this.call('GET', `/v1/sessions/${id}`);
  }

  snapshot(id) {
    return this.call('GET', `/v1/sessions/${id}/snapshot`);
  }

  submit(id, text, { key, ...options } = {}) {
    return this.call('POST', `/v1/sessions/${id}/messages`, { text, ...options }, key ? { 'idempotency-key': key } : {});
  }

  async turns(id) {
    return (await this.call('GET', `/v1/sessions/${id}/turns`)).turns;
  }

  /** The turn once it has ended. */
  async ended(id, turnId, waitMs = WAIT_MS) {
    for (;;) {
      const turn = await this.call('GET', `/v1/sessions/${id}/turns/${turnId}?waitMs=${waitMs}`);
      if (turn.state === 'ended') return turn;
    }
  }

  /** One turn, from the message to its end. */
  async say(id, text, options) {
    const { turnId } = await this.submit(id, text, options);
    return this.ended(id, turnId);
  }

  /** One turn that has to be finished by the agent itself. */
  async finish(id, text, options) {
    const turn = await this.say(id, text, options);
    assert.equal(turn.outcome, 'finished', `"${text}": ${JSON.stringify(turn)}`);
    return turn;
  }

  interrupt(id, body) {
    return this.call('POST', `/v1/sessions/${id}/interrupt`, body);
  }

  /** All events so far, page by page. */
  async events(id, view = 'items') {
    const events = [];
    for (let after = 0; ;) {
      const page = await this.call('GET', `/v1/sessions/${id}/events?view=${view}&after=${after}&limit=500`);
      assert.deepEqual(page.gaps, [], 'events are missing');
      events.push(...page.events);
      if (!page.hasMore) return events;
      after = page.next;
    }
  }

  untilState(id, state) {
    return until(async () => (await this.get(id)).state === state, `the session to be ${state}`);
  }
}

/** Follows an event stream for ever, and keeps what it saw. */
export class Watcher extends ResumingStream {
  /** Everything that was seen: {id, text}; `text` is the data as it was sent. */
  events = [];

  get data() {
    return this.events.map(({ text }) => JSON.parse(text));
  }

  /** Every event once, from the first, none left out. */
  check() {
    assert.deepEqual(this.problems, [], `${this.url}`);
    assert.deepEqual(this.events.map(({ id }) => id), this.events.map((_, index) => index + 1), `${this.url}`);
  }

  take(kind, id, text) {
    if (kind === 'message') this.events.push({ id, text });
    else if (kind !== 'end') this.problems.push(`${kind} ${id} ${text}`);
  }
}
