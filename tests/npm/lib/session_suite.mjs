// What every agent has to do in a session of `/v1/sessions`; sessions_real.test.mjs runs this table for each of them.

import assert from 'node:assert/strict';
import fs from 'node:fs';
import path from 'node:path';

import { agents } from './agents.mjs';
import { post } from './event_stream.mjs';
import { scenario } from './scenario.mjs';
import { SessionClient, Watcher } from './session_client.mjs';
import { guard, until } from './wait.mjs';

/** `canSteer`: a message can join the turn under way. `otherModel`: a model that it offers beside its first. */
export function sessionSuite(name, { canSteer, otherModel }) {
  const it = (title, body) => scenario(name, `session ${title}`, body, { guardMs: 180_000 });
  const { permissiveMode } = agents[name];

  it('shows messages, tool calls, decisions and usage as events', async (stage) => {
    const { client, session } = await openSession(stage);
    const watcher = stage.track(new Watcher(`${client.url}/v1/sessions/${session.id}/events`));
    const hello = await client.finish(session.id, 'hello wide world');
    assert.equal(hello.stopReason, 'end_turn');

    const { turnId } = await client.submit(session.id, stage.agent.createFile(stage.file('made')));
    await client.untilState(session.id, 'waiting');
    await answerPermission(stage, client, session, 'allow_once');
    const turn = await client.ended(session.id, turnId);
    assert.equal(turn.outcome, 'finished', JSON.stringify(turn));
    assert.ok(fs.existsSync(stage.file('made')), 'the tool made no file');

    const events = await client.events(session.id);
    assertTurnsAreTold(events, [hello.id, turnId]);
    assertMessageIsJoined(events, hello.id, 'echo: hello wide world');
    assertToolCallIsOneItem(events, turnId, stage.file('made'));
    const kinds = events.filter((event) => event.type.startsWith('request.')).map(({ type, data }) => [type, data.outcome]);
    assert.deepEqual(kinds, [['request.created', undefined], ['request.resolved', 'allowed']]);
    const states = events.filter(({ type }) => type === 'session.state').map(({ data }) => data.state);
    assert.deepEqual(states, ['idle', 'running', 'idle', 'running', 'waiting', 'running', 'idle']);

    const { used, size } = (await client.get(session.id)).usage;
    assert.ok(used > 0 && size > used, `usage: ${used} of ${size}`);
    await until(() => watcher.events.length >= events.length, 'all events on the stream');
    watcher.check();
    assert.deepEqual(watcher.data.slice(0, events.length), events);
    await assertSnapshotIsTheSame(client, session.id, events);
  });

  it('is made with mode and model, is changed, and closed', async (stage) => {
    const client = new SessionClient(stage.server.url);
    const spec = { agent: name, cwd: stage.server.workDir, title: 'ours', mode: permissiveMode, model: otherModel };
    const session = await client.create(spec, 'the same');
    assert.equal(session.serverId, `sessions-${name}`);
    assert.equal(session.mode, permissiveMode);
    assert.equal(session.model, otherModel);
    assert.equal((await client.create(spec, 'the same')).id, session.id);
    await assert.rejects(client.create({ ...spec, mode: 'no such mode' }), (error) => error.status === 422 && error.message.includes(permissiveMode));

    // Nobody is asked in this mode.
    await client.finish(session.id, stage.agent.createFileUnasked(stage.file('first')));
    assert.ok(fs.existsSync(stage.file('first')), 'the mode has no effect');
    assert.equal(stage.provider.requests.findLast(({ aside }) => !aside).body.model, otherModel.split('/').at(-1));

    const changed = await client.call('PATCH', `/v1/sessions/${session.id}`, { mode: session.modes?.availableModes.find(({ id }) => id === 'plan') ? 'plan' : undefined, title: 'yours' });
    assert.equal(changed.title, 'yours');
    await client.call('POST', `/v1/sessions/${session.id}/close`);
    await assert.rejects(client.submit(session.id, 'too late'), (error) => error.status === 409);
    const closed = await client.get(session.id);
    assert.equal(closed.state, 'exited');
    assert.equal(closed.exit.reason, 'closed');
    const listed = await client.list();
    assert.deepEqual(listed.map(({ id, title }) => [id, title]), [[session.id, 'yours']], 'a refused session stays, or a closed one is gone');

    await client.call('POST', `/v1/sessions/${session.id}/reopen`);
    await client.finish(session.id, 'back again');
    assertSaw(stage, 'back again', path.basename(stage.file('first')));
  });

  it('takes messages while a turn is under way', async (stage) => {
    const { client, session } = await openSession(stage);
    const { turnId: endless } = await client.submit(session.id, stage.agent.hang);
    await underWay(stage);
    await assert.rejects(client.submit(session.id, 'now or never', { whileRunning: 'reject' }), (error) => error.status === 409);
    const queued = [await client.submit(session.id, 'second in line'), await client.submit(session.id, 'third in line')];
    assert.deepEqual(queued.map(({ delivery, position }) => [delivery, position]), [['queued', 1], ['queued', 2]]);
    const dropped = await client.submit(session.id, 'never said');
    await client.call('DELETE', `/v1/sessions/${session.id}/turns/${dropped.turnId}`);
    const first = await client.submit(session.id, 'first after all', { whileRunning: 'interrupt' });

    const ended = [];
    for (const { turnId } of [{ turnId: endless }, first, ...queued, dropped]) ended.push(await client.ended(session.id, turnId));
    assert.deepEqual(ended.map(({ outcome }) => outcome), ['cancelled', 'finished', 'finished', 'finished', 'cancelled'], JSON.stringify(ended));
    assert.equal(ended[0].reason, 'interrupted');
    const started = ended.slice(0, 4).map(({ startedAtMs }) => startedAtMs);
    assert.deepEqual(started, started.toSorted((one, other) => one - other), 'the turns ran in another order');
    assert.equal(stage.modelRequestAbout('never said'), 'null');
    await guard(stage.provider.when(({ hanging }) => hanging === 0), 'the agent to drop its model request', 30_000);
  });

  it(canSteer ? 'is steered in mid-turn' : 'queues what it can not steer', async (stage) => {
    const { client, session } = await openSession(stage);
    const watcher = stage.track(new Watcher(`${client.url}/v1/sessions/${session.id}/events`));
    const { turnId } = await client.submit(session.id, stage.agent.drip(40, 50));
    await until(() => watcher.data.some(({ data }) => data.delta?.text?.includes('drop')), 'the first drops');
    const steered = await client.submit(session.id, 'mind the gap', { whileRunning: 'steer' });
    assert.equal(steered.delivery, canSteer ? 'steered' : 'queued');
    assert.equal(steered.turnId === turnId, canSteer);
    assert.equal((await client.ended(session.id, turnId)).outcome, 'finished');
    assert.equal((await client.ended(session.id, steered.turnId)).outcome, 'finished');

    assertSaw(stage, 'mind the gap', 'drop39');
    assert.equal((await client.turns(session.id)).length, canSteer ? 1 : 2);
    const said = (await client.events(session.id)).filter(({ type, data }) => type === 'item.completed' && data.item.role === 'user');
    assert.deepEqual(said.map(({ turnId, data }) => [turnId, data.item.parts.at(-1).text]), [
      [turnId, stage.agent.drip(40, 50)],
      [steered.turnId, 'mind the gap'],
    ]);
  });

  it('goes on after its agent was killed, and after restarts of the server', async (stage) => {
    const { client, session } = await openSession(stage);
    await client.finish(session.id, 'words of the beginning');
    await stage.untilSaved('words of the beginning');
    const watcher = stage.track(new Watcher(`${client.url}/v1/sessions/${session.id}/events`));

    await losesTurn(stage, client, session, 'agent_exited', () => stage.killAgent());
    await comesBack(stage, client, session, 'after the death of the agent');
    await stage.untilSaved('after the death of the agent');

    await losesTurn(stage, client, session, 'server_restarted', () => stage.server.restart('SIGKILL'));
    await comesBack(stage, client, session, 'after the death of the server');

    await losesTurn(stage, client, session, 'server_stopped', () => stage.server.restart('SIGTERM'));
    await comesBack(stage, client, session, 'after a stop of the server');
    await client.finish(session.id, 'and on it goes');

    const events = await client.events(session.id);
    await until(() => watcher.events.length >= events.length, 'all events on the stream');
    watcher.check();
    assert.deepEqual(watcher.data, events);
    assert.equal(events.filter(({ type }) => type === 'session.restored').length, 3);
    assert.equal((await client.get(session.id)).stats.turns, 8);
  });

  it('is told in words what its agent forgot', async (stage) => {
    const { client, session } = await openSession(stage);
    await client.finish(session.id, 'words of the beginning');
    // At once: an agent that writes its history late has lost it. What the session says of it must be true either way.
    const victim = await stage.killAgent();
    await until(() => !fs.existsSync(`/proc/${victim}`), 'end of the agent process');
    await client.finish(session.id, 'what was it');
    const { method, history } = (await client.get(session.id)).restored;
    assert.equal(history, method === 'session/new' ? 'transcript' : 'kept', method);
    assertSaw(stage, 'what was it', 'words of the beginning');

    await stage.server.stop('SIGTERM');
    fs.rmSync(path.join(stage.server.home, stage.agent.memory), { recursive: true });
    await stage.server.start();
    await client.finish(session.id, 'what was it now');
    const { restored, acpSessionId } = await client.get(session.id);
    assert.equal(restored.method, 'session/new');
    assert.equal(restored.history, 'transcript');
    assert.ok(restored.transcriptBytes > 0);
    assert.equal(acpSessionId, session.acpSessionId);
    for (const words of ['words of the beginning', 'what was it', 'echo: what was it']) assertSaw(stage, 'what was it now', words);
    const shown = (await client.snapshot(session.id)).items.filter(({ kind, role }) => kind === 'message' && role === 'user');
    assert.deepEqual(shown.map(({ parts }) => parts.map(({ text }) => text)), [['words of the beginning'], ['what was it'], ['what was it now']]);
  });
}

