// A long turn behind a proxy that cuts every connection: the prompt reaches its agent once, and every event its readers.
//
// By default a turn of 40 s with cuts at 3 s. LONG=1 takes what such gateways really do: 5 min 20 s, cut at 30 s.

import assert from 'node:assert/strict';

import { agents } from './lib/agents.mjs';
import { startCuttingProxy } from './lib/cutting_proxy.mjs';
import { scenario } from './lib/scenario.mjs';
import { SessionClient, Watcher } from './lib/session_client.mjs';
import { until } from './lib/wait.mjs';

const isLong = process.env.LONG === '1';
const [TURN_MS, CUT_MS] = isLong ? [320_000, 30_000] : [40_000, 3_000];
const PAUSE_MS = 250;
const DROPS = TURN_MS / PAUSE_MS;
const NAMES = ['mock', 'claude', 'codex'];
const LOST_ANSWERS = 3;

scenario('claude', `completes a turn of ${TURN_MS / 1000} s once, cut off every ${CUT_MS / 1000} s`, async (stage) => {
  const proxy = await startCuttingProxy(stage.server.url, CUT_MS);
  stage.track(proxy);
  await Promise.all(NAMES.map((name) => completesOnce(stage, proxy, name)));
  const expected = Math.floor(TURN_MS / CUT_MS) * NAMES.length;
  assert.ok(proxy.cuts >= expected, `${proxy.cuts} cuts are too few to prove anything`);
}, { also: ['codex'], guardMs: TURN_MS + 180_000 });

async function completesOnce(stage, proxy, name) {
  const client = new SessionClient(proxy.url, { patient: true });
  proxy.swallowAnswers(`session of ${name}`, LOST_ANSWERS);
  const session = await client.create({ agent: name, cwd: stage.server.workDir }, `session of ${name}`);
  assert.equal((await client.list()).filter(({ agent }) => agent === name).length, 1, `more than one session of ${name}`);
  const ofSession = stage.track(new Watcher(`${proxy.url}/v1/sessions/${session.id}/events`));
  const ofServer = stage.track(new Watcher(`${proxy.url}/v1/acp/${session.serverId}`));

  const { drip } = agents[name];
  const { turnId, repeats } = await submitAgainAndAgain(client, proxy, session, drip(DROPS, PAUSE_MS));
  assert.ok(repeats >= 1, 'no answer was lost');
  const turn = await client.ended(session.id, turnId, 2 * CUT_MS);
  assert.equal(turn.outcome, 'finished', JSON.stringify(turn));
  assert.ok(turn.endedAtMs - turn.startedAtMs >= TURN_MS, 'the turn was too short');
  assert.ok(client.cuts >= 3, `the client was cut off only ${client.cuts} times`);

  const direct = new SessionClient(stage.server.url);
  await promptedOnce(stage, direct, session, name);
  const events = await direct.events(session.id);
  await until(() => ofSession.events.length >= events.length, 'all events of the session');
  const newest = (await direct.events(session.id, 'raw')).at(-1);
  await until(() => ofServer.data.some((message) => JSON.stringify(message) === JSON.stringify(newest.envelope)), 'all envelopes');
  for (const watcher of [ofSession, ofServer]) {
    watcher.check();
    assert.ok(watcher.connections > TURN_MS / CUT_MS / 2, `${watcher.connections} connections are too few`);
  }
  assert.deepEqual(ofSession.data, events);
  assertSaidOnce(events, turnId);
}

/** A client that loses its answer and asks again, under the same key. */
async function submitAgainAndAgain(client, proxy, session, text) {
  const cutsBefore = client.cuts;
  proxy.swallowAnswers(`/${session.id}/messages`, LOST_ANSWERS);
  const first = await client.submit(session.id, text, { key: 'once' });
  const again = await client.submit(session.id, text, { key: 'once' });
  assert.deepEqual([again.turnId, again.repeated], [first.turnId, true]);
  return { turnId: first.turnId, repeats: client.cuts - cutsBefore };
}

async function promptedOnce(stage, client, session, name) {
  assert.equal((await client.turns(session.id)).length, 1);
  const raw = await client.events(session.id, 'raw');
  const prompts = raw.filter(({ direction, envelope }) => direction === 'client' && envelope.method === 'session/prompt');
  assert.equal(prompts.length, 1, `${name} was prompted ${prompts.length} times`);
  if (name === 'mock') return;
  const path = { claude: '/v1/messages', codex: '/v1/responses' }[name];
  const asked = stage.provider.requests.filter((request) => request.path === path && request.plan.pauseMs);
  assert.equal(asked.length, 1, `${name} asked its model ${asked.length} times`);
}

/** Every drop is there once, in order, both in the pieces and in the whole. */
function assertSaidOnce(events, turnId) {
  const expected = Array.from({ length: DROPS }, (_, index) => `drop${index}`);
  const ofTurn = events.filter((event) => event.turnId === turnId);
  const drops = (text) => text.match(/drop\d+/g);
  const pieces = ofTurn.filter(({ type, data }) => type === 'item.delta' && data.delta?.type === 'text');
  assert.deepEqual(drops(pieces.map(({ data }) => data.delta.text).join('')), expected);
  const wholes = ofTurn.filter(({ type, data }) => type === 'item.completed' && data.item.role === 'assistant' && data.item.kind === 'message');
  assert.deepEqual(drops(wholes.map(({ data }) => data.item.parts.map(({ text }) => text).join('')).join('')), expected);
}

scenario('mock', 'makes one session, however often it is asked while it is made', async (stage) => {
  const client = new SessionClient(stage.server.url);
  const made = await Promise.all([1, 2, 3].map(() => client.create({ agent: 'mock', cwd: stage.server.workDir }, 'one')));
  assert.equal(new Set(made.map(({ id }) => id)).size, 1, JSON.stringify(made.map(({ id }) => id)));
  const sent = await Promise.all([1, 2, 3].map(() => client.submit(made[0].id, 'hello', { key: 'one' })));
  assert.equal(new Set(sent.map(({ turnId }) => turnId)).size, 1, JSON.stringify(sent));
  await client.ended(made[0].id, sent[0].turnId);
  await stage.server.restart('SIGTERM');
  assert.equal((await client.list()).length, 1);
  assert.equal((await client.turns(made[0].id)).length, 1);
});
