// Managed processes and one-shot runs, through the published SDK.

import assert from 'node:assert/strict';
import fs from 'node:fs';
import path from 'node:path';

import { assertHas, isAlive, problem, processScenario, textOf } from './lib/process_scenario.mjs';
import { until } from './lib/wait.mjs';

const DEFAULT_LIMITS = {
  maxConcurrentProcesses: 64,
  defaultRunTimeoutMs: 30_000,
  maxRunTimeoutMs: 300_000,
  maxOutputBytes: 1_048_576,
  maxLogBytesPerProcess: 10_485_760,
  maxInputBytesPerRequest: 65_536,
};

processScenario('creates a process and shows it', async ({ client, server }) => {
  const asked = { command: 'sh', args: ['-c', 'echo "$GREETING" > greeting; exec sleep 86397'], cwd: server.workDir, env: { GREETING: 'hello' } };
  const before = Date.now();
  const info = await client.createProcess(asked);
  const { id, pid, createdAtMs, ...rest } = info;
  assert.match(id, /^proc_\d+$/);
  assert.ok(createdAtMs >= before && createdAtMs <= Date.now());
  assert.deepEqual(rest, { command: 'sh', args: asked.args, cwd: server.workDir, tty: false, interactive: false, owner: 'user', status: 'running' });
  assert.ok(isAlive(pid));
  assert.deepEqual(await client.getProcess(id), info);
  const greeting = path.join(server.workDir, 'greeting');
  await until(() => fs.existsSync(greeting) && fs.readFileSync(greeting, 'utf8') === 'hello\n', 'the greeting');
});

processScenario('lists processes by owner', async (stage) => {
  const { client } = stage;
  const created = [await stage.shell('exec sleep 86397'), await stage.shell('exec sleep 86397', { tty: true, interactive: true })];
  const ids = ({ processes }) => processes.map(({ id }) => id).sort();
  const expected = created.map(({ id }) => id).sort();
  assert.deepEqual(ids(await client.listProcesses()), expected);
  assert.deepEqual(ids(await client.listProcesses({ owner: 'user' })), expected);
  assert.deepEqual(ids(await client.listProcesses({ owner: 'desktop' })), []);
  await problem(client.listProcesses({ owner: 'nobody' }), 400);
  const { processes } = await client.listProcesses();
  assert.deepEqual(processes.find(({ id }) => id === created[1].id), created[1]);
  assert.equal(created[1].tty, true);
  assert.equal(created[1].interactive, true);
});

processScenario('keeps an exited process until it is deleted', async (stage) => {
  const { client } = stage;
  const { id, createdAtMs } = await stage.shell('exit 3');
  const info = await stage.untilExited(id);
  assert.equal(info.exitCode, 3);
  assert.ok(info.exitedAtMs >= createdAtMs);
  assert.equal(info.pid ?? null, null);
  assert.equal((await client.listProcesses()).processes.length, 1);

  assert.equal(await client.deleteProcess(id), undefined);
  assert.deepEqual((await client.listProcesses()).processes, []);
  for (const verb of ['getProcess', 'deleteProcess', 'stopProcess', 'killProcess', 'getProcessLogs']) {
    const { detail, details } = await problem(client[verb](id), 404, 'not_found');
    assert.ok(detail.includes(id), detail);
    assert.deepEqual(details, { id, resource: 'process' });
  }
});

processScenario('refuses to delete a running process', async (stage) => {
  const { client } = stage;
  const { id } = await stage.shell('exec sleep 86397');
  const { detail } = await problem(client.deleteProcess(id), 409, 'conflict');
  assert.match(detail, /still running/);
  assert.equal((await client.getProcess(id)).status, 'running');
  await client.killProcess(id, { waitMs: 10_000 });
  await client.deleteProcess(id);
});

processScenario('stops with SIGTERM and waits for the exit', async (stage) => {
  const { client } = stage;
  const { id } = await stage.shell('trap "exit 5" TERM; echo armed; while :; do sleep 0.05; done');
  await stage.untilLogged(id, 'armed');
  const info = await client.stopProcess(id, { waitMs: 10_000 });
  assert.equal(info.status, 'exited');
  assert.equal(info.exitCode, 5);
  const { tree, ...asBefore } = info; // what ending it came to is only told by the call that ended it
  assert.deepEqual(await client.stopProcess(id), asBefore);
  assert.deepEqual(await client.killProcess(id), asBefore);
});

processScenario('returns from stop before the exit, and kills what ignores SIGTERM', async (stage) => {
  const { client } = stage;
  const { id, pid } = await stage.shell('trap "" TERM; echo armed; while :; do sleep 0.05; done');
  await stage.untilLogged(id, 'armed');
  for (const waitMs of [0, 200]) assert.equal((await client.stopProcess(id, { waitMs })).status, 'running');
  const info = await client.killProcess(id, { waitMs: 10_000 });
  assert.equal(info.status, 'exited');
  assert.equal(info.exitCode ?? null, null);
  assert.ok(!isAlive(pid));
});