async function openSession(stage) {
  const client = new SessionClient(stage.server.url);
  return { client, session: await client.create({ agent: stage.agentName, cwd: stage.server.workDir }) };
}

function underWay(stage) {
  return guard(stage.provider.when(({ hanging }) => hanging > 0), 'begin of the endless turn', 60_000);
}

/** Answers the one pending permission request as a client of ACP does. */
async function answerPermission(stage, client, session, kind) {
  const { requests } = await client.snapshot(session.id);
  assert.equal(requests.length, 1, JSON.stringify(requests));
  const [{ agentRequestId, options }] = requests;
  const { optionId } = options.find((option) => option.kind === kind);
  const answer = { id: JSON.parse(agentRequestId), result: { outcome: { outcome: 'selected', optionId } } };
  assert.equal((await post(stage.server, session.serverId, answer)).status, 202);
}

/** A turn that is under way when `strike` happens ends as lost, and says why. */
async function losesTurn(stage, client, session, reason, strike) {
  const { turnId } = await client.submit(session.id, stage.agent.hang);
  await underWay(stage);
  await strike();
  const turn = await client.ended(session.id, turnId);
  assert.deepEqual([turn.outcome, turn.reason], ['lost', reason], JSON.stringify(turn));
  await guard(stage.provider.when(({ hanging }) => hanging === 0), 'end of the lost turn at the model', 30_000);
}

