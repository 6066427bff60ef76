// MCP servers and skills configured per directory, through the published SDK.

import assert from 'node:assert/strict';
import fs from 'node:fs';
import path from 'node:path';

import { problem, processScenario as scenario } from './lib/process_scenario.mjs';

const fileOf = (directory, kind) => path.join(directory, '.sandbox-agent/config', `${kind}.json`);

scenario('keeps MCP servers in their directory', async ({ client, server }) => {
  const directory = path.join(server.workDir, 'new/project');
  const at = (mcpName) => ({ directory, mcpName });
  const { sessionId } = await problem(client.getMcpConfig(at('files')), 404, 'session_not_found');
  assert.equal(sessionId, 'mcp:files');
  const local = { type: 'local', command: 'npx', args: ['-y', 'x'], env: { A: 'b' }, enabled: true, timeoutMs: 5000, cwd: 'sub' };
  const remote = {
    type: 'remote', url: 'http://127.0.0.1:9/mcp', headers: { A: 'b' }, bearerTokenEnvVar: 'TOKEN', envHeaders: { 'X-Key': 'KEY' },
    oauth: { clientId: 'c', clientSecret: 's', scope: 'x' }, enabled: false, timeoutMs: 1, transport: 'sse',
  };
  assert.equal(await client.setMcpConfig(at('web'), remote), undefined);
  assert.equal(await client.setMcpConfig(at('files'), local), undefined);
  assert.deepEqual(await client.getMcpConfig(at('files')), local);
  assert.deepEqual(await client.getMcpConfig(at('web')), remote);
  const text = fs.readFileSync(fileOf(directory, 'mcp'), 'utf8');
  assert.deepEqual(JSON.parse(text), { files: local, web: remote });
  assert.deepEqual(Object.keys(JSON.parse(text)), ['files', 'web']);
  assert.ok(text.startsWith('{\n  "files": {\n    "'));
  assert.equal(fs.statSync(fileOf(directory, 'mcp')).mode & 0o777, 0o644);
  assert.equal(await client.deleteMcpConfig(at('files')), undefined);
  assert.equal(await client.deleteMcpConfig(at('files')), undefined);
  await problem(client.getMcpConfig(at('files')), 404, 'session_not_found');
});

scenario('reads aliases and fills in what is missing', async ({ client, server }) => {
  const at = (mcpName) => ({ directory: server.workDir, mcpName });
  await client.setMcpConfig(at('a'), { type: 'stdio', command: ['x', 'y'], environment: {}, timeout: 3, cwd: null, unknown: 1 });
  assert.deepEqual(await client.getMcpConfig(at('a')), { type: 'local', command: ['x', 'y'], args: [], env: {}, timeoutMs: 3 });
  await client.setMcpConfig(at('b'), { type: 'http', url: '', oauth: false });
  assert.deepEqual(await client.getMcpConfig(at('b')), { type: 'remote', url: '', oauth: false });
});

scenario('keeps skills in their directory', async ({ client, server }) => {
  const at = (skillName) => ({ directory: server.workDir, skillName });
  const config = { sources: [{ type: 'github', source: 'o/r', skills: ['a'], ref: 'main', subpath: 'p' }, { type: 'any', source: '' }] };
  const { sessionId } = await problem(client.getSkillsConfig(at('s')), 404, 'session_not_found');
  assert.equal(sessionId, 'skills:s');
  assert.equal(await client.setSkillsConfig(at('s'), config), undefined);
  assert.deepEqual(await client.getSkillsConfig(at('s')), config);
  assert.deepEqual(JSON.parse(fs.readFileSync(fileOf(server.workDir, 'skills'), 'utf8')), { s: config });
  await client.setSkillsConfig(at('s'), { sources: [] });
  assert.deepEqual(await client.getSkillsConfig(at('s')), { sources: [] });
  assert.equal(await client.deleteSkillsConfig(at('s')), undefined);
  assert.equal(await client.deleteSkillsConfig(at('s')), undefined);
});

scenario('takes a relative directory from where the server runs', async ({ client, server }) => {
  fs.mkdirSync(path.join(server.workDir, 'sub'), { recursive: true });
  await client.setSkillsConfig({ directory: 'sub/../other', skillName: ' any name/.. ü' }, { sources: [] });
  const kept = JSON.parse(fs.readFileSync(fileOf(path.join(server.workDir, 'other'), 'skills'), 'utf8'));
  assert.deepEqual(kept, { ' any name/.. ü': { sources: [] } });
});

scenario('refuses what it cannot use', async ({ client, server }) => {
  const at = (mcpName) => ({ directory: server.workDir, mcpName });
  for (const wrong of [{ type: 'zzz' }, { command: 'x' }, { type: 'local' }, { type: 'remote', url: 'x', transport: 'ws' }]) {
    await problem(client.setMcpConfig(at('a'), wrong), 422);
  }
  await problem(client.setSkillsConfig({ directory: server.workDir, skillName: 's' }, {}), 422);
  await problem(client.getMcpConfig({ directory: server.workDir }), 400);
  await problem(client.getMcpConfig({ directory: ' ', mcpName: 'a' }), 400, 'invalid_request');
  fs.mkdirSync(path.dirname(fileOf(server.workDir, 'mcp')), { recursive: true });
  fs.writeFileSync(fileOf(server.workDir, 'mcp'), '');
  await problem(client.getMcpConfig(at('a')), 404);
  fs.writeFileSync(fileOf(server.workDir, 'mcp'), '[]');
  const { detail } = await problem(client.getMcpConfig(at('a')), 400, 'invalid_request');
  assert.match(detail, /invalid config file .*mcp\.json: /);
});

scenario('an entry of an unknown type harms no other', async ({ client, server }) => {
  const at = (mcpName) => ({ directory: server.workDir, mcpName });
  fs.mkdirSync(path.dirname(fileOf(server.workDir, 'mcp')), { recursive: true });
  fs.writeFileSync(fileOf(server.workDir, 'mcp'), '{"new": {"type": "pigeon"}, "old": {"type": "local", "command": "x"}}');
  assert.equal((await client.getMcpConfig(at('old'))).command, 'x');
  await client.setMcpConfig(at('old'), { type: 'local', command: 'y' });
  assert.deepEqual(JSON.parse(fs.readFileSync(fileOf(server.workDir, 'mcp'), 'utf8')).new, { type: 'pigeon' });
}, { betterThanReference: 'one unknown type makes all entries unreadable' });
