// The log of a process, read at once and followed, through the published SDK.

import assert from 'node:assert/strict';

import { assertHas, bytesOf, problem, processScenario, textOf } from './lib/process_scenario.mjs';
import { guard, until } from './lib/wait.mjs';

/** Says each line it reads twice: on stdout, and as an error. */
const ECHO_BOTH = 'while read -r line; do echo "out $line"; echo "err $line" >&2; done';

const sequences = (entries) => entries.map(({ sequence }) => sequence);

/** A process whose log is, in pairs of any order: out 1, err 1, out 2, err 2, out 3, err 3. */
async function speaker(stage) {
  const { id } = await stage.shell(ECHO_BOTH);
  for (const line of [1, 2, 3]) {
    await stage.type(id, `${line}\n`);
    await stage.untilLogged(id, `out ${line}\n`);
    await stage.untilLogged(id, `err ${line}\n`);
  }
  return id;
}

processScenario('selects from the log by stream, since and tail', async (stage) => {
  const { client } = stage;
  const id = await speaker(stage);
  const { entries, ...rest } = await client.getProcessLogs(id);
  assertHas(rest, { processId: id, stream: 'combined' });
  assert.deepEqual(sequences(entries), [1, 2, 3, 4, 5, 6]);
  for (const entry of entries) {
    assert.match(entry.stream, /^std(out|err)$/);
    assert.ok(Number.isInteger(entry.timestampMs) && entry.timestampMs <= Date.now());
    assert.match(textOf([entry]), entry.stream === 'stdout' ? /^out \d\n$/ : /^err \d\n$/);
  }

  for (const stream of ['stdout', 'stderr', 'combined', 'pty']) {
    const part = await client.getProcessLogs(id, { stream });
    assert.equal(part.stream, stream);
    assert.deepEqual(part.entries, stream === 'combined' ? entries : entries.filter((entry) => entry.stream === stream));
  }
  const of = async (query) => (await client.getProcessLogs(id, query)).entries;
  assert.deepEqual(await of({ since: 4 }), entries.slice(4));
  assert.deepEqual(await of({ tail: 2 }), entries.slice(-2));
  assert.deepEqual(await of({ since: 5, tail: 4 }), entries.slice(5));
  assert.deepEqual(textOf(await of({ stream: 'stdout', tail: 2 })), 'out 2\nout 3\n');
  assert.deepEqual(await of({ since: 6 }), []);
  await problem(client.getProcessLogs(id, { stream: 'smoke' }), 400);
});

processScenario('keeps the output of a terminal in a stream of its own', async (stage) => {
  const { client } = stage;
  const { id } = await stage.shell('echo out; echo err >&2', { tty: true });
  await stage.untilExited(id);
  const { stream, entries } = await client.getProcessLogs(id);
  assert.equal(stream, 'pty');
  assert.ok(textOf(entries).startsWith('out\r\nerr\r\n'));
  assert.ok(entries.every((entry) => entry.stream === 'pty'));
  assert.deepEqual((await client.getProcessLogs(id, { stream: 'combined' })).entries, []);
});

processScenario('ends the log of a terminal with its last output', async (stage) => {
  const { id } = await stage.shell('echo out', { tty: true });
  await stage.untilExited(id);
  assert.equal(textOf((await stage.client.getProcessLogs(id)).entries), 'out\r\n');
}, { betterThanReference: 'it appends "process stream error: I/O error" to every log of a terminal' });

processScenario('drops the oldest entries of a full log', async (stage) => {
  const { client } = stage;
  await client.setProcessConfig({ ...(await client.getProcessConfig()), maxLogBytesPerProcess: 20_000 });
  const { id } = await stage.shell('head -c 500000 /dev/zero | tr "\\0" x; echo the end');
  await stage.untilExited(id);
  const { entries } = await client.getProcessLogs(id);
  const kept = bytesOf(entries);
  assert.ok(kept.length > 0 && kept.length <= 20_000, `${kept.length}`);
  assert.ok(kept.toString().endsWith('x' + 'the end\n'));
  assert.ok(entries[0].sequence > 1);
  const [first] = sequences(entries);
  assert.deepEqual(sequences(entries), entries.map((_, index) => first + index));
});

