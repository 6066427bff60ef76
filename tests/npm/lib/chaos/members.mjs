// Sessions whose turns never cease: words that drip, tools that ask for permission, questions.

import { createHash } from 'node:crypto';
import fs from 'node:fs';
import path from 'node:path';
import { setTimeout as sleep } from 'node:timers/promises';

import { agents } from '../agents.mjs';
import { ResumingStream } from '../resuming_stream.mjs';
import { guard, until } from '../wait.mjs';
import { Audit } from './recorder.mjs';

const TURN_GUARD_MS = 180_000;
const hash = (text) => createHash('sha256').update(text).digest('base64').slice(0, 16);

/** A stream whose ids are 1, 2, 3 and so on; keeps what it saw as hashes. */
class CountedStream extends ResumingStream {
  hashes = [];

  constructor(url, ledger, onMessage) {
    super(url);
    Object.assign(this, { ledger, onMessage });
  }

  take(kind, id, text) {
    if (kind === 'end') return;
    const wanted = this.hashes.length + 1;
    this.ledger.check(kind === 'message' && id === wanted, () => `${this.url}: ${kind} ${id} instead of message ${wanted}: ${text}`);
    this.hashes.push(hash(text));
    if (kind === 'message') this.onMessage(text);
  }

  /** At the end: there are no more events than these, and a reader who comes only now sees the same. */
  async finish() {
    const again = new CountedStream(this.url, this.ledger, () => {});
    await until(() => again.hashes.length >= this.hashes.length, `all of ${this.url}`, 120_000);
    await sleep(200); // for what must not come
    for (const stream of [this, again]) await stream.close();
    this.ledger.check(this.hashes.join() === again.hashes.join(), () => `${this.url} is not what it was`);
    this.ledger.check(this.problems.length === 0, () => `${this.url}: ${this.problems}`);
  }
}

export class Member {
  /** The first lines of all prompts. */
  prompts = [];
  #turns = new Map();
  #texts = new Map();
  #turnNumber = 0;
  #answering = new Set();
  #stopped = false;

