// What becomes of a desktop when parts of it, or the server, are killed.

import assert from 'node:assert/strict';
import fs from 'node:fs';

import { desktopProblem, desktopScenario } from './lib/desktop_scenario.mjs';
import { describePicture } from './lib/pictures.mjs';
import { assertHas, isAlive } from './lib/process_scenario.mjs';
import { until } from './lib/wait.mjs';

const BY_ITSELF = { betterThanReference: 'it looks only when it is asked for something, and that fails then' };

desktopScenario('comes back by itself when Xvfb is killed', async (stage) => {
  const { client, status: before } = stage;
  for (let round = 1; round <= 2; round += 1) {
    const victim = stage.pidOf(await client.getDesktopStatus(), 'Xvfb');
    process.kill(victim, 'SIGKILL');
    const after = await untilRestarted(stage, round, victim);
    assertHas(after, { state: 'active', display: before.display, resolution: before.resolution, startedAt: before.startedAt });
    assert.deepEqual(describePicture(await client.takeDesktopScreenshot()).kind, 'png');
    await stage.lines(`typed-${round}`);
    await client.typeDesktopText({ text: 'on the new one\n' });
    await stage.untilRead(`typed-${round}`, 'on the new one\n');
    await client.setDesktopClipboard({ text: 'a' });
    assertHas(await client.getDesktopClipboard(), { text: 'a' });
  }
}, BY_ITSELF);

desktopScenario('counts the death of Xvfb once, whoever dies of it', async (stage) => {
  for (let round = 1; round <= 4; round += 1) {
    const victim = stage.pidOf(await stage.client.getDesktopStatus(), 'Xvfb');
    process.kill(victim, 'SIGKILL');
    assert.equal((await untilRestarted(stage, round, victim)).restarts, round);
  }
}, BY_ITSELF);

desktopScenario('answers that it is starting, or failed, while Xvfb is gone, and nothing else', async (stage) => {
  process.kill(stage.pidOf(stage.status, 'Xvfb'), 'SIGKILL');
  const seen = new Set();
  await until(async () => {
    const answers = await Promise.all([
      stage.client.takeDesktopScreenshot(),
      stage.client.listDesktopWindows(),
      stage.client.moveDesktopMouse({ x: 5, y: 5 }),
      stage.client.getDesktopClipboard(),
    ].map((call) => call.then(() => 'well', ({ status, problem }) => `${status} ${problem?.code}`)));
    answers.forEach((answer) => seen.add(answer));
    return (await stage.client.getDesktopStatus()).restarts >= 1 && answers.every((answer) => answer === 'well');
  }, 'good answers again');
  seen.delete('well');
  const allowed = ['409 desktop_runtime_starting', '503 desktop_runtime_failed'];
  assert.deepEqual([...seen].filter((answer) => !allowed.includes(answer)), []);
}, BY_ITSELF);

desktopScenario('gets a new window manager when openbox is killed, and keeps its windows', async (stage) => {
  const { client } = stage;
  const { id } = await stage.lines('typed');
  const victim = stage.pidOf(stage.status, 'openbox');
  process.kill(victim, 'SIGKILL');
  const after = await untilRestarted(stage, 1);
  assert.equal(stage.pidOf(after, 'Xvfb'), stage.pidOf(stage.status, 'Xvfb'));
  assert.notEqual(stage.pidOf(after, 'openbox'), victim);
  // Once it manages a new one, it manages the old ones.
  await stage.lines('new');
  assertHas(await client.focusDesktopWindow(id), { id, isActive: true });
  await client.typeDesktopText({ text: 'still here\n' });
  await stage.untilRead('typed', 'still here\n');
  const moved = await client.moveDesktopWindow(id, { x: 200, y: 100 });
  assert.ok(moved.y > 100, `without a frame: ${JSON.stringify(moved)}`);
}, BY_ITSELF);

desktopScenario('tells of a new window manager once it does its work', async (stage) => {
  const { id } = await stage.lines('typed');
  for (let round = 1; round <= 3; round += 1) {
    process.kill(stage.pidOf(await stage.client.getDesktopStatus(), 'openbox'), 'SIGKILL');
    await untilRestarted(stage, round);
    const { x, y, isActive } = await stage.client.focusDesktopWindow(id);
    assert.equal(isActive, true);
    const moved = await stage.client.moveDesktopWindow(id, { x: x + 10, y: y + 10 });
    assertHas(await stage.windowOf(id), { x: moved.x, y: moved.y });
    await stage.client.typeDesktopText({ text: `${round}\n` });
    await stage.untilRead('typed', Array.from({ length: round }, (_, index) => `${index + 1}\n`).join(''));
  }
}, BY_ITSELF);

