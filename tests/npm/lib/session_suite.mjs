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
  const it = (title, body) => scenario(name, `a session ${title}`, body, { guardMs: 240_000 });

  // One server for all of it: some agents take many seconds to start.
  it('shows, asks, queues, is steered, interrupted, changed and closed', async (stage) => {
    await showsEvents(stage);
    await takesModeAndModel(stage, agents[name].permissiveMode, otherModel);
    await takesMessagesInMidTurn(stage);
    await isSteered(stage, canSteer);
  });

  it('goes on after its agent was killed, and after restarts of the server', async (stage) => {
    const { client, session } = await openSession(stage);
    await client.finish(session.id, 'words of the beginning');
    await stage.untilSaved('words of the beginning');
    const watcher = stage.track(new Watcher(`${client.url}/v1/sessions/${session.id}/events`));

    const strikes = [
      ['agent_exited', () => stage.killAgent()],
      ['server_restarted', () => stage.server.restart('SIGKILL')],
      ['server_stopped', () => stage.server.restart('SIGTERM')],
    ];
    for (const [reason, strike] of strikes) {
      const before = Date.now();
      await losesTurn(stage, client, session, reason, strike);
      await comesBack(stage, client, session, `after ${reason}`, before);
      await stage.untilSaved(`after ${reason}`);
    }
    await client.finish(session.id, 'and on it goes');

    const events = await client.events(session.id);
    await until(() => watcher.events.length >= events.length, 'all events on the stream');
    watcher.check();
    assert.deepEqual(watcher.data, events);
    assert.equal(events.filter(({ type }) => type === 'session.restored').length, 3);
    assert.equal((await client.get(session.id)).stats.turns, 11);
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
    forget(stage);
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

/** Messages, tool calls, decisions and usage as projected events. */
async function showsEvents(stage) {
  const { client, session } = await openSession(stage);
  const watcher = stage.track(new Watcher(`${client.url}/v1/sessions/${session.id}/events`));
  const hello = await client.finish(session.id, 'hello wide world');
  assert.equal(hello.stopReason, 'end_turn');
  const turns = [hello.id];
  for (const [file, answer] of [['one', answerOverHttp], ['two', answerOverAcp]]) {
    const { turnId } = await client.submit(session.id, stage.agent.createFile(stage.file(file)));
    await client.untilState(session.id, 'waiting');
    await answer(stage, client, session, 'allow_once');
    const turn = await client.ended(session.id, turnId);
    assert.equal(turn.outcome, 'finished', JSON.stringify(turn));
    assert.ok(fs.existsSync(stage.file(file)), 'the tool made no file');
    turns.push(turnId);
  }

  const events = await client.events(session.id);
  assertTurnsAreTold(events, turns);
  assertMessageIsJoined(events, hello.id, 'echo: hello wide world');
  assertToolCallIsOneItem(events, turns[1], stage.file('one'));
  const decisions = events.filter(({ type }) => type === 'request.resolved').map(({ data }) => [data.outcome, data.by]);
  assert.deepEqual(decisions, [['allowed', 'api:the suite'], ['allowed', 'client']]);
  const states = events.filter(({ type }) => type === 'session.state').map(({ data }) => data.state);
  const asking = ['running', 'waiting', 'running', 'idle'];
  assert.deepEqual(states, ['idle', 'running', 'idle', ...asking, ...asking]);

  const { used, size } = (await client.get(session.id)).usage;
  assert.ok(used > 0 && size > used, `usage: ${used} of ${size}`);
  await until(() => watcher.events.length >= events.length, 'all events on the stream');
  watcher.check();
  assert.deepEqual(watcher.data, events);
  await assertSnapshotIsTheSame(client, session.id, events);
}

/** Made with mode and model, changed, closed and opened again. */
async function takesModeAndModel(stage, mode, model) {
  const client = new SessionClient(stage.server.url);
  const spec = { agent: stage.agentName, cwd: stage.server.workDir, title: 'ours', mode, model };
  const session = await client.create(spec, 'the same');
  assert.deepEqual([session.serverId, session.mode, session.model], [`sessions-${stage.agentName}`, mode, model]);
  assert.equal((await client.create(spec, 'the same')).id, session.id);
  const before = (await client.list()).length;
  await assert.rejects(client.create({ ...spec, mode: 'no such mode' }), (error) => error.status === 422 && error.message.includes(mode));
  assert.equal((await client.list()).length, before, 'a refused session stays');

  // Nobody is asked in this mode.
  await client.finish(session.id, stage.agent.createFileUnasked(stage.file('free')));
  assert.ok(fs.existsSync(stage.file('free')), 'the mode has no effect');
  const asked = stage.provider.requests.findLast(({ aside }) => !aside).body.model;
  assert.ok(asked.includes(model.split('/').at(-1)), `the model is ${asked}`);

  const changed = await client.call('PATCH', `/v1/sessions/${session.id}`, { mode: 'plan', title: 'yours' }).catch((error) => error);
  if (changed.status === 422) assert.ok(changed.message.includes(mode), changed.message); // it has no such mode
  else assert.deepEqual([changed.mode, changed.title], ['plan', 'yours']);

  await client.call('POST', `/v1/sessions/${session.id}/close`);
  await assert.rejects(client.submit(session.id, 'too late'), (error) => error.status === 409);
  const closed = await client.get(session.id);
  assert.deepEqual([closed.state, closed.exit.reason], ['exited', 'closed']);
  await client.call('POST', `/v1/sessions/${session.id}/reopen`);
  await client.finish(session.id, 'back again');
  assertSaw(stage, 'back again', stage.file('free'));
}

/** Queue, interrupt, and what is taken out again. */
async function takesMessagesInMidTurn(stage) {
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
  assert.deepEqual(started, [...started].sort((one, other) => one - other), 'the turns ran in another order');
  assert.equal(stage.modelRequestAbout('never said'), 'null');
  await guard(stage.provider.when(({ hanging }) => hanging === 0), 'the agent to drop its model request', 30_000);

  const { turnId } = await client.submit(session.id, stage.agent.hang);
  await underWay(stage);
  assert.deepEqual(await client.interrupt(session.id), { interrupted: true });
  assert.equal((await client.ended(session.id, turnId)).outcome, 'cancelled');
  assert.deepEqual(await client.interrupt(session.id), { interrupted: false });
}

/** A message joins the turn under way, or waits where the agent can't do that. */
async function isSteered(stage, canSteer) {
  const { client, session } = await openSession(stage);
  const watcher = stage.track(new Watcher(`${client.url}/v1/sessions/${session.id}/events`));
  const { turnId } = await client.submit(session.id, stage.agent.drip(40, 50));
  await until(() => watcher.data.some(({ data }) => data.delta?.text?.includes('drop')), 'the first drops');
  const steered = await client.submit(session.id, 'mind the gap', { whileRunning: 'steer' });
  assert.equal(steered.delivery, canSteer ? 'steered' : 'queued');
  assert.equal(steered.turnId === turnId, canSteer);
  assert.equal((await client.ended(session.id, turnId)).outcome, 'finished');
  assert.equal((await client.ended(session.id, steered.turnId)).outcome, 'finished');

  assertSaw(stage, 'mind the gap', stage.agent.drip(40, 50));
  assert.equal((await client.turns(session.id)).length, canSteer ? 1 : 2);
  const said = (await client.events(session.id)).filter(({ type, data }) => type === 'item.completed' && data.item.role === 'user');
  assert.deepEqual(said.map((event) => [event.turnId, event.data.item.parts.at(-1).text]), [
    [turnId, stage.agent.drip(40, 50)],
    [steered.turnId, 'mind the gap'],
  ]);
}

async function openSession(stage) {
  const client = new SessionClient(stage.server.url);
  return { client, session: await client.create({ agent: stage.agentName, cwd: stage.server.workDir }) };
}

function underWay(stage) {
  return guard(stage.provider.when(({ hanging }) => hanging > 0), 'begin of the endless turn', 60_000);
}

async function pendingRequest(client, session) {
  const { requests } = await client.snapshot(session.id);
  assert.equal(requests.length, 1, JSON.stringify(requests));
  return requests[0];
}

async function answerOverHttp(stage, client, session) {
  const { requestId } = await pendingRequest(client, session);
  await client.call('POST', `/v1/requests/${requestId}/resolve`, { decision: 'allow', by: 'the suite' });
}

/** As a client of ACP does. */
async function answerOverAcp(stage, client, session, kind) {
  const { agentRequestId, options } = await pendingRequest(client, session);
  const { optionId } = options.find((option) => option.kind === kind);
  const answer = { id: JSON.parse(agentRequestId), result: { outcome: { outcome: 'selected', optionId } } };
  assert.equal((await post(stage.server, session.serverId, answer)).status, 202);
}

/** A turn that is under way when `strike` happens ends as lost, and says why; one that waits is none the worse for it. */
async function losesTurn(stage, client, session, reason, strike) {
  const { turnId } = await client.submit(session.id, stage.agent.hang);
  await underWay(stage);
  const waiting = await client.submit(session.id, `waiting while ${reason}`);
  await strike();
  const turn = await client.ended(session.id, turnId);
  assert.deepEqual([turn.outcome, turn.reason], ['lost', reason], JSON.stringify(turn));
  await guard(stage.provider.when(({ hanging }) => hanging === 0), 'end of the lost turn at the model', 30_000);
  const next = await client.ended(session.id, waiting.turnId);
  assert.equal(next.outcome, 'finished', JSON.stringify(next));
}

/** The next message works, and the agent knows what was said before. */
async function comesBack(stage, client, session, text, before) {
  await client.finish(session.id, text);
  const { restored, state, exit } = await client.get(session.id);
  assert.equal(state, 'idle');
  assert.equal(exit, undefined);
  assert.ok(['session/resume', 'session/load'].includes(restored.method), JSON.stringify(restored));
  assert.equal(restored.history, 'kept');
  assert.ok(restored.atMs >= before, 'it was not restored this time');
  assertSaw(stage, text, 'words of the beginning');
}

/** What the agent itself keeps of its sessions is gone. */
function forget({ agent, server }) {
  const directory = path.join(server.home, agent.memory.directory);
  for (const name of fs.readdirSync(directory).filter((name) => agent.memory.names.test(name))) {
    fs.rmSync(path.join(directory, name), { recursive: true });
  }
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
