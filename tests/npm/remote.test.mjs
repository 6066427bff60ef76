// ACP's remote transport at /acp, driven by the official TypeScript SDK over HTTP and over a WebSocket.

import assert from 'node:assert/strict';
import fs from 'node:fs';
import http2 from 'node:http2';
import { once } from 'node:events';

import { scenario } from './lib/scenario.mjs';
import { choose, doorNames, RemoteClient } from './lib/remote_client.mjs';
import { guard, until } from './lib/wait.mjs';

for (const name of ['mock', 'claude']) {
  for (const door of doorNames) {
    const it = (title, body) => scenario(name, `/acp over ${door}: ${title}`, body);

    it('initializes, opens a session and completes turns', async (stage) => {
      const client = await RemoteClient.open(stage, door);
      assert.equal(client.initialized.protocolVersion, 1);
      assert.equal(client.initialized.agentCapabilities.loadSession, true);
      const session = await client.newSession(stage.server.workDir);
      for (const words of ['hello wide world', 'and once more']) {
        const { stopReason } = await client.prompt(session, words);
        assert.equal(stopReason, 'end_turn');
        await until(() => client.textOf(session).includes(words), `"${words}" in "${client.textOf(session)}"`);
      }
    });

    it('carries a permission to the agent', async (stage) => {
      const client = await RemoteClient.open(stage, door, { permission: choose('allow_once') });
      const session = await client.newSession(stage.server.workDir);
      const { stopReason } = await client.prompt(session, stage.agent.createFile(stage.file('made')));
      assert.equal(stopReason, 'end_turn');
      assert.equal(client.questions.length, 1);
      assert.ok(fs.existsSync(stage.file('made')), 'the tool made no file');
    });

    it('cancels a turn', async (stage) => {
      const client = await RemoteClient.open(stage, door);
      const session = await client.newSession(stage.server.workDir);
      await client.prompt(session, 'first');
      const turn = client.prompt(session, stage.agent.hang);
      const underWay = stage.agent.hasModel
        ? stage.provider.when(() => stage.provider.hanging > 0)
        : until(() => client.textOf(session).includes('chunk 1'), 'the beginning of the turn');
      await guard(underWay, 'begin of the endless turn', 60_000);
      await client.cancel(session);
      assert.equal((await turn).stopReason, 'cancelled');
    });

    it('carries two sessions at once', async (stage) => {
      const client = await RemoteClient.open(stage, door);
      const one = await client.newSession(stage.server.workDir);
      const two = await client.newSession(stage.server.workDir);
      for (const round of ['one', 'two']) {
        await Promise.all([client.prompt(one, `apple ${round}`), client.prompt(two, `banana ${round}`)]);
      }
      await until(() => /apple two/.test(client.textOf(one)) && /banana two/.test(client.textOf(two)), 'both texts');
      assert.doesNotMatch(client.textOf(one), /banana/);
      assert.doesNotMatch(client.textOf(two), /apple/);
    });

    it('loads a session on a new connection', async (stage) => {
      const first = await RemoteClient.open(stage, door);
      const session = await first.newSession(stage.server.workDir);
      await first.prompt(session, 'on the first connection');
      await stage.untilSaved('on the first connection');
      await first.leave();
      const second = await RemoteClient.open(stage, door);
      await second.load(session, stage.server.workDir);
      const hasHistory = () => /on the first connection/.test(second.textOf(session));
      // Over HTTP the history comes on a stream of its own: sent before the answer, but a client may read the other first.
      if (door === 'http') await until(hasHistory, 'the history');
      assert.ok(hasHistory(), 'the history is there before the answer');
      assert.ok(second.updates.some(({ update }) => update.sessionUpdate === 'user_message_chunk'), 'and what the user said');
      const { stopReason } = await second.prompt(session, 'on the second connection');
      assert.equal(stopReason, 'end_turn');
      await until(() => second.textOf(session).includes('on the second connection'), 'the text');
      if (stage.agent.hasModel) assert.match(stage.modelRequestAbout('on the second connection'), /on the first connection/);
    });
  }

  scenario(name, '/acp: one session through both transports', async (stage) => {
    const [one, two] = [await RemoteClient.open(stage, 'http'), await RemoteClient.open(stage, 'websocket')];
    const session = await one.newSession(stage.server.workDir);
    await one.prompt(session, 'from the first');
    await stage.untilSaved('from the first');
    await two.load(session, stage.server.workDir);
    await Promise.all([one.prompt(session, 'from the first again'), until(() => two.textOf(session).includes('again'), 'the text')]);
    await two.prompt(session, 'from the second');
    await until(() => one.textOf(session).includes('from the second'), 'the text of the other');
    // Both are asked; when one has answered, the other's question is withdrawn.
    const turn = two.prompt(session, stage.agent.createFile(stage.file('made')));
    await until(() => one.questions.length === 1 && two.questions.length === 1, 'the question on both');
    one.questions[0].answer(choose('allow_once')(one.questions[0].params));
    assert.equal((await turn).stopReason, 'end_turn');
    assert.ok(fs.existsSync(stage.file('made')), 'the tool made no file');
    await until(() => two.questions[0].signal.aborted, 'the end of the other question');
    assert.ok(!one.questions[0].signal.aborted, 'the answered question was withdrawn');
  });
}

scenario('mock', '/acp: HTTP/2 in clear text', async (stage) => {
  const wire = http2.connect(stage.server.url);
  try {
    const send = (headers, body) => {
      const stream = wire.request({ ':path': '/acp?agent=mock', 'content-type': 'application/json', ...headers });
      stream.setEncoding('utf8').end(body && JSON.stringify({ jsonrpc: '2.0', ...body }));
      return stream;
    };
    const post = async (headers, body) => {
      const stream = send({ ':method': 'POST', ...headers }, body);
      const [answer] = await once(stream, 'response');
      let text = '';
      for await (const part of stream) text += part;
      return { status: answer[':status'], connection: answer['acp-connection-id'], text };
    };
    const opened = await post({}, { id: 1, method: 'initialize', params: { protocolVersion: 1 } });
    assert.equal(opened.status, 200);
    const connection = { 'acp-connection-id': opened.connection };
    const events = send({ ':method': 'GET', accept: 'text/event-stream', ...connection });
    let text = '';
    events.on('data', (part) => { text += part; });
    const asked = await post(connection, { id: 2, method: 'session/new', params: { cwd: '/', mcpServers: [] } });
    assert.equal(asked.status, 202);
    await until(() => /"id":2,.*"sessionId"/.test(text), 'the answer on the stream');
    events.close();
  } finally {
    wire.close();
  }
});
