// The event stream of an ACP server, read plainly: ids, replay across restarts, the end of the stream.

import assert from 'node:assert/strict';

import { assertContiguous, hasAnswer } from './lib/agent_suite.mjs';
import { EventStream, openSession, post, promptMessage } from './lib/event_stream.mjs';
import { scenario } from './lib/scenario.mjs';
import { guard, until } from './lib/wait.mjs';

for (const signal of ['SIGTERM', 'SIGKILL']) {
  scenario('mock', `replays from Last-Event-ID after a restart by ${signal}`, async (stage) => {
    const { server } = stage;
    const sessionId = await openSession(server, 'kept', 'mock');
    const before = stage.track(await EventStream.open(server, 'kept'));
    await post(server, 'kept', promptMessage(1, sessionId, '/stream 50'));
    await until(() => hasAnswer(before, 1), 'the first answer on the stream');
    const seenHere = before.events.slice(0, 20);
    await before.leave();

    await server.restart(signal);
    const after = stage.track(await EventStream.open(server, 'kept', 20));
    await until(() => hasAnswer(after, 1), 'the replayed answer');
    const { status, message } = await post(server, 'kept', promptMessage(2, sessionId, 'still there'));
    assert.equal(status, 200);
    assert.equal(message.result.stopReason, 'end_turn');
    await until(() => hasAnswer(after, 2), 'the second answer on the stream');

    assertContiguous([...seenHere, ...after.events].map((event) => event.id));
    assert.deepEqual(after.events.slice(0, before.events.length - 20), before.events.slice(20));
  });
}

scenario('mock', 'gives every subscriber the same events', async (stage) => {
  const { server } = stage;
  const sessionId = await openSession(server, 'shared', 'mock');
  const streams = [];
  for (let index = 0; index < 4; index += 1) streams.push(stage.track(await EventStream.open(server, 'shared')));
  await post(server, 'shared', promptMessage(1, sessionId, '/stream 300'));
  await until(() => streams.every((stream) => hasAnswer(stream, 1)), 'the answer on all streams');
  for (const stream of streams) assertContiguous(stream.ids);
  for (const stream of streams.slice(1)) assert.deepEqual(stream.events, streams[0].events);
});

scenario('mock', 'loses nothing for clients that come and go', async (stage) => {
  const { server } = stage;
  const sessionId = await openSession(server, 'flaky', 'mock');
  const turn = post(server, 'flaky', promptMessage(1, sessionId, '/stream 2000'));
  const events = [];
  while (!events.some(({ message }) => message.id === 1)) {
    const known = events.length;
    const stream = stage.track(await EventStream.open(server, 'flaky', known));
    await until(() => stream.events.length >= 100 || hasAnswer(stream, 1), 'more events');
    await stream.leave();
    events.push(...stream.events);
  }
  await turn;
  assertContiguous(events.map((event) => event.id));
});

scenario('mock', 'ends the stream when the server is deleted', async (stage) => {
  const { server } = stage;
  await openSession(server, 'doomed', 'mock');
  const stream = stage.track(await EventStream.open(server, 'doomed'));
  await until(() => stream.events.length > 0, 'the replay');
  const response = await fetch(`${server.url}/v1/acp/doomed`, { method: 'DELETE' });
  assert.equal(response.status, 204);
  await guard(stream.ended, 'end of the stream', 30_000);
  const again = await fetch(`${server.url}/v1/acp/doomed`, { headers: { accept: 'text/event-stream' } });
  assert.equal(again.status, 404);
});

scenario('mock', 'reports the agent that exited, on the stream and in the answer', async (stage) => {
  const { server } = stage;
  const sessionId = await openSession(server, 'dying', 'mock');
  const stream = stage.track(await EventStream.open(server, 'dying'));
  const { status, message } = await post(server, 'dying', promptMessage(1, sessionId, '/die 3'));
  assert.equal(status, 200);
  assert.equal(message.error.code, -32603);
  assert.equal(message.error.data.exitCode, 3);
  const exited = () => stream.messages.find(({ method }) => method === '_adapter/agent_exited');
  await until(exited, 'the notice of the exit');
  assert.equal(exited().params.code, 3);

  const next = await post(server, 'dying', promptMessage(2, sessionId, 'back to work'));
  assert.equal(next.message.result?.stopReason, 'end_turn', JSON.stringify(next));
  await until(() => hasAnswer(stream, 2), 'the answer of the restored agent');
  assertContiguous(stream.ids);
});
