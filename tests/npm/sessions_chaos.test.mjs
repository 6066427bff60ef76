// Twenty sessions at once, watched from two doors, while doors and the server die.
//
// Real agents: all twenty sessions of the first test (7 Claude Code, 7 Codex, 6 OpenCode), with REAL_ROUNDS rounds in which
// the server dies. More rounds meet twenty sessions of the mock, which come back at once.

import assert from 'node:assert/strict';
import { setTimeout as sleep } from 'node:timers/promises';

import { agents } from './lib/agents.mjs';
import { RemoteClient } from './lib/remote_client.mjs';
import { scenario } from './lib/scenario.mjs';
import { SessionClient, Watcher } from './lib/session_client.mjs';
import { until } from './lib/wait.mjs';

const REAL_ROUNDS = 10;
const MOCK_ROUNDS = 7;
const [DROPS, PAUSE_MS] = [30, 50];
const EXPECTED = Array.from({ length: DROPS }, (_, index) => `drop${index}`);
const GUARD_MS = 900_000;

scenario('claude', 'with codex and opencode: twenty sessions outlive their doors and the server', async (stage) => {
  const crowd = await Crowd.gather(stage, { claude: 7, codex: 7, opencode: 6 });
  await crowd.everyone((member) => member.client.finish(member.id, `hello ${member.id}`));
  await remoteDoorDies(crowd);
  await rawDoorDies(crowd);
  for (let round = 0; round < REAL_ROUNDS; round += 1) await serverDies(crowd, round);
  await remoteSeesAll(crowd);
  await crowd.everyone((member) => assertRemembers(stage, member));
  await crowd.everyone((member) => member.assertPromptedOnce());
  assert.ok(crowd.lost > 0, 'no turn was under way when the server died');
}, { also: ['codex', 'opencode'], guardMs: GUARD_MS });

scenario('mock', 'twenty sessions outlive the server', async (stage) => {
  const crowd = await Crowd.gather(stage, { mock: 20 });
  await rawDoorDies(crowd);
  for (let round = 0; round < MOCK_ROUNDS; round += 1) await serverDies(crowd, round);
  await crowd.everyone((member) => member.assertPromptedOnce());
  assert.ok(crowd.lost > 0, 'no turn was under way when the server died');
}, { guardMs: GUARD_MS });

/** Sessions with their watchers. */
class Crowd {
  /** Turns that were lost, so far. */
  lost = 0;

  static async gather(stage, counts) {
    const crowd = new Crowd();
    crowd.stage = stage;
    const names = Object.entries(counts).flatMap(([name, count]) => Array(count).fill(name));
    crowd.members = await Promise.all(names.map((name) => Member.join(stage, name)));
    return crowd;
  }

  everyone(action) {
    return Promise.all(this.members.map(action));
  }

  /** All are listed, and every event that any watcher saw is there once. */
  async check() {
    const { client } = this.members[0];
    const listed = (await client.list()).map(({ id }) => id);
    assert.deepEqual(listed.sort(), this.members.map(({ id }) => id).sort());
    await this.everyone((member) => member.checkSession());
    for (const serverId of new Set(this.members.map((member) => member.serverId))) await this.#checkServer(serverId);
  }

  async #checkServer(serverId) {
    const members = this.members.filter((member) => member.serverId === serverId);
    const fresh = new Watcher(members[0].ofServer.url);
    try {
      const count = () => Math.max(...members.map(({ ofServer }) => ofServer.events.length));
      await until(() => fresh.events.length >= count(), `all envelopes of ${serverId}`);
      fresh.check();
      for (const { ofServer } of members) {
        ofServer.check();
        const [one, other] = [ofServer.events, fresh.events].map((events) => events.slice(0, Math.min(ofServer.events.length, fresh.events.length)));
        assert.deepEqual(one, other);
      }
    } finally {
      await fresh.close();
    }
  }
}

/** One session, followed as a session and as a part of its ACP server. */
class Member {
  static async join(stage, name) {
    const member = new Member();
    member.client = new SessionClient(stage.server.url, { patient: true });
    member.agent = agents[name];
    const session = await member.client.create({ agent: name, cwd: stage.server.workDir });
    Object.assign(member, { name, id: session.id, serverId: session.serverId, acpSessionId: session.acpSessionId });
    member.ofSession = stage.track(new Watcher(`${stage.server.url}/v1/sessions/${member.id}/events`));
    member.ofServer = stage.track(new Watcher(`${stage.server.url}/v1/acp/${member.serverId}`));
    return member;
  }

  get drip() {
    return this.agent.drip(DROPS, PAUSE_MS);
  }

  async checkSession() {
    const events = await this.client.events(this.id);
    await until(() => this.ofSession.events.length >= events.length, `all events of ${this.name} ${this.id}`);
    this.ofSession.check();
    assert.deepEqual(this.ofSession.data.slice(0, events.length), events);
  }

  /** What was said in a turn, in the pieces and in the whole. */
  async saidIn(turnId) {
    const ofTurn = (await this.client.events(this.id)).filter((event) => event.turnId === turnId);
    const isAnswer = ({ type, data }) => type === 'item.completed' && data.item.role === 'assistant' && data.item.kind === 'message';
    const drops = (texts) => texts.join('').match(/drop\d+/g) ?? [];
    return {
      pieces: drops(ofTurn.filter(({ data }) => data.delta?.type === 'text').map(({ data }) => data.delta.text)),
      whole: drops(ofTurn.filter(isAnswer).flatMap(({ data }) => data.item.parts.map(({ text }) => text))),
      ends: ofTurn.filter(({ type }) => type === 'turn.ended').map(({ data }) => [data.outcome, data.reason]),
    };
  }