processScenario('follows a log: what was, then what comes', async (stage) => {
  const id = await speaker(stage);
  const follow = await stage.follow(id);
  await until(() => follow.entries.length >= 6, 'the replay');
  await stage.type(id, 'live\n');
  await until(() => follow.text().includes('out live\n') && follow.text().includes('err live\n'), 'the live entries');
  assert.deepEqual(sequences(follow.entries), [1, 2, 3, 4, 5, 6, 7, 8]);
  assert.deepEqual(follow.entries, (await stage.client.getProcessLogs(id)).entries);
  follow.close();
  await guard(follow.closed, 'end of the follow that the client closed', 10_000);
});

processScenario('follows one stream, from the end or from an entry on', async (stage) => {
  const id = await speaker(stage);
  const errors = await stage.follow(id, { stream: 'stderr' });
  const latest = await stage.follow(id, { stream: 'stdout', tail: 1 });
  const since = await stage.follow(id, { since: 5 });
  await stage.type(id, 'live\n');
  await until(() => errors.text() === 'err 1\nerr 2\nerr 3\nerr live\n', 'the errors');
  await until(() => latest.text() === 'out 3\nout live\n', 'the latest');
  await until(() => since.entries.length === 3, 'the entries since 5');
  assert.deepEqual(sequences(since.entries), [6, 7, 8]);
});

processScenario('ends a follow after the exit, with everything in it', async (stage) => {
  const { client } = stage;
  const { id } = await stage.shell('echo first; read -r line; echo "last $line"; exit 4');
  const follow = await stage.follow(id);
  await until(() => follow.entries.length, 'the replay');
  await stage.type(id, 'word\n');
  await guard(follow.closed, 'end of the follow', 20_000);
  assert.equal(follow.text(), 'first\nlast word\n');
  assert.equal((await client.getProcess(id)).exitCode, 4);

  const late = await stage.follow(id);
  await guard(late.closed, 'end of a follow that began after the exit', 20_000);
  assert.deepEqual(late.entries, follow.entries);
}, { betterThanReference: 'its streams stay open when the process is gone' });

processScenario('leaves out of a follow what is not after "since", live entries too', async (stage) => {
  const { id } = await stage.shell(ECHO_BOTH);
  const follow = await stage.follow(id, { stream: 'stdout', since: 4 });
  for (const line of [1, 2, 3, 4]) {
    await stage.type(id, `${line}\n`);
    await stage.untilLogged(id, `out ${line}\n`);
    await stage.untilLogged(id, `err ${line}\n`);
  }
  const { entries } = await stage.client.getProcessLogs(id, { stream: 'stdout', since: 4 });
  await until(() => follow.text().endsWith('out 4\n'), 'the last entry');
  assert.deepEqual(follow.entries, entries);
}, { betterThanReference: 'it applies "since" to the replay only' });

processScenario('loses nothing of a flood whose reader falls behind', async (stage) => {
  const count = 300_000;
  const { id } = await stage.shell(`echo go?; read -r go; i=0; while [ $i -lt ${count} ]; do i=$((i + 1)); echo $i; done; echo the end`);
  const follow = await stage.follow(id);
  await until(() => follow.entries.length, 'the question');
  await stage.type(id, 'go\n');
  // Nothing is read meanwhile, neither by the SDK nor by what is below it.
  Atomics.wait(new Int32Array(new SharedArrayBuffer(4)), 0, 0, 3000);
  await until(() => textOf(follow.entries.slice(-1)).endsWith('the end\n'), 'the end', 40_000);
  const expected = Array.from({ length: count }, (_, index) => index + 1).join('\n');
  assert.ok(follow.text() === `go?\n${expected}\nthe end\n`, 'the text differs');
  assert.deepEqual(sequences(follow.entries), follow.entries.map((_, index) => index + 1));
}, { betterThanReference: 'it drops entries silently when a reader falls behind' });
