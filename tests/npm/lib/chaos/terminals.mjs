// Terminals that write numbered lines without end, and some that are typed into.

import { setTimeout as sleep } from 'node:timers/promises';
import fs from 'node:fs';
import path from 'node:path';

import { until } from '../wait.mjs';
import { LogFollower, readLog } from './log_follower.mjs';

const TYPED = 3;
const TYPING_PAUSE_MS = 150;
const TICK_S = 0.02;

export class Terminals {
  all = [];

  static async open(stage, count) {
    const terminals = new Terminals();
    Object.assign(terminals, stage, { count });
    terminals.gate = path.join(terminals.server.home, 'gate');
    const kind = (index) => (index < TYPED ? TypedTerminal : CountingTerminal);
    terminals.all = await Promise.all(Array.from({ length: count }, (_, index) => new (kind(index))(terminals, index).open()));
    return terminals;
  }

  /** The one that writes a line every 20 ms: how long its follower hears nothing is how long a client is cut off. */
  get ticking() {
    return this.all.at(-1).follower;
  }

  async end() {
    fs.writeFileSync(this.gate, '');
    await Promise.all(this.all.map((terminal) => terminal.end().catch((error) => this.ledger.violate(`${terminal.name}: ${error.stack}`))));
  }
}

class Terminal {
  constructor(terminals, index) {
    Object.assign(this, { terminals, index, ledger: terminals.ledger, client: terminals.client, name: `terminal ${index}` });
  }

  async open() {
    const spec = { command: 'sh', args: ['-c', this.script], tty: true, interactive: true, cwd: this.terminals.server.workDir };
    const { id, pid } = await this.client.call('POST', '/v1/processes', { ...spec, idempotencyKey: this.name });
    Object.assign(this, { id, pid, lines: new Lines(this) });
    this.follower = new LogFollower(this.client.url, id, this.ledger, (_, text) => this.lines.take(text));
    return this;
  }

  /** It ends by itself; what it wrote is there once, and its exit code is its own. */
  async end() {
    await until(() => this.follower.isEnded, `end of ${this.name}`, 60_000);
    await this.follower.close();
    this.ledger.check(this.follower.problems.length === 0, () => `log of ${this.name}: ${this.follower.problems}`);
    const { exit, exitReason, pid } = await this.client.call('GET', `/v1/processes/${this.id}`);
    const is = exit?.code === this.index && exitReason === 'exited';
    this.ledger.check(is, () => `${this.name} ended by ${JSON.stringify(exit)} (${exitReason}), pid ${pid}`);
    const paged = new Lines(this);
    await readLog(this.client, this.ledger, this.id, (_, text) => paged.take(text));
    this.ledger.check(paged.whole === this.lines.whole && paged.rest === this.lines.rest, () => `${this.name}: the pages are not what was followed`);
    const { lines: screen } = await this.client.call('GET', `/v1/processes/${this.id}/terminal/screen`);
    const last = this.lines.last.trimEnd();
    this.ledger.check(screen.some((line) => line.trimEnd() === last), () => `the screen of ${this.name} doesn't show "${last}"`);
  }
}

/** Cuts text into lines; each is looked at by the terminal. */
class Lines {
  whole = 0;
  rest = '';
  last = '';

  constructor(terminal) {
    this.terminal = terminal;
    this.state = {};
  }

  take(text) {
    const lines = (this.rest + text).split('\r\n');
    this.rest = lines.pop();
    for (const line of lines) {
      this.whole += 1;
      this.last = line;
      this.terminal.look(line, this);
    }
  }
}

class CountingTerminal extends Terminal {
  get script() {
    const isTicking = this.index === this.terminals.count - 1;
    const [burst, pauseS] = isTicking ? [1, TICK_S] : [this.index * 2, 0.2 + this.index * 0.01];
    return [
      `i=0; until [ -e ${this.terminals.gate} ]; do j=0`,
      `while [ $j -lt ${burst} ]; do j=$((j+1)); i=$((i+1)); echo "terminal ${this.index} €ä line $i"; done`,
      `sleep ${pauseS}; done; exit ${this.index}`,
    ].join('\n');
  }

  look(line, lines) {
    const wanted = `terminal ${this.index} €ä line ${lines.whole}`;
    this.ledger.check(line === wanted, () => `${this.name} wrote ${JSON.stringify(line)} instead of "${wanted}"`);
  }
}

/** Who types numbers each line; a line whose request was cut off may have come or not, but never twice or late. */
class TypedTerminal extends Terminal {
  acknowledged = new Set();
  #typed = 0;
  #stopped = false;

  get script() {
    return `stty -echo; while read -r line; do [ "$line" = end ] && exit ${this.index}; echo "got $line"; done; exit 99`;
  }

  async open() {
    await super.open();
    this.typing = this.#type();
    return this;
  }

  look(line, lines) {
    const number = Number(/^got (\d+)$/.exec(line)?.[1] ?? Number.NaN);
    const follows = number > (lines.state.number ?? 0);
    this.ledger.check(follows, () => `${this.name} wrote ${JSON.stringify(line)} after ${lines.state.number}`);
    lines.state.number = number;
    (lines.state.all ??= new Set()).add(number);
  }

  async #type() {
    await sleep(500); // until it doesn't echo
    while (!this.#stopped) {
      const number = this.#typed += 1;
      if (await this.#send(`${number}\n`)) this.acknowledged.add(number);
      await sleep(TYPING_PAUSE_MS);
    }
  }

  async #send(data) {
    const init = { method: 'POST', headers: { 'content-type': 'application/json' }, body: JSON.stringify({ data, encoding: 'utf8' }) };
    try {
      const response = await fetch(`${this.client.url}/v1/processes/${this.id}/input`, init);
      const text = await response.text();
      this.ledger.check(response.ok, () => `typing into ${this.name}: ${response.status} ${text}`);
      return response.ok;
    } catch {
      return false; // cut off
    }
  }

  async end() {
    this.#stopped = true;
    await this.typing;
    while (!await this.#send('end\n'));
    await super.end();
    const got = this.lines.state.all ?? new Set();
    const lost = [...this.acknowledged].filter((number) => !got.has(number));
    this.ledger.check(lost.length === 0, () => `${this.name} never got ${lost}`);
    this.ledger.count('typed', got.size);
  }
}
