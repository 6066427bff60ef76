// Files, through the published SDK.

import assert from 'node:assert/strict';
import { execFileSync } from 'node:child_process';
import { randomBytes } from 'node:crypto';
import fs from 'node:fs';
import path from 'node:path';

import { problem, processScenario as scenario } from './lib/process_scenario.mjs';

scenario('writes, reads, lists, moves and removes', async ({ client, server }) => {
  const at = (name) => path.join(server.workDir, name);
  const content = randomBytes(100_000);
  const written = await client.writeFsFile({ path: at('a b/ü+&.bin') }, content);
  assert.equal(written.path, at('a b/ü+&.bin'));
  assert.equal(written.bytesWritten, content.length);
  assert.deepEqual(Buffer.from(await client.readFsFile({ path: at('a b/ü+&.bin') })), content);
  assert.equal((await client.writeFsFile({ path: at('text') }, 'hello')).bytesWritten, 5);
  assert.equal((await client.writeFsFile({ path: at('empty') }, '')).bytesWritten, 0);

  const entries = await client.listFsEntries({ path: at('a b') });
  assert.ok(Array.isArray(entries));
  const { name, path: full, entryType, size, modified } = entries[0];
  assert.deepEqual([name, full, entryType, size], ['ü+&.bin', at('a b/ü+&.bin'), 'file', content.length]);
  assert.match(modified, /^\d{4}-\d\d-\d\dT[\d:.]+\+00:00$/);
  assert.equal(new Date(modified).getFullYear(), new Date().getFullYear());

  const stat = await client.statFs({ path: at('a b') });
  assert.deepEqual([stat.path, stat.entryType], [at('a b'), 'directory']);
  assert.deepEqual(await client.mkdirFs({ path: at('x/y') }), { path: at('x/y') });
  assert.deepEqual(await client.moveFs({ from: at('text'), to: at('x/y/text') }), { from: at('text'), to: at('x/y/text') });
  await problem(client.moveFs({ from: at('empty'), to: at('x/y/text') }), 400);
  await client.moveFs({ from: at('empty'), to: at('x/y/text'), overwrite: true });
  assert.equal((await client.readFsFile({ path: at('x/y/text') })).length, 0);
  assert.deepEqual(await client.deleteFsEntry({ path: at('x'), recursive: true }), { path: at('x') });
  const missing = await problem(client.readFsFile({ path: at('text') }), 400);
  assert.equal(missing.detail, `invalid request: path not found: ${at('text')}`);
});

scenario('takes relative paths from the home', async ({ client, server }) => {
  const below = path.relative(server.home, server.workDir);
  await client.writeFsFile({ path: path.join(below, 'x') }, 'x');
  assert.ok(fs.existsSync(path.join(server.workDir, 'x')));
  await problem(client.statFs({ path: '../x' }), 400);
  assert.ok((await client.listFsEntries()).length > 0);
});

scenario('has no size wall', async ({ client, server }) => {
  const content = randomBytes(30 << 20);
  const at = path.join(server.workDir, 'large');
  assert.equal((await client.writeFsFile({ path: at }, content)).bytesWritten, content.length);
  assert.ok(content.equals(Buffer.from(await client.readFsFile({ path: at }))));
}, { betterThanReference: 'it takes 2 MiB' });

scenario('unpacks a tar', async ({ client, server }) => {
  const from = fs.mkdtempSync(path.join(server.workDir, 'from-'));
  fs.mkdirSync(path.join(from, 'sub'));
  fs.writeFileSync(path.join(from, 'a.txt'), 'A');
  fs.writeFileSync(path.join(from, 'sub/b.sh'), 'B', { mode: 0o755 });
  const tar = execFileSync('tar', ['-C', from, '-cf', '-', 'a.txt', 'sub']);
  const to = path.join(server.workDir, 'to');
  const { paths, truncated } = await client.uploadFsBatch(tar, { path: to });
  assert.equal(truncated, false);
  assert.deepEqual(paths.map((full) => path.relative(to, full)).sort(), ['a.txt', 'sub', 'sub/b.sh']);
  assert.equal(fs.readFileSync(path.join(to, 'sub/b.sh'), 'utf8'), 'B');
  assert.equal(fs.statSync(path.join(to, 'sub/b.sh')).mode & 0o777, 0o755);
});
