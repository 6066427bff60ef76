// What every agent has to do through the published SDK; each *.test.mjs named after an agent runs this table.

import assert from 'node:assert/strict';
import fs from 'node:fs';

import { agents } from './agents.mjs';
import { EventStream, openSession, post, promptMessage } from './event_stream.mjs';
import { InMemorySessionPersistDriver, scenario, Talk } from './scenario.mjs';
import { SessionClient } from './session_client.mjs';
import { guard, until } from './wait.mjs';

export function agentSuite(name) {
  const it = (title, body, options) => scenario(name, title, body, options);

  it('answers a prompt', async (stage) => {
    const talk = await stage.createSession(await stage.connect());
    const { response } = await talk.say('hello wide world', 'hello wide world');
    assert.equal(response.stopReason, 'end_turn');
  });

  it('runs a tool when permission is given', async (stage) => {
    const talk = await stage.createSession(await stage.connect());
    const requests = talk.answerPermissions('once');
    const { response } = await talk.say(stage.agent.createFile(stage.file('made')));
    assert.equal(response.stopReason, 'end_turn');
    assert.equal(requests.length, 1, `permission requests: ${JSON.stringify(requests)}`);
    assert.ok(requests[0].availableReplies.includes('reject'));
    assert.ok(fs.existsSync(stage.file('made')), 'the tool made no file');
    await until(() => talk.updates.some((update) => update.sessionUpdate === 'tool_call'), 'the tool call in the stream');
    await talk.say('and then', 'and then');
    await assertIsListed(stage, talk.session.agentSessionId, [stage.agent.createFile(stage.file('made')), 'and then']);
  });

  it('runs no tool when permission is refused', async (stage) => {
    const talk = await stage.createSession(await stage.connect());
    const requests = talk.answerPermissions('reject');
    const { response } = await talk.say(stage.agent.createFile(stage.file('unmade')));
    assert.equal(requests.length, 1, `permission requests: ${JSON.stringify(requests)}`);
    // Codex calls a turn cancelled in which the user said no.
    assert.ok(['end_turn', 'cancelled', 'refusal'].includes(response.stopReason), response.stopReason);
    assert.ok(!fs.existsSync(stage.file('unmade')), 'the refused tool made a file');
    await talk.say('and then', 'and then');
  });

  it('runs no tool when nobody listens for permission requests', async (stage) => {
    const talk = await stage.createSession(await stage.connect());
    await talk.say(stage.agent.createFile(stage.file('unmade')));
    assert.ok(!fs.existsSync(stage.file('unmade')), 'the tool made a file without permission');
  });

  it('ends a turn that is cancelled', async (stage) => {
    const client = await stage.connect();
    const talk = await stage.createSession(client);
    await talk.say('first', 'first');
    const turn = await stage.beginEndlessTurn(talk);
    await client.destroySession(talk.session.id);
    const { value, error } = await turn.settled();
    assert.equal(value?.stopReason, 'cancelled', `settled with ${JSON.stringify(value)} ${error}`);
    if (stage.agent.hasModel) {
      await guard(stage.provider.when(({ hanging }) => hanging === 0), 'the agent to drop its model request', 30_000);
    }
    await talk.say('after the cancel', 'after the cancel');
  });

  it('goes on after its process was killed in mid-turn', async (stage) => {
    const talk = await stage.createSession(await stage.connect());
    await talk.say('before the kill', 'before the kill');
    await stage.untilSaved('before the kill');
    const agentSessionId = talk.session.agentSessionId;
    const turn = await stage.beginEndlessTurn(talk);
    await stage.killAgent();

    const { value, error } = await turn.settled();
    assert.equal(error?.code, -32603, `settled with ${JSON.stringify(value)} ${error}`);
    assert.ok(error.data, 'the error carries no data');
    assert.ok('signal' in error.data || 'exitCode' in error.data, JSON.stringify(error.data));

    const { response } = await talk.say('after the kill', 'after the kill');
    assert.equal(response.stopReason, 'end_turn');
    assert.equal(talk.session.agentSessionId, agentSessionId);
    assertRemembers(stage, 'after the kill', 'before the kill');
  });

  it('goes on after its process was killed between turns', async (stage) => {
    const talk = await stage.createSession(await stage.connect());
    await talk.say('before the kill', 'before the kill');
    const victim = await stage.killAgent();
    await until(() => !fs.existsSync(`/proc/${victim}`), 'end of the agent process');
    const { response } = await talk.say('after the kill', 'after the kill');
    assert.equal(response.stopReason, 'end_turn');
  });

  if (agents[name].permissiveMode) {
    it('keeps the mode of a session when it comes back', async (stage) => {
      const talk = await stage.createSession(await stage.connect());
      talk.answerPermissions('reject');
      await talk.say(stage.agent.createFileUnasked(stage.file('first')));
      assert.ok(!fs.existsSync(stage.file('first')), 'the first mode permits everything');
      await talk.session.setMode(stage.agent.permissiveMode);
      await talk.say(stage.agent.createFileUnasked(stage.file('second')));
      assert.ok(fs.existsSync(stage.file('second')), 'the mode has no effect');

      await stage.restartServer('SIGTERM');
      await talk.say(stage.agent.createFileUnasked(stage.file('third')));
      assert.ok(fs.existsSync(stage.file('third')), 'the mode is lost');
    });
  }

  for (const signal of ['SIGTERM', 'SIGKILL']) {
    it(`goes on after the server was restarted by ${signal} between turns`, async (stage) => {
      const talk = await stage.createSession(await stage.connect());
      await talk.say('before the restart', 'before the restart');
      await stage.untilSaved('before the restart');
      await stage.restartServer(signal);
      const { response } = await talk.say('after the restart', 'after the restart');
      assert.equal(response.stopReason, 'end_turn');
      assertRemembers(stage, 'after the restart', 'before the restart');
    });
  }

  it('takes its first prompt after a restart of the server', async (stage) => {
    const talk = await stage.createSession(await stage.connect());
    await stage.restartServer('SIGTERM');
    const { response } = await talk.say('first words', 'first words');
    assert.equal(response.stopReason, 'end_turn');
  });

  it('leaves no process after a restart by SIGKILL', async (stage) => {
    const talk = await stage.createSession(await stage.connect());
    await talk.say('hello', 'hello');
    await stage.restartServer('SIGKILL');
    await stage.server.waitUntilNoProcessIsLeft();
  });

  it('resumes a session on a new connection', async (stage) => {
    const persist = new InMemorySessionPersistDriver();
    const client = await stage.connect({ persist });
    const talk = await stage.createSession(client);
    await talk.say('on the first connection', 'on the first connection');
    await client.dispose();

    // Codex lists its models in 11 kB, and the SDK's own limit then cuts the history off before the first prompt.
    const second = await stage.connect({ persist, replayMaxChars: 200_000 });
    const session = await second.resumeSession(talk.session.id);
    const { response } = await new Talk(session).say('on the second connection', 'on the second connection');
    assert.equal(response.stopReason, 'end_turn');
    assertRemembers(stage, 'on the second connection', 'on the first connection');
  });

  it('gives two clients only their own answers', async (stage) => {
    // One after the other: two Codex processes that create their database at the same time fail each other.
    const talks = [await stage.createSession(await stage.connect()), await stage.createSession(await stage.connect())];
    for (const round of ['one', 'two']) {
      await Promise.all([talks[0].say(`apple ${round}`, `apple ${round}`), talks[1].say(`banana ${round}`, `banana ${round}`)]);
    }
    assert.doesNotMatch(talks[0].text, /banana/);
    assert.doesNotMatch(talks[1].text, /apple/);
  });

  it('is gone after dispose(), with its whole process tree', async (stage) => {
    const client = await stage.connect();
    const talk = await stage.createSession(client);
    await talk.say('hello', 'hello');
    await stage.beginEndlessTurn(talk);
    await client.dispose();
    // The SDK aborts a DELETE that takes too long, and then nothing is recorded.
    assert.deepEqual(stage.deletions, [204]);
    const { servers } = await (await stage.connect()).listAcpServers();
    assert.deepEqual(servers, []);
    await stage.server.waitUntilNoProcessIsLeft();
  });

  it('replays from Last-Event-ID for a client that was away', async (stage) => {
    const { server } = stage;
    const sessionId = await openSession(server, 'away', name);
    const first = stage.track(await EventStream.open(server, 'away'));
    await post(server, 'away', promptMessage(1, sessionId, 'before leaving'));
    await until(() => hasAnswer(first, 1), 'the first answer on the stream');
    await first.leave();
    const lastId = first.ids.at(-1);
    await post(server, 'away', promptMessage(2, sessionId, 'while away'));

    const second = stage.track(await EventStream.open(server, 'away', lastId));
    await until(() => hasAnswer(second, 2), 'the second answer on the stream');
    await post(server, 'away', promptMessage(3, sessionId, 'back again'));
    await until(() => hasAnswer(second, 3), 'the third answer on the stream');

    assertContiguous([...first.ids, ...second.ids]);
    const whole = stage.track(await EventStream.open(server, 'away'));
    const together = [...first.events, ...second.events];
    await until(() => whole.events.length >= together.length, 'the whole stream again');
    assert.deepEqual(whole.events.slice(0, together.length), together);
  });
}

export function hasAnswer(stream, id) {
  return stream.messages.some((message) => message.id === id && !('method' in message));
}

export function assertContiguous(ids) {
  assert.deepEqual(ids, ids.map((_, index) => index + 1));
}

/** A session of the SDK lasts like any other: it has a row, its turns and its decisions. */
async function assertIsListed(stage, acpSessionId, prompts) {
  const sessions = new SessionClient(stage.server.url);
  const listed = await sessions.list();
  assert.deepEqual(listed.map((session) => [session.acpSessionId, session.agent, session.origin]), [[acpSessionId, stage.agentName, 'acp']]);
  const turns = await sessions.turns(listed[0].id);
  assert.deepEqual(turns.map(({ prompt, outcome }) => [prompt.at(-1).text, outcome]), prompts.map((text) => [text, 'finished']));
  const decisions = (await sessions.events(listed[0].id)).filter(({ type }) => type === 'request.resolved');
  assert.deepEqual(decisions.map(({ data }) => [data.kind, data.outcome]), [['permission', 'allowed']]);
}

function assertRemembers(stage, text, earlier) {
  if (!stage.agent.hasModel) return;
  assert.ok(stage.modelRequestAbout(text).includes(earlier), `the agent no longer knows "${earlier}"`);
}
