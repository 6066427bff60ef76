// Follows the log of a process over every cut, to its end.

import { ResumingStream } from '../resuming_stream.mjs';

export class LogFollower extends ResumingStream {
  /** Set at the end of the log. */
  isEnded = false;
  /** When the last entry came, and the longest silence before one. */
  lastAtMs;
  longestSilenceMs = 0;
  #onEntry;

  /** `onEntry(stream, text)` is called for each entry, in order. */
  constructor(url, processId, ledger, onEntry) {
    super(`${url}/v1/processes/${processId}/logs?follow=true`);
    this.processId = processId;
    this.ledger = ledger;
    this.#onEntry = onEntry;
  }

  take(kind, id, text) {
    const data = JSON.parse(text);
    if (kind === 'log') this.#entry(id, data);
    else if (kind === 'end' && data.reason === 'exited') this.#end();
    else if (kind !== 'end') this.ledger.violate(`${kind} in the log of ${this.processId}: ${text}`);
  }

  #entry(id, entry) {
    const wanted = (this.entries ?? 0) + 1;
    this.ledger.check(id === wanted && entry.sequence === id, () => `entry ${id} of ${this.processId} instead of ${wanted}`);
    this.entries = id;
    const bytes = Buffer.from(entry.data, 'base64');
    this.ledger.count('bytes', bytes.length);
    const now = performance.now();
    if (this.lastAtMs !== undefined) this.longestSilenceMs = Math.max(this.longestSilenceMs, now - this.lastAtMs);
    this.lastAtMs = now;
    this.#onEntry(entry.stream, bytes.toString('utf8'));
  }

  #end() {
    this.isEnded = true;
    this.finish();
  }
}

/** All entries of a log as `follow` gives them, read page by page: `onEntry(stream, text)`. */
export async function readLog(client, ledger, processId, onEntry) {
  for (let since = 0; ;) {
    const page = await client.call('GET', `/v1/processes/${processId}/logs?since=${since}&limit=500`);
    ledger.check((page.gaps ?? []).length === 0, () => `gaps in the log of ${processId}: ${JSON.stringify(page.gaps)}`);
    for (const entry of page.entries) {
      ledger.check(entry.sequence === since + 1, () => `entry ${entry.sequence} of ${processId} behind ${since} on a page`);
      since = entry.sequence;
      onEntry(entry.stream, Buffer.from(entry.data, 'base64').toString('utf8'));
    }
    if (!page.hasMore) return;
  }
}
