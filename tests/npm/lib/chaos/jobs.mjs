// Processes that write numbered lines and end at random; a new one comes for each that ended.

import fs from 'node:fs';
import path from 'node:path';

import { until } from '../wait.mjs';
import { parting } from './ledger.mjs';
import { LogFollower, readLog } from './log_follower.mjs';

const SIGNALS = { KILL: 'SIGKILL', TERM: 'SIGTERM', SEGV: 'SIGSEGV' };

export class Jobs {
  /** Those that run, by the id of their process. */
  alive = new Map();
  #serial = 0;
  #stopped = false;
  #loops;

  constructor(stage, count) {
    Object.assign(this, stage);
    this.starts = path.join(this.server.home, 'starts');
    fs.writeFileSync(this.starts, '');
    this.#loops = Array.from({ length: count }, () => this.#loop());
  }

  /** No new ones; resolves when the last has ended. */
  async end() {
    this.#stopped = true;
    await Promise.all(this.#loops);
    const started = fs.readFileSync(this.starts, 'utf8').trim().split('\n').map(Number);
    const once = new Set(started);
    this.ledger.check(once.size === this.#serial, () => `${once.size} of ${this.#serial} processes were started`);
    this.ledger.figures.startedTwice = started.length - once.size;
  }

  async #loop() {
    while (!this.#stopped) {
      const job = new Job(this, this.#serial += 1);
      await job.run().catch((error) => this.ledger.violate(`process ${job.serial} (${job.id}): ${error.stack}`));
      this.alive.delete(job.id);
    }
  }
}

class Job {
  constructor(jobs, serial) {
    Object.assign(this, { jobs, serial, ledger: jobs.ledger, client: jobs.client, written: { stdout: '', stderr: '' } });
    const dice = jobs.ledger.dice(`job ${serial}`);
    this.lines = dice.between(5, 300);
    this.pauseEvery = dice.between(1, 40);
    this.signal = dice.throw() < 0.2 ? dice.pick(Object.keys(SIGNALS)) : undefined;
    this.code = dice.between(0, 255);
    this.pauseMs = dice.between(1000, 6000) * this.pauseEvery / this.lines;
  }

  get script() {
    const { serial, lines, pauseEvery, pauseMs } = this;
    return [
      `echo ${serial} >> ${this.jobs.starts}; i=0`,
      `while [ $i -lt ${lines} ]; do i=$((i+1)); echo "job ${serial} line $i €ä"`,
      `[ $((i % 7)) = 0 ] && echo "job ${serial} error $i" >&2`,
      `[ $((i % ${pauseEvery})) = 0 ] && sleep ${(pauseMs / 1000).toFixed(3)}`,
      `done; ${this.signal ? `kill -${this.signal} $$; sleep 60` : `exit ${this.code}`}`,
    ].join('\n');
  }

  get expected() {
    const numbers = Array.from({ length: this.lines }, (_, index) => index + 1);
    const errors = numbers.filter((number) => number % 7 === 0);
    return {
      stdout: numbers.map((number) => `job ${this.serial} line ${number} €ä\n`).join(''),
      stderr: errors.map((number) => `job ${this.serial} error ${number}\n`).join(''),
    };
  }

  async run() {
    const spec = { command: 'sh', args: ['-c', this.script], cwd: this.jobs.server.workDir, idempotencyKey: `job ${this.serial}` };
    const { id, pid } = await this.client.call('POST', '/v1/processes', spec);
    Object.assign(this, { id, pid });
    this.jobs.alive.set(id, this);
    const follower = new LogFollower(this.client.url, id, this.ledger, (stream, text) => { this.written[stream] += text; });
    try {
      await until(() => follower.isEnded, `end of the log of process ${this.serial} (${id})`, 120_000);
    } finally {
      await follower.close();
    }
    this.ledger.check(follower.problems.length === 0, () => `log of ${id}: ${follower.problems}`);
    this.#checkText(this.written, 'followed');
    await this.#checkEnd();
  }

  async #checkEnd() {
    const info = await until(async () => {
      const now = await this.client.call('GET', `/v1/processes/${this.id}`);
      return now.status === 'exited' && now;
    }, `exit of ${this.id}`);
    const exit = this.signal ? { signal: SIGNALS[this.signal] } : { code: this.code };
    const told = { signal: info.exit?.signal, code: info.exit?.code, reason: info.exitReason };
    const is = told.signal === exit.signal && told.code === exit.code && told.reason === 'exited';
    this.ledger.check(is, () => `process ${this.serial} ended by ${JSON.stringify(exit)}, told is ${JSON.stringify(told)}`);
    const paged = { stdout: '', stderr: '' };
    await readLog(this.client, this.ledger, this.id, (stream, text) => { paged[stream] += text; });
    this.#checkText(paged, 'read');
    this.ledger.count('processes');
    await this.client.call('DELETE', `/v1/processes/${this.id}`).catch((error) => {
      if (error.status !== 404) throw error; // deleted, and the answer was cut off
    });
  }

  #checkText(written, how) {
    const { expected } = this;
    for (const stream of ['stdout', 'stderr']) {
      const is = written[stream] === expected[stream];
      this.ledger.check(is, () => `${stream} of process ${this.serial} (${this.id}), ${how}: ${parting(written[stream], expected[stream])}`);
    }
  }
}