desktopScenario('gets a new bus when D-Bus is killed', async (stage) => {
  const victim = stage.pidOf(stage.status, 'dbus');
  process.kill(victim, 'SIGKILL');
  const after = await untilRestarted(stage, 1);
  assert.ok(isAlive(stage.pidOf(after, 'dbus')));
}, BY_ITSELF);

desktopScenario('gives up on an Xvfb that dies again and again, and can be started anew', async (stage) => {
  const { client } = stage;
  const failed = await until(async () => {
    const status = await client.getDesktopStatus();
    const pid = stage.pidOf(status, 'Xvfb');
    if (status.state === 'active' && pid && isAlive(pid)) process.kill(pid, 'SIGKILL');
    return status.state === 'failed' && status;
  }, 'the failure');
  assert.equal(failed.lastError.code, 'desktop_runtime_failed');
  assert.equal(failed.display, undefined);
  const { detail } = await desktopProblem(client.takeDesktopScreenshot(), 503, 'desktop_runtime_failed');
  assert.match(detail, /Xvfb/);
  assertHas(await stage.start(), { state: 'active', lastError: undefined });
}, BY_ITSELF);

desktopScenario('outlives a server that is killed', async (stage) => {
  const { client, server } = stage;
  const { id, pid } = await stage.lines('typed');
  await client.typeDesktopText({ text: 'before\n' });
  const before = await client.getDesktopStatus();
  for (let round = 1; round <= 2; round += 1) {
    await server.crash();
    await until(() => fetch(`${server.url}/v1/health`).then(({ ok }) => ok, () => false), 'health');
    // At once: it doesn't have to be started, or waited for.
    assertHas(await stage.windowOf(id), { id, isActive: true });
    await client.typeDesktopText({ text: `after ${round}\n` });
    const after = await client.getDesktopStatus();
    assertHas(after, { state: 'active', display: before.display, resolution: before.resolution, startedAt: before.startedAt, processes: before.processes, restarts: undefined });
    assert.ok(isAlive(pid));
    assert.equal(describePicture(await client.takeDesktopScreenshot()).width, 800);
  }
  await stage.untilRead('typed', 'before\nafter 1\nafter 2\n');
  await stage.lines('new');
  const victim = stage.pidOf(before, 'Xvfb');
  process.kill(victim, 'SIGKILL');
  assertHas(await untilRestarted(stage, 1, victim), { state: 'active', display: before.display });
  assertHas(await client.stopDesktop(), { state: 'inactive' });
  assert.ok(!isAlive(pid));
}, { kept: true, betterThanReference: 'it forgets all that runs, and leaves it behind' });

desktopScenario('holds no key of a text that was being typed when its server was killed', async (stage) => {
  await stage.lines('typed');
  for (let round = 0; round < 3; round += 1) {
    const before = stage.read('typed');
    stage.client.typeDesktopText({ text: `${'A'.repeat(20)}\n${'B'.repeat(2000)}`, delayMs: 5 }).catch(() => {});
    await until(() => stage.read('typed') !== before, 'the first line');
    await stage.server.crash();
    await until(() => fetch(`${stage.server.url}/v1/health`).then(({ ok }) => ok, () => false), 'health');
    await stage.client.typeDesktopText({ text: `\nabc ${round}\n` });
    await until(() => stage.read('typed').includes(`\nabc ${round}\n`), 'what was typed after it', 10_000)
      .catch(() => assert.match(stage.read('typed'), new RegExp(`\nabc ${round}\n`)));
  }
}, { kept: true, betterThanReference: 'it forgets all that runs, and leaves it behind' });

desktopScenario('leaves nothing behind when its server ends', async (stage) => {
  await stage.lines('typed');
  await stage.server.stop('SIGTERM');
  await stage.server.waitUntilNoProcessIsLeft();
}, { betterThanReference: 'it leaves everything behind' });

desktopScenario('gives its display back when its server ends', async (stage) => {
  const socket = `/tmp/.X11-unix/X${stage.status.display.slice(1)}`;
  await stage.server.stop('SIGTERM');
  await stage.server.waitUntilNoProcessIsLeft();
  const left = fs.existsSync(socket);
  for (const file of [socket, `/tmp/.X${stage.status.display.slice(1)}-lock`]) fs.rmSync(file, { force: true });
  assert.ok(!left, 'the socket of Xvfb is left');
}, { betterThanReference: 'it leaves everything behind' });

/** With `victim`, until another Xvfb than that runs. */
function untilRestarted(stage, restarts, victim) {
  return until(async () => {
    const status = await stage.client.getDesktopStatus();
    return status.restarts >= restarts && status.state === 'active' && stage.pidOf(status, 'Xvfb') !== victim && status;
  }, `restart ${restarts}`);
}