/** The next message works, and the agent knows what was said before. */
async function comesBack(stage, client, session, text) {
  const before = Date.now();
  await client.finish(session.id, text);
  const { restored, state, exit } = await client.get(session.id);
  assert.equal(state, 'idle');
  assert.equal(exit, undefined);
  assert.ok(['session/resume', 'session/load'].includes(restored.method), JSON.stringify(restored));
  assert.equal(restored.history, 'kept');
  assert.ok(restored.atMs >= before, 'it was not restored for this message');
  assertSaw(stage, text, 'words of the beginning');
}

function assertSaw(stage, text, earlier) {
  const request = stage.modelRequestAbout(text);
  assert.ok(request !== 'null', `the model was never asked "${text}"`);
  assert.ok(request.includes(earlier), `asked "${text}", the model did not see "${earlier}"`);
}

function assertTurnsAreTold(events, turnIds) {
  const of = (type) => events.filter((event) => event.type === type).map(({ data }) => data.turnId);
  for (const type of ['turn.queued', 'turn.started', 'turn.ended']) assert.deepEqual(of(type), turnIds, type);
  assert.deepEqual(events.map(({ sequence }) => sequence), events.map((_, index) => index + 1));
}

/** The pieces of the answer are those of one item, which has them all in the end. */
function assertMessageIsJoined(events, turnId, text) {
  const ofTurn = events.filter((event) => event.turnId === turnId);
  const completed = ofTurn.filter(({ type, data }) => type === 'item.completed' && data.item.role === 'assistant' && data.item.kind === 'message');
  const item = completed.map(({ data }) => data.item).find(({ parts }) => parts.at(-1)?.text === text);
  assert.ok(item, `no item says "${text}": ${JSON.stringify(completed)}`);
  const deltas = ofTurn.filter(({ type, data }) => type === 'item.delta' && data.itemId === item.itemId);
  assert.equal(deltas.map(({ data }) => data.delta.text).join(''), text);
}

function assertToolCallIsOneItem(events, turnId, file) {
  const ofTurn = events.filter((event) => event.turnId === turnId);
  const started = ofTurn.filter(({ type, data }) => type === 'item.started' && data.item.kind === 'tool_call');
  assert.equal(started.length, 1, `${started.length} tool calls`);
  const { itemId } = started[0].data.item;
  assert.ok(ofTurn.some(({ type, data }) => type === 'item.delta' && data.itemId === itemId && data.update), 'no update of the tool call');
  const { item } = ofTurn.find(({ type, data }) => type === 'item.completed' && data.item.itemId === itemId).data;
  assert.equal(item.status, 'completed');
  const call = item.parts.find(({ type }) => type === 'tool_call');
  assert.ok(JSON.stringify(call.arguments).includes(file), JSON.stringify(call));
  assert.equal(item.toolCall.status, 'completed');
}

async function assertSnapshotIsTheSame(client, id, events) {
  const { items, sequence, turns, requests } = await client.snapshot(id);
  const completed = events.filter(({ type }) => type === 'item.completed').map(({ data }) => data.item);
  assert.deepEqual(items.map(({ itemId }) => itemId).toSorted(), completed.map(({ itemId }) => itemId).toSorted());
  for (const { itemId, parts, status } of completed) {
    const item = items.find((candidate) => candidate.itemId === itemId);
    assert.deepEqual([item.parts, item.status], [parts, status]);
  }
  assert.deepEqual([sequence, turns, requests], [events.length, [], []]);
}
