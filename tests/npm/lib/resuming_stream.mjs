// A reader of server-sent events that comes back after every cut, with the last id it saw.

import { setTimeout as sleep } from 'node:timers/promises';

/** How long it waits before it comes back. */
export const RETRY_PAUSE_MS = 50;

/** Follows an event stream for ever, or until a subclass calls `finish()`. Subclasses take frames in `take()`. */
export class ResumingStream {
  /** What must not happen: events out of order or twice, gaps, errors. */
  problems = [];
  /** How often it was connected. */
  connections = 0;
  /** The id of the last frame that had one. */
  lastId = 0;
  #abort = new AbortController();
  #connection;
  #away = false;
  #loop;

  constructor(url) {
    this.url = url;
    this.#loop = this.#follow();
  }

  /** One frame: `kind` is the event's name; `id` is a number, 0 without one. */
  take(kind, id, text) {
    throw new Error(`nobody takes ${kind} ${id} ${text}`);
  }

  /** Nothing more is to be read. */
  finish() {
    this.#abort.abort();
  }

  /** Cuts the connection; it comes back after `return()`. */
  leave() {
    this.#away = true;
    this.#connection?.abort();
  }

  return() {
    this.#away = false;
  }

  async close() {
    this.#abort.abort();
    this.#connection?.abort();
    await this.#loop;
  }

  async #follow() {
    while (!this.#abort.signal.aborted) {
      if (!this.#away) await this.#connect().catch(() => {});
      if (!this.#abort.signal.aborted) await sleep(RETRY_PAUSE_MS);
    }
  }

  async #connect() {
    this.#connection = new AbortController();
    const headers = { accept: 'text/event-stream', ...(this.lastId && { 'last-event-id': String(this.lastId) }) };
    const response = await fetch(this.url, { headers, signal: this.#connection.signal });
    if (response.status !== 200) {
      this.problems.push(`${response.status} ${await response.text()}`);
      return;
    }
    this.connections += 1;
    let text = '';
    for await (const chunk of response.body.pipeThrough(new TextDecoderStream())) {
      text += chunk;
      const frames = text.split('\n\n');
      text = frames.pop();
      for (const frame of frames) this.#frame(frame);
    }
  }

  #frame(frame) {
    const fields = new Map(frame.split('\n').map((line) => [line.slice(0, line.indexOf(':')), line.slice(line.indexOf(':') + 2)]));
    const [kind, id, text] = [fields.get('event'), Number(fields.get('id') ?? 0), fields.get('data')];
    if (id && id <= this.lastId) this.problems.push(`event ${id} came after ${this.lastId}`);
    if (id) this.lastId = id;
    if (kind !== undefined) this.take(kind, id, text);
  }
}