processScenario('names the signal that ended a process', async (stage) => {
  const { client } = stage;
  const killed = await stage.shell('exec sleep 86397');
  assert.deepEqual((await client.killProcess(killed.id, { waitMs: 10_000 })).exit, { signal: 'SIGKILL', number: 9 });
  const stopped = await stage.shell('exec sleep 86397');
  const info = await client.stopProcess(stopped.id, { waitMs: 10_000 });
  assert.deepEqual(info.exit, { signal: 'SIGTERM', number: 15 });
  assert.ok(!('exitCode' in info));
}, { betterThanReference: 'it does not tell which signal ended a process' });

for (const verb of ['stopProcess', 'killProcess']) {
  processScenario(`${verb} ends what the process has started`, async (stage) => {
    const { client } = stage;
    const { id } = await stage.shell('sleep 86397 & echo "pid $!"; setsid sleep 86397 & wait');
    await stage.untilLogged(id, 'pid ');
    await until(() => stage.server.processes().length >= 3, 'all three processes');
    await client[verb](id, { waitMs: 10_000 });
    await stage.server.waitUntilNoProcessIsLeft();
  }, { betterThanReference: 'it signals the direct child only' });
}

processScenario('writes input as text and as base64', async (stage) => {
  const { client } = stage;
  const { id } = await client.createProcess({ command: 'cat' });
  const bytes = Buffer.from([0, 1, 0xff, 0xfe, 10]);
  assert.deepEqual(await client.sendProcessInput(id, { data: 'grüße\n', encoding: 'utf8' }), { bytesWritten: 8 });
  assert.deepEqual(await client.sendProcessInput(id, { data: 'text\n', encoding: 'text' }), { bytesWritten: 5 });
  assert.deepEqual(await client.sendProcessInput(id, { data: bytes.toString('base64'), encoding: 'base64' }), { bytesWritten: 5 });
  assert.deepEqual(await client.sendProcessInput(id, { data: Buffer.from('end\n').toString('base64') }), { bytesWritten: 4 });
  await stage.untilLogged(id, 'end\n');
  const { entries } = await client.getProcessLogs(id);
  const expected = Buffer.concat([Buffer.from('grüße\ntext\n'), bytes, Buffer.from('end\n')]);
  assert.deepEqual(Buffer.concat(entries.map(({ data }) => Buffer.from(data, 'base64'))), expected);
});

processScenario('refuses input that it cannot write', async (stage) => {
  const { client } = stage;
  const { id } = await client.createProcess({ command: 'cat' });
  assert.match((await problem(client.sendProcessInput(id, { data: 'x', encoding: 'rot13' }), 400, 'invalid_request')).detail, /base64, utf8, text/);
  assert.match((await problem(client.sendProcessInput(id, { data: '***' }), 400, 'invalid_request')).detail, /base64/);
  const most = 'x'.repeat(DEFAULT_LIMITS.maxInputBytesPerRequest);
  assert.deepEqual(await stage.type(id, most), { bytesWritten: most.length });
  const tooLarge = await problem(stage.type(id, `${most}x`), 413);
  assert.equal(tooLarge.title, 'Payload Too Large');
  await client.killProcess(id, { waitMs: 10_000 });
  await problem(stage.type(id, 'x'), 409, 'conflict');
  await problem(stage.type('proc_999', 'x'), 404, 'not_found');
});

processScenario('shows and changes the limits', async (stage) => {
  const { client } = stage;
  assert.deepEqual(await client.getProcessConfig(), DEFAULT_LIMITS);
  const lower = { ...DEFAULT_LIMITS, maxConcurrentProcesses: 2, maxRunTimeoutMs: 10_000, maxInputBytesPerRequest: 4 };
  const stored = { ...lower, defaultRunTimeoutMs: 10_000 };
  assert.deepEqual(await client.setProcessConfig(lower), stored);
  assert.deepEqual(await client.getProcessConfig(), stored);
  for (const name of Object.keys(DEFAULT_LIMITS)) {
    const { detail } = await problem(client.setProcessConfig({ ...DEFAULT_LIMITS, [name]: 0 }), 400, 'invalid_request');
    assert.match(detail, /must be greater than 0/);
    const { [name]: _, ...others } = DEFAULT_LIMITS;
    await problem(client.setProcessConfig(others), 422);
  }
  assert.deepEqual(await client.getProcessConfig(), stored);

  const [{ id }] = [await client.createProcess({ command: 'cat' }), await client.createProcess({ command: 'cat' })];
  const { detail } = await problem(client.createProcess({ command: 'cat' }), 409, 'conflict');
  assert.match(detail, /\(2\)/);
  await problem(stage.type(id, '12345'), 413);
  await client.killProcess(id, { waitMs: 10_000 });
  await client.createProcess({ command: 'cat' });
});

