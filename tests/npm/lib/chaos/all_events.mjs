// A watcher of `/v1/events`, over every cut.

import { ResumingStream } from '../resuming_stream.mjs';
import { until } from '../wait.mjs';

export class AllEvents extends ResumingStream {
  #positions = new Map();
  /** How often each process started and exited, by its id. */
  #processes = new Map();
  count = 0;

  constructor(url, ledger) {
    super(`${url}/v1/events`);
    this.ledger = ledger;
  }

  take(kind, id, text) {
    if (kind === 'end') return;
    if (!this.ledger.check(kind === 'message', () => `/v1/events: ${kind} ${text}`)) return;
    const event = JSON.parse(text);
    const wanted = (this.#positions.get(event.stream) ?? 0) + 1;
    this.ledger.check(event.streamSequence === wanted, () => `${event.stream}: event ${event.streamSequence} instead of ${wanted} (${id})`);
    this.#positions.set(event.stream, event.streamSequence);
    this.count += 1;
    const change = /^process\.(started|exited)$/.exec(event.type)?.[1];
    if (change) this.#note(event.process.id, change);
  }

  #note(id, change) {
    const changes = this.#processes.get(id) ?? [];
    this.#processes.set(id, changes);
    changes.push(change);
  }

  /** At the end: each process started once and exited once, in this order. */
  async end(client) {
    const { newest } = await client.call('GET', '/v1/events?limit=1');
    await until(() => this.lastId >= newest, 'the last event of everything').catch((error) => this.ledger.violate(error.message));
    await this.close();
    this.ledger.check(this.problems.length === 0, () => `/v1/events: ${this.problems}`);
    for (const [id, changes] of this.#processes) this.ledger.check(changes.join() === 'started,exited', () => `${id}: ${changes}`);
    this.ledger.figures.events = this.count;
  }
}
