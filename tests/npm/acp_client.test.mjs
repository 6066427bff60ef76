// The published ACP client, straight against `mock`, for what the SDK above it hides.

import assert from 'node:assert/strict';
import fs from 'node:fs';

import { AcpHttpClient } from 'acp-http-client';
import { Agent } from 'undici';

import { scenario } from './lib/scenario.mjs';
import { until } from './lib/wait.mjs';

/** An initialised client with one session, and every envelope and update it saw, in order. */
async function openClient(stage, { permission, fetch } = {}) {
  const inbound = [];
  const updates = [];
  const client = new AcpHttpClient({
    baseUrl: stage.server.url,
    fetch,
    transport: { path: `/v1/acp/client-${openClient.serial++}`, bootstrapQuery: { agent: 'mock' } },
    onEnvelope: (message, direction) => direction === 'inbound' && inbound.push(message),
    client: {
      sessionUpdate: (notification) => updates.push(notification.update),
      requestPermission: permission,
    },
  });
  const initialized = await client.initialize();
  const { sessionId } = await client.newSession({ cwd: stage.server.workDir, mcpServers: [] });
  const prompt = (text) => client.prompt({ sessionId, prompt: [{ type: 'text', text }] });
  return { client, initialized, sessionId, prompt, inbound, updates };
}
openClient.serial = 1;

const choose = (kind) => ({ options }) => {
  const option = options.find((candidate) => candidate.kind === kind);
  assert.ok(option, `no ${kind} among ${JSON.stringify(options)}`);
  return { outcome: { outcome: 'selected', optionId: option.optionId } };
};

const isChunk = (update) => update?.sessionUpdate === 'agent_message_chunk';
const textOf = (updates) => updates.filter(isChunk).map((update) => update.content.text).join('');

scenario('mock', 'initializes and opens sessions', async (stage) => {
  const one = await openClient(stage);
  assert.equal(one.initialized.protocolVersion, 1);
  assert.equal(typeof one.sessionId, 'string');
  const other = await one.client.newSession({ cwd: stage.server.workDir, mcpServers: [] });
  assert.notEqual(other.sessionId, one.sessionId);
  await one.client.disconnect();
});

scenario('mock', 'streams the answer in pieces', async (stage) => {
  const { client, prompt, updates } = await openClient(stage);
  const { stopReason } = await prompt('several words in one line');
  assert.equal(stopReason, 'end_turn');
  await until(() => textOf(updates).includes('several words in one line'), 'the whole text');
  assert.ok(updates.filter(isChunk).length > 1, 'the text came in one piece');
  await client.disconnect();
});

scenario('mock', 'delivers every update before the answer', async (stage) => {
  const { client, prompt, inbound } = await openClient(stage);
  for (let round = 0; round < 20; round += 1) {
    const start = inbound.length;
    await prompt('/stream 100');
    const seen = inbound.slice(start);
    const answer = seen.findIndex((message) => message.result?.stopReason === 'end_turn');
    const chunks = seen.slice(0, answer).filter((message) => isChunk(message.params?.update));
    assert.ok(chunks.length >= 100, `round ${round}: only ${chunks.length} of 100 chunks came before the answer`);
  }
  await client.disconnect();
});

scenario('mock', 'carries an allowed permission to the agent', async (stage) => {
  const { client, prompt, updates } = await openClient(stage, { permission: choose('allow_once') });
  const { stopReason } = await prompt(`/tool ${stage.file('made')}`);
  assert.equal(stopReason, 'end_turn');
  assert.equal(fs.readFileSync(stage.file('made'), 'utf8'), 'mock\n');
  await until(() => textOf(updates).includes('created '), 'the word of the made file');
  const kinds = updates.map((update) => update.sessionUpdate);
  assert.ok(kinds.indexOf('tool_call') < kinds.indexOf('tool_call_update'), `updates: ${kinds}`);
  await client.disconnect();
});

scenario('mock', 'carries a refused permission to the agent', async (stage) => {
  const { client, prompt, updates } = await openClient(stage, { permission: choose('reject_once') });
  await prompt(`/tool ${stage.file('unmade')}`);
  assert.ok(!fs.existsSync(stage.file('unmade')), 'the refused tool made a file');
  await until(() => textOf(updates).includes('refused'), 'the word of the refusal');
  await client.disconnect();
});

scenario('mock', 'cancels a stalled turn', async (stage) => {
  const { client, sessionId, prompt, updates } = await openClient(stage);
  const turn = prompt('/stream 2\n/stall');
  await until(() => updates.filter(isChunk).length >= 2, 'the begin of the turn');
  await client.cancel({ sessionId });
  assert.equal((await turn).stopReason, 'cancelled');
  await client.disconnect();
});

scenario('mock', 'hears of an agent that exits in mid-turn', async (stage) => {
  const { client, prompt, inbound } = await openClient(stage);
  await assert.rejects(prompt('/die 7'), (error) => {
    assert.equal(error.code, -32603);
    assert.equal(error.data.exitCode, 7);
    return true;
  });
  const exited = await until(() => inbound.find(({ method }) => method === '_adapter/agent_exited'), 'the notice of the exit');
  assert.equal(exited.params.code, 7);
  assert.equal(exited.params.success, false);
  assert.equal((await prompt('once more')).stopReason, 'end_turn');
  await client.disconnect();
});

scenario('mock', 'keeps a long turn alive for a client with short timeouts', async (stage) => {
  const impatient = new Agent({ headersTimeout: 1500, bodyTimeout: 1500 });
  const statuses = [];
  const fetchWithTimeouts = async (url, init) => {
    const response = await fetch(url, init.method === 'POST' ? { ...init, dispatcher: impatient } : init);
    if (init.method === 'POST') statuses.push(response.status);
    return response;
  };
  const { client, prompt } = await openClient(stage, { fetch: fetchWithTimeouts });
  const { stopReason } = await prompt('/sleep 4000');
  assert.equal(stopReason, 'end_turn');
  assert.ok(statuses.every((status) => status === 200), `statuses ${statuses}`);
  await client.disconnect();
  await impatient.close();
}, { env: { SANDBOXD_ACP_POST_KEEPALIVE_MS: '300' } });

scenario('mock', 'needs the keep-alive for that', async (stage) => {
  // The counterpart: without it the same client loses its POST, which proves that the timeouts above are real.
  const impatient = new Agent({ headersTimeout: 1500, bodyTimeout: 1500 });
  const { sessionId } = await openClient(stage);
  const prompt = { jsonrpc: '2.0', id: 'long', method: 'session/prompt', params: { sessionId, prompt: [{ type: 'text', text: '/sleep 4000' }] } };
  const { servers } = await (await fetch(`${stage.server.url}/v1/acp`)).json();
  const request = { method: 'POST', headers: { 'content-type': 'application/json' }, body: JSON.stringify(prompt), dispatcher: impatient };
  await assert.rejects(fetch(`${stage.server.url}/v1/acp/${servers[0].serverId}`, request), (error) => error.cause?.code === 'UND_ERR_HEADERS_TIMEOUT');
  await impatient.destroy();
}, { env: { SANDBOXD_ACP_POST_KEEPALIVE_MS: '60000' } });
