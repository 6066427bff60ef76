// Asks for the health of a server without pause, each time on a new connection.

import http from 'node:http';
import { setTimeout as sleep } from 'node:timers/promises';

const PAUSE_MS = 5;
const PATIENCE_MS = 60_000;

export class Pulse {
  /** The longest time between two good answers. */
  longestGapMs = 0;
  /** Answers that were no good: [status]. */
  refusals = [];
  /** Connects that were refused. */
  refusedConnects = 0;
  #stopped = false;
  #loop;
  #waiting = [];

  constructor(url) {
    this.url = url;
    this.#loop = this.#ask();
  }

  /** Resolves at the first good answer to a request that is sent from now on; gives its time. */
  next() {
    return new Promise((resolve) => this.#waiting.push({ since: performance.now(), resolve }));
  }

  async stop() {
    this.#stopped = true;
    await this.#loop;
  }

  async #ask() {
    let last = performance.now();
    while (!this.#stopped) {
      const sent = performance.now();
      if (await this.#once()) {
        const now = performance.now();
        this.longestGapMs = Math.max(this.longestGapMs, now - last);
        last = now;
        const [due, rest] = [this.#waiting.filter(({ since }) => since <= sent), this.#waiting.filter(({ since }) => since > sent)];
        this.#waiting = rest;
        for (const { resolve } of due) resolve(now);
      }
      await sleep(PAUSE_MS);
    }
  }

  #once() {
    return new Promise((resolve) => {
      const request = http.get(`${this.url}/v1/health`, { agent: false, timeout: PATIENCE_MS }, (response) => {
        response.resume();
        if (response.statusCode !== 200) this.refusals.push(response.statusCode);
        response.on('end', () => resolve(response.statusCode === 200));
        response.on('error', () => resolve(false));
      });
      request.on('timeout', () => request.destroy());
      request.on('error', (error) => {
        if (error.code === 'ECONNREFUSED') this.refusedConnects += 1;
        resolve(false);
      });
    });
  }
}