  /** `door` is `sessions` or `acp`: where its prompts go in. */
  static async join(stage, { agent, door, number }) {
    const member = new Member();
    const name = `${agent}-${number}`;
    Object.assign(member, stage, { agentName: agent, agent: agents[agent], door, name, dice: stage.ledger.dice(name), serverId: `chaos-${name}` });
    const { server, client, ledger } = stage;
    const spec = { agent, cwd: server.workDir, serverId: member.serverId };
    const session = await client.create(spec, name);
    Object.assign(member, { id: session.id, acpSessionId: session.acpSessionId, file: path.join(server.workDir, name) });
    const { processes } = await client.call('GET', '/v1/processes?owner=agent');
    member.pid = processes.map(({ pid }) => pid).find((pid) => member.#isRecordOf(pid));
    member.audit = new Audit(ledger, name, member.records, member.pid);
    member.raw = new CountedStream(`${client.url}/v1/acp/${member.serverId}`, ledger, (text) => member.#takeRaw(text));
    member.events = new CountedStream(`${client.url}/v1/sessions/${member.id}/events`, ledger, (text) => member.#takeEvent(JSON.parse(text)));
    return member;
  }

  #isRecordOf(pid) {
    const file = path.join(this.records, `${pid}.out`);
    return fs.existsSync(file) && fs.readFileSync(file, 'utf8').includes(this.acpSessionId);
  }

  /** Begins turn after turn. */
  begin() {
    this.loop = this.#loop();
  }

  /** No new turns; resolves when all is over and compared. */
  async end() {
    this.#stopped = true;
    await this.loop;
    await until(() => {
      this.audit.compare();
      return this.audit.isEven;
    }, `${this.name}: the whole raw log`).catch(() => {});
    await this.raw.finish();
    await this.events.finish();
    this.audit.finish(this.prompts);
    const known = await this.client.get(this.id);
    this.ledger.check(known.state === 'idle' && !known.restored, () => `${this.name} is ${known.state}, restored ${JSON.stringify(known.restored)}`);
    for (const [turnId, { ends }] of this.#turns) this.ledger.check(ends.length === 1, () => `${turnId} of ${this.name} ended ${ends.length} times: ${JSON.stringify(ends)}`);
  }

  async #loop() {
    while (!this.#stopped) {
      const text = `turn ${this.prompts.length} of ${this.name}.`;
      this.prompts.push(text);
      const turn = this.#turn(text);
      const failed = (error) => {
        this.ledger.violate(`"${text}": ${error.stack}`);
        this.#stopped = true;
      };
      await guard(turn, `end of "${text}"`, TURN_GUARD_MS).catch(failed);
      await sleep(this.dice.between(0, 200));
    }
  }

  async #turn(text) {
    const { order, check } = this.#order();
    let said = await this.#say(`${text}\n${order}`, text);
    // The server died between writing down that the turn begins and sending it. A client whose POST was cut off has no promise:
    // it is told, and may say it again. The agent's record shows that it read it once.
    while (this.door === 'acp' && said.outcome === 'lost' && said.reason === 'server_restarted') {
      this.ledger.count('neverSent');
      said = await this.#say(`${text}\n${order}`, text);
    }
    const { id, outcome, stopReason, ...rest } = said;
    const ended = outcome === 'finished' && stopReason === 'end_turn';
    this.ledger.check(ended, () => `"${text}" ended as ${outcome}, ${stopReason}: ${JSON.stringify(rest)}`);
    const seen = await until(() => this.#turns.get(id)?.ends.length && this.#turns.get(id), `turn.ended of "${text}"`);
    check(seen, `"${text}"`);
    this.ledger.count('turns');
    this.#turns.set(id, { ends: seen.ends }); // the rest is checked
  }

  /** What the agent shall do next, and how to see that it did. */
  #order() {
    const { dice } = this;
    if (dice.throw() < 0.6) {
      const count = dice.between(10, 60);
      const expected = Array.from({ length: count }, (_, index) => `drop${index}`).join();
      const check = ({ pieces, whole }, text) => {
        for (const said of [pieces, whole]) {
          const drops = said.join('').match(/drop\d+/g) ?? [];
          this.ledger.check(drops.join() === expected, () => `${text} of ${this.name}: ${drops} instead of ${count} drops`);
        }
      };
      return { order: this.agent.drip(count, dice.between(10, 80)), check };
    }
    return this.agentName === 'mock' ? this.#mockOrder() : this.#commandOrder();
  }

  #mockOrder() {
    const file = `${this.file}-${this.prompts.length}`;
    const words = `created ${file}answered: yes`;
    const check = ({ whole }, text) => {
      this.ledger.check(whole.join('').includes(words), () => `${text} said "${whole}"`);
      this.ledger.check(fs.existsSync(file), () => `${text} made no file`);
    };
    return { order: `/tool ${file}\n/question yes or no`, check };
  }