processScenario('runs a command to its end', async ({ client, server }) => {
  const result = await client.runProcess({
    command: 'sh',
    args: ['-c', 'pwd; echo "$FRUIT" >&2; cat; exit 3'],
    cwd: server.workDir,
    env: { FRUIT: 'Äpfel' },
  });
  const { durationMs, ...rest } = result;
  assert.ok(Number.isInteger(durationMs) && durationMs >= 0);
  const expected = { exitCode: 3, timedOut: false, stdout: `${fs.realpathSync(server.workDir)}\n`, stderr: 'Äpfel\n', stdoutTruncated: false, stderrTruncated: false };
  assertHas(rest, expected);
  assert.deepEqual((await client.listProcesses()).processes, []);
});

processScenario('caps the output of a run per stream', async ({ client }) => {
  const script = 'head -c 3000000 /dev/zero | tr "\\0" o; head -c 10 /dev/zero | tr "\\0" e >&2';
  const run = (maxOutputBytes) => client.runProcess({ command: 'sh', args: ['-c', script], maxOutputBytes });
  const capped = await run(10);
  assert.deepEqual([capped.stdout, capped.stdoutTruncated], ['o'.repeat(10), true]);
  assert.deepEqual([capped.stderr, capped.stderrTruncated], ['e'.repeat(10), false]);
  assert.equal(capped.exitCode, 0);
  const none = await run(0);
  assert.deepEqual([none.stdout, none.stdoutTruncated, none.stderr, none.stderrTruncated], ['', true, '', true]);
  const byDefault = await run(undefined);
  assert.deepEqual([byDefault.stdout.length, byDefault.stdoutTruncated], [DEFAULT_LIMITS.maxOutputBytes, true]);
});

processScenario('ends a run at its timeout and keeps its output', async (stage) => {
  const { client } = stage;
  const args = ['-c', 'echo begun; exec sleep 86397'];
  const result = await client.runProcess({ command: 'sh', args, timeoutMs: 300 });
  assert.deepEqual([result.exitCode, result.timedOut, result.stdout], [null, true, 'begun\n']);
  await stage.server.waitUntilNoProcessIsLeft();

  await client.setProcessConfig({ ...DEFAULT_LIMITS, defaultRunTimeoutMs: 200, maxRunTimeoutMs: 400 });
  for (const timeoutMs of [undefined, 0, 600_000]) {
    assert.equal((await client.runProcess({ command: 'sh', args, timeoutMs })).timedOut, true, `timeoutMs ${timeoutMs}`);
  }
});

processScenario('ends a run at its timeout with everything it has started', async (stage) => {
  const script = 'echo begun; sleep 86397 & setsid sleep 86397 & wait';
  const result = await stage.client.runProcess({ command: 'sh', args: ['-c', script], timeoutMs: 500 });
  assert.deepEqual([result.exitCode, result.timedOut, result.stdout], [null, true, 'begun\n']);
  await stage.server.waitUntilNoProcessIsLeft();
}, { betterThanReference: 'its run waits for grandchildren that hold the output' });

processScenario('returns from a run whose background process holds the output, and leaves that running', async (stage) => {
  const script = 'echo done; sleep 86397 & echo $! >&2';
  const result = await stage.client.runProcess({ command: 'sh', args: ['-c', script], timeoutMs: 60_000 });
  assertHas(result, { exitCode: 0, timedOut: false, stdout: 'done\n', leftRunning: 1 });
  assert.ok(isAlive(Number(result.stderr)));
}, { betterThanReference: 'its run waits for grandchildren that hold the output' });

processScenario('refuses commands without a name', async ({ client }) => {
  for (const command of ['', '  ']) {
    assert.match((await problem(client.runProcess({ command }), 400, 'invalid_request')).detail, /command must not be empty/);
    await problem(client.createProcess({ command }), 400, 'invalid_request');
  }
});

processScenario('says that a program does not exist', async ({ client, server }) => {
  for (const command of ['no-such-program', '/no/such/program']) {
    await problem(client.runProcess({ command }), 422, 'executable_not_found');
    await problem(client.createProcess({ command }), 422, 'executable_not_found');
  }
  const cwd = path.join(server.workDir, 'missing');
  for (const verb of ['runProcess', 'createProcess']) {
    await assert.rejects(client[verb]({ command: 'true', cwd }), ({ status }) => status >= 400 && status < 500);
  }
  assert.deepEqual((await client.listProcesses()).processes, []);
}, { betterThanReference: 'it answers 502 stream_error, as if the server were broken' });

processScenario('shows an exit only after the last output', async (stage) => {
  const { client } = stage;
  for (let round = 0; round < 20; round += 1) {
    const { id } = await stage.shell('head -c 300000 /dev/zero | tr "\\0" x; echo the end');
    await stage.untilExited(id);
    const text = textOf((await client.getProcessLogs(id)).entries);
    assert.equal(text.length, 300_008, `round ${round}`);
    assert.ok(text.endsWith('the end\n'));
    await client.deleteProcess(id);
  }
});
