// Agents behind tee(1), which keeps each byte that they read and write; and the comparison with what the server tells.

import fs from 'node:fs';
import path from 'node:path';

import { parting } from './ledger.mjs';

/** What each agent's launcher is called, and what it runs. */
const LAUNCHERS = {
  mock: ['mock-acp', (binary) => `${binary} mock-agent-process`],
  claude: ['claude-acp', () => 'claude-agent-acp'],
  codex: ['codex-acp', () => 'codex-acp'],
  opencode: ['opencode-acp', () => 'opencode acp'],
};

/** Makes `server`, not yet started, start the agent `name` between two tees. Their files lie in the directory that is given back. */
export function record(server, name, binary) {
  const directory = path.join(server.home, 'records');
  const launchers = path.join(server.home, '.local/share/sandboxd/bin/agent_processes');
  for (const each of [directory, launchers]) fs.mkdirSync(each, { recursive: true });
  const [launcher, command] = LAUNCHERS[name];
  const script = `#!/bin/sh\ntee ${directory}/$$.in | ${command(binary)} | tee ${directory}/$$.out\n`;
  fs.writeFileSync(path.join(launchers, launcher), script, { mode: 0o755 });
  return directory;
}

/** Reads the lines that a file has got since the last time. */
class Tail {
  #at = 0;
  #rest = '';

  constructor(file) {
    this.file = file;
  }

  lines() {
    const length = fs.statSync(this.file).size - this.#at;
    const buffer = Buffer.alloc(length);
    const descriptor = fs.openSync(this.file);
    fs.readSync(descriptor, buffer, 0, length, this.#at);
    fs.closeSync(descriptor);
    // Whole lines only, so that no character is cut.
    const end = buffer.lastIndexOf(10) + 1;
    this.#at += end;
    return buffer.subarray(0, end).toString('utf8').split('\n').slice(0, -1).filter((line) => line.trim());
  }
}

/** The record of one agent process beside the raw log of its server. */
export class Audit {
  /** Envelopes of the agent that the server told and the record hasn't confirmed yet, and the other way round. */
  #told = [];
  #written = [];
  #prompts = new Map();
  #asked = new Map();
  #answered = new Map();

  constructor(ledger, name, directory, pid) {
    Object.assign(this, { ledger, name });
    this.out = new Tail(path.join(directory, `${pid}.out`));
    this.in = new Tail(path.join(directory, `${pid}.in`));
  }

  /** One event of `GET /v1/acp/{server}`. */
  take(text) {
    if (!text.includes('"method":"_adapter/')) this.#told.push(text);
    else if (!text.includes('"_adapter/request_resolved"')) this.ledger.violate(`${this.name}: ${text}`);
  }

  /** Compares what both have by now. */
  compare() {
    this.#written.push(...this.out.lines());
    const both = Math.min(this.#told.length, this.#written.length);
    const [told, written] = [this.#told.splice(0, both), this.#written.splice(0, both)];
    const wrong = told.findIndex((text, index) => !isSame(text, written[index]));
    this.ledger.count('envelopes', both);
    if (wrong >= 0) {
      this.ledger.violate(`${this.name}: the raw log parts from the agent's stdout: ${parting(told[wrong], written[wrong])}`);
      this.compare = () => {}; // once is enough
      return;
    }
    for (const line of written) this.#noteAsked(line);
    for (const line of this.in.lines()) this.#noteRead(line);
  }

  /** True when nothing waits for its counterpart. */
  get isEven() {
    return this.#told.length === 0 && this.#written.length === 0;
  }

  /** At the end: each prompt was read by the agent once, each of its requests answered once. */
  finish(prompts) {
    this.compare();
    this.ledger.check(this.isEven, () => `${this.name}: ${this.#told.length} envelopes told that were not written, ${this.#written.length} written and not told`);
    for (const text of prompts) {
      const times = this.#prompts.get(text) ?? 0;
      this.ledger.check(times === 1, () => `${this.name} read "${text}" ${times} times`);
    }
    const all = [...this.#prompts.values()].reduce((sum, times) => sum + times, 0);
    this.ledger.check(all === prompts.length, () => `${this.name} read ${all} prompts instead of ${prompts.length}`);
    for (const id of new Set([...this.#asked.keys(), ...this.#answered.keys()])) {
      const [asked, answered] = [this.#asked, this.#answered].map((times) => times.get(id) ?? 0);
      this.ledger.check(asked === answered, () => `${this.name}: asked ${asked} times under ${id}, answered ${answered} times`);
    }
  }

  #noteAsked(line) {
    const { id, method } = JSON.parse(line);
    if (method !== undefined && id !== undefined) count(this.#asked, JSON.stringify(id));
  }

  #noteRead(line) {
    let message;
    try {
      message = JSON.parse(line);
    } catch {
      this.ledger.violate(`${this.name} read what is no JSON: ${line}`);
      return;
    }
    if (message.method === 'session/prompt') count(this.#prompts, message.params.prompt[0].text.split('\n')[0]);
    if (message.method === undefined) count(this.#answered, JSON.stringify(message.id));
  }
}

function count(times, key) {
  times.set(key, (times.get(key) ?? 0) + 1);
}

/** The same but for the id of an answer, which is the client's on our side and a number on the agent's. */
function isSame(told, written) {
  if (told === written.trim()) return true;
  const [one, other] = [told, written].map((text) => {
    try {
      return JSON.parse(text);
    } catch {
      return undefined;
    }
  });
  if (!one || !other || one.method !== undefined || other.method !== undefined) return false;
  delete one.id;
  delete other.id;
  return JSON.stringify(one) === JSON.stringify(other);
}