  /** A command that leaves one line in a file: twice is a violation, too. */
  #commandOrder() {
    const [number, steps] = [this.prompts.length, this.dice.between(1, 5)];
    const command = `for i in $(seq ${steps}); do echo step $i; sleep 0.2; done; echo ${number} >> ${this.file}`;
    const check = ({ whole }, text) => {
      const times = fs.existsSync(this.file) ? fs.readFileSync(this.file, 'utf8').split('\n').filter((line) => line === String(number)).length : 0;
      this.ledger.check(times === 1, () => `${text}: its command ran ${times} times`);
      this.ledger.check(whole.join('').includes('done'), () => `${text} said "${whole}"`);
    };
    return { order: `RUN: ${command}`, check };
  }

  async #say(prompt, text) {
    const { client } = this;
    if (this.door === 'sessions') {
      const { turnId } = await client.submit(this.id, prompt, { key: text });
      return client.ended(this.id, turnId);
    }
    // Nobody tells whether a POST that was cut off got through; the turns do. It is repeated only when it didn't.
    for (;;) {
      const isCut = this.#post({ id: text, method: 'session/prompt', params: { sessionId: this.acpSessionId, prompt: [{ type: 'text', text: prompt }] } });
      for (let wasCut = false; ;) {
        const known = await this.#newTurn();
        if (known) return client.ended(this.id, known);
        if (wasCut) break;
        wasCut = await Promise.race([isCut, sleep(50)]);
      }
    }
  }

  /** The turn behind the last one that was seen here. */
  async #newTurn() {
    const { turns } = await this.client.call('GET', `/v1/sessions/${this.id}/turns?after=${this.#turnNumber}`);
    if (turns.length === 0) return undefined;
    this.ledger.check(turns.length === 1, () => `${this.name}: ${turns.length} turns instead of one`);
    this.#turnNumber = turns.at(-1).number;
    return turns.at(-1).id;
  }

  /** Posts an envelope; true when it was cut off. */
  async #post(envelope) {
    const init = { method: 'POST', headers: { 'content-type': 'application/json' }, body: JSON.stringify({ jsonrpc: '2.0', ...envelope }) };
    try {
      const response = await fetch(`${this.client.url}/v1/acp/${this.serverId}`, init);
      const text = await response.text();
      this.ledger.check(response.ok, () => `POST to ${this.name}: ${response.status} ${text}`);
      return false;
    } catch {
      return true;
    }
  }

  #takeRaw(text) {
    this.audit.take(text);
    if (this.door !== 'acp') return;
    const { id, method, params } = JSON.parse(text);
    if (id !== undefined && method !== undefined) this.#decide(JSON.stringify(id), () => this.#answerOverAcp(id, method, params));
  }

  #takeEvent({ sequence, type, turnId, data }) {
    const turn = this.#turnOf(turnId ?? data.turnId);
    if (type === 'turn.ended') turn.ends.push({ sequence, ...data });
    if (type === 'item.delta' && data.delta?.type === 'text') {
      this.#texts.set(data.itemId, (this.#texts.get(data.itemId) ?? '') + data.delta.text);
      turn.pieces?.push(data.delta.text);
    }
    if (type === 'item.completed') this.#takeItem(data.item, turn);
    if (type === 'request.created' && this.door !== 'acp') this.#decide(data.requestId, () => this.#resolve(data));
    if (type === 'request.resolved') this.ledger.count('decisions');
    if (type === 'session.restored' || type === 'agent.unparsed') this.ledger.violate(`${this.name}: ${type} ${JSON.stringify(data)}`);
  }

  #turnOf(id) {
    const turn = this.#turns.get(id) ?? { pieces: [], whole: [], ends: [] };
    if (id) this.#turns.set(id, turn);
    return turn;
  }

  /** The whole of a message is its pieces. */
  #takeItem({ itemId, kind, role, parts }, turn) {
    const pieces = this.#texts.get(itemId) ?? '';
    this.#texts.delete(itemId);
    if (kind !== 'message' || role !== 'assistant') return;
    const text = parts.map((part) => part.text ?? '').join('');
    this.ledger.check(text === pieces, () => `${itemId} of ${this.name} is "${text}", its pieces are "${pieces}"`);
    turn.whole?.push(text);
  }

  /** Once for each request, after a moment. */
  #decide(key, decide) {
    if (this.#answering.has(key)) return;
    this.#answering.add(key);
    sleep(this.dice.between(0, 600)).then(decide).catch((error) => this.ledger.violate(`deciding ${key} of ${this.name}: ${error.stack}`))
      .finally(() => this.door === 'acp' && this.#answering.delete(key));
  }

  #resolve({ requestId, kind }) {
    const body = kind === 'permission' ? { decision: 'allow' } : { decision: 'allow', content: { answer: 'yes' } };
    return this.client.call('POST', `/v1/requests/${requestId}/resolve`, body);
  }

  /** As a client of ACP does; sent again when it was cut off, as nobody tells whether it got through. */
  async #answerOverAcp(id, method, params) {
    const option = params.options?.find(({ kind }) => kind === 'allow_once')?.optionId;
    const result = method === 'elicitation/create' ? { action: 'accept', content: { answer: 'yes' } } : { outcome: { outcome: 'selected', optionId: option } };
    while (await this.#post({ id, result })) await sleep(20);
  }
}