  /** A turn that ended by itself is told whole, and once. */
  async assertWhole(turn) {
    assert.equal(turn.outcome, 'finished', JSON.stringify(turn));
    assert.deepEqual(await this.saidIn(turn.id), { pieces: EXPECTED, whole: EXPECTED, ends: [['finished', undefined]] });
  }

  /**
   * No turn was sent to the agent twice. The raw log may have a prompt twice: one that waited for its agent to be restored
   * when the server died was never sent, and comes again. That a turn begins is in the file before it is sent.
   */
  async assertPromptedOnce() {
    const begun = (await this.client.events(this.id)).filter(({ type }) => type === 'turn.started').map(({ data }) => data.turnId);
    assert.equal(new Set(begun).size, begun.length);
  }

  /** One that was under way when the server died is lost, and says so; one that wasn't is whole. */
  async assertHonest(turn) {
    if (turn.outcome === 'finished') return this.assertWhole(turn);
    assert.deepEqual([turn.outcome, turn.reason], ['lost', 'server_restarted'], JSON.stringify(turn));
    const { pieces, whole, ends } = await this.saidIn(turn.id);
    assert.deepEqual(pieces, EXPECTED.slice(0, pieces.length));
    assert.deepEqual(whole, EXPECTED.slice(0, whole.length));
    assert.deepEqual(ends, [['lost', 'server_restarted']]);
  }
}

/** Everybody who reads raw envelopes is cut off in mid-turn and comes back later. */
async function rawDoorDies(crowd) {
  const turns = await crowd.everyone((member) => member.client.submit(member.id, member.drip, { key: 'raw' }));
  await crowd.everyone(({ ofSession }) => until(() => ofSession.data.some(({ data }) => data.delta?.text?.includes('drop')), 'the first drops'));
  for (const { ofServer } of crowd.members) ofServer.leave();
  await crowd.everyone(async (member, index) => member.assertWhole(await member.client.ended(member.id, turns[index].turnId)));
  for (const { ofServer } of crowd.members) ofServer.return();
  await crowd.check();
}

/** A client of ACP's own remote transport leaves in mid-turn; the turn goes on, and another sees it whole. */
async function remoteDoorDies(crowd) {
  const { stage } = crowd;
  const firsts = ['claude', 'codex', 'opencode'].map((name) => crowd.members.find((member) => member.name === name));
  await Promise.all(firsts.map(async (member) => {
    const query = `?agent=${member.name}&server=${member.serverId}`;
    const one = await RemoteClient.open(stage, 'http', { query });
    await one.load(member.acpSessionId, stage.server.workDir);
    const { turnId } = await member.client.submit(member.id, member.drip, { key: 'remote' });
    await until(() => one.textOf(member.acpSessionId).includes('drop'), 'the first drops');
    await one.leave();
    await member.assertWhole(await member.client.ended(member.id, turnId));

    const other = await RemoteClient.open(stage, 'websocket', { query });
    await other.load(member.acpSessionId, stage.server.workDir);
    const seen = () => other.textOf(member.acpSessionId).match(/drop\d+/g) ?? [];
    await until(() => seen().length >= DROPS, 'the whole turn again');
    assert.deepEqual(seen(), EXPECTED);
    await other.leave();
  }));
}

/** A client of the remote transport that comes after all that is told what was said, lost turns included. */
async function remoteSeesAll(crowd) {
  const firsts = ['claude', 'codex', 'opencode'].map((name) => crowd.members.find((member) => member.name === name));
  await Promise.all(firsts.map(async (member) => {
    const client = await RemoteClient.open(crowd.stage, 'http', { query: `?agent=${member.name}&server=${member.serverId}` });
    await client.load(member.acpSessionId, crowd.stage.server.workDir);
    const turns = await member.client.turns(member.id);
    const said = [];
    for (const { id } of turns) said.push(...(await member.saidIn(id)).pieces);
    const seen = () => client.textOf(member.acpSessionId).match(/drop\d+/g) ?? [];
    await until(() => seen().length >= said.length, `all that was said in ${member.name}`);
    assert.deepEqual(seen(), said);
    await client.leave();
  }));
}

/** SIGKILL at a random moment from the first message to the end of everybody's turn; every second time once more, on coming back. */
async function serverDies(crowd, round) {
  const key = `death ${round}`;
  const known = (await crowd.everyone(({ client, id }) => client.turns(id))).map(({ length }) => length);
  const submitting = crowd.everyone((member) => member.client.submit(member.id, member.drip, { key }));
  submitting.catch(() => {}); // awaited below
  await sleep(Math.random() * DROPS * PAUSE_MS);
  await crowd.stage.server.restart('SIGKILL');
  if (round % 2) {
    await sleep(Math.random() * 500);
    await crowd.stage.server.restart('SIGKILL');
  }
  const turns = await submitting;
  await crowd.everyone(async (member, index) => {
    const turn = await member.client.ended(member.id, turns[index].turnId);
    await member.assertHonest(turn);
    crowd.lost += turn.outcome === 'lost';
    const { turnId } = await member.client.submit(member.id, `after ${key} in ${member.id}`, { key: `after ${key}` });
    assert.equal((await member.client.ended(member.id, turnId)).outcome, 'finished');
    assert.equal((await member.client.turns(member.id)).length, known[index] + 2);
  });
  await crowd.check();
}

function assertRemembers(stage, member) {
  const about = stage.provider.requests.filter(({ aside, plan }) => !aside && plan.text?.includes(`in ${member.id}`));
  assert.ok(JSON.stringify(about.at(-1)?.body ?? null).includes(`hello ${member.id}`), `${member.name} forgot the beginning`);
}
