// What agents do to files: it comes into the history with session and turn, and those who meet at a file hear of it.

import assert from 'node:assert/strict';
import fs from 'node:fs';
import path from 'node:path';

import { agents } from './lib/agents.mjs';
import { scenario } from './lib/scenario.mjs';
import { SessionClient } from './lib/session_client.mjs';
import { until } from './lib/wait.mjs';

scenario('claude', 'with codex: two agents that change one file hear of each other', async (stage) => {
  const client = new SessionClient(stage.server.url);
  const cwd = path.join(stage.server.workDir, 'project');
  const file = path.join(cwd, 'numbers.txt');
  fs.mkdirSync(cwd);
  fs.writeFileSync(file, 'one\ntwo\nthree\nfour\n');

  const turns = {};
  const sessions = {};
  const run = async (name, command) => {
    sessions[name] ??= await client.create({ agent: name, cwd, mode: agents[name].permissiveMode });
    const { turnId } = await client.submit(sessions[name].id, `TRY: ${command}`);
    assert.equal((await client.ended(sessions[name].id, turnId)).outcome, 'finished');
    turns[name] = turnId;
  };
  const edits = async (name) => (await client.call('GET', `/v1/fs/edits?sessionId=${sessions[name].id}`)).edits;

  // The first turn of each watches the directory from its start; an answer comes later than a watch stands.
  await run('claude', `sleep 1 && sed -i s/three/drei/ ${file}`);
  await until(async () => (await edits('claude')).length > 0, 'the edit of Claude Code');
  await run('codex', `sleep 1 && sed -i s/drei/trois/ ${file}`);
  await until(async () => (await edits('codex')).length > 0, 'the edit of Codex');

  for (const name of ['claude', 'codex']) {
    const [edit] = await edits(name);
    assert.deepEqual([edit.path, edit.sessionId, edit.turnId], [file, sessions[name].id, turns[name]]);
    const conflicts = async () => (await client.events(sessions[name].id)).filter(({ type }) => type === 'fs.conflict');
    await until(async () => (await conflicts()).length > 0, `a word to ${name}`);
    const [{ data }] = await conflicts();
    assert.equal(data.path, file);
    assert.deepEqual([data.sessionId, data.otherSessionId].sort(), [sessions.claude.id, sessions.codex.id].sort());
  }
}, { also: ['codex'] });

scenario('claude', 'turns that follow each other at once are noted each', async (stage) => {
  const client = new SessionClient(stage.server.url);
  const cwd = path.join(stage.server.workDir, 'project');
  fs.mkdirSync(cwd);
  const { id } = await client.create({ agent: 'claude', cwd, mode: agents.claude.permissiveMode });
  const files = ['a', 'b'].map((name) => path.join(cwd, name));
  const sent = [];
  for (const file of files) sent.push(await client.submit(id, `TRY: sleep 1 && echo x > ${file}`));
  for (const { turnId } of sent) assert.equal((await client.ended(id, turnId)).outcome, 'finished');
  const edits = async () => (await client.call('GET', `/v1/fs/edits?sessionId=${id}`)).edits;
  await until(async () => (await edits()).length === 2, 'both edits');
  const noted = Object.fromEntries((await edits()).map((edit) => [edit.path, edit.turnId]));
  assert.deepEqual(noted, Object.fromEntries(files.map((file, index) => [file, sent[index].turnId])));
});
