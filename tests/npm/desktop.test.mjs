// The life of a desktop through the published SDK: what it says of itself, what it refuses, and in which order.

import assert from 'node:assert/strict';
import { spawn } from 'node:child_process';
import fs from 'node:fs';
import path from 'node:path';

import { SIZE, desktopProblem, desktopScenario, displayNumber } from './lib/desktop_scenario.mjs';
import { assertHas, isAlive } from './lib/process_scenario.mjs';
import { isReference } from './lib/target.mjs';
import { until } from './lib/wait.mjs';

/** Every call that needs a desktop, by what it is; with arguments that are in order. */
const CALLS = {
  info: (client) => client.getDesktopDisplayInfo(),
  screenshot: (client) => client.takeDesktopScreenshot(),
  region: (client) => client.takeDesktopRegionScreenshot({ x: 0, y: 0, width: 10, height: 10 }),
  position: (client) => client.getDesktopMousePosition(),
  move: (client) => client.moveDesktopMouse({ x: 1, y: 1 }),
  click: (client) => client.clickDesktop({ x: 1, y: 1 }),
  down: (client) => client.mouseDownDesktop({}),
  up: (client) => client.mouseUpDesktop({}),
  drag: (client) => client.dragDesktopMouse({ startX: 1, startY: 1, endX: 2, endY: 2 }),
  scroll: (client) => client.scrollDesktop({ x: 1, y: 1, deltaY: 1 }),
  type: (client) => client.typeDesktopText({ text: 'a' }),
  press: (client) => client.pressDesktopKey({ key: 'a' }),
  keyDown: (client) => client.keyDownDesktop({ key: 'shift' }),
  keyUp: (client) => client.keyUpDesktop({ key: 'shift' }),
  windows: (client) => client.listDesktopWindows(),
  focused: (client) => client.getDesktopFocusedWindow(),
  focus: (client) => client.focusDesktopWindow('1'),
  moveWindow: (client) => client.moveDesktopWindow('1', { x: 1, y: 1 }),
  resizeWindow: (client) => client.resizeDesktopWindow('1', { width: 100, height: 100 }),
  clipboard: (client) => client.getDesktopClipboard(),
  setClipboard: (client) => client.setDesktopClipboard({ text: 'a' }),
  launch: (client) => client.launchDesktopApp({ app: 'no-such-program' }),
  open: (client) => client.openDesktopTarget({ target: '/tmp' }),
};

/** Calls with arguments that are out of range, which are refused whether there is a desktop or not. */
const WRONG = {
  'move to the left of the screen': (client) => client.moveDesktopMouse({ x: -1, y: 0 }),
  'no click': (client) => client.clickDesktop({ x: 1, y: 1, clickCount: 0 }),
  'half a place': (client) => client.mouseDownDesktop({ x: 1 }),
  'drag from above the screen': (client) => client.dragDesktopMouse({ startX: 1, startY: -1, endX: 2, endY: 2 }),
  'scroll by nothing': (client) => client.scrollDesktop({ x: 1, y: 1 }),
  'type nothing': (client) => client.typeDesktopText({ text: '' }),
  'press nothing': (client) => client.pressDesktopKey({ key: ' ' }),
  'quality 0': (client) => client.takeDesktopScreenshot({ format: 'jpeg', quality: 0 }),
  'quality 101': (client) => client.takeDesktopScreenshot({ quality: 101 }),
  'scale 0.05': (client) => client.takeDesktopScreenshot({ scale: 0.05 }),
  'scale 1.5': (client) => client.takeDesktopScreenshot({ scale: 1.5 }),
  'a region without width': (client) => client.takeDesktopRegionScreenshot({ x: 0, y: 0, width: 0, height: 10 }),
  'a region left of the screen': (client) => client.takeDesktopRegionScreenshot({ x: -1, y: 0, width: 10, height: 10 }),
};

desktopScenario('is inactive until it is started', async ({ client }) => {
  assertHas(await client.getDesktopStatus(), { state: 'inactive', missingDependencies: [], processes: [], display: undefined, windows: undefined });
  for (const [name, call] of Object.entries(CALLS)) {
    const got = await desktopProblem(call(client), 409, 'desktop_runtime_inactive').catch((error) => assert.fail(`${name}: ${error.message}`));
    assert.equal(got.processes, undefined);
  }
  assertHas(await client.stopDesktop(), { state: 'inactive' });
}, { inactive: true });

desktopScenario('starts as it is asked to, stays when it is asked again, and stops', async (stage) => {
  const { client } = stage;
  const displayNum = displayNumber();
  const started = await stage.start({ displayNum, width: 1024, height: 768, dpi: 120 });
  const resolution = { width: 1024, height: 768, dpi: 120 };
  assertHas(started, { state: 'active', display: `:${displayNum}`, resolution, missingDependencies: [], lastError: undefined });
  assert.ok(Math.abs(Date.now() - Date.parse(started.startedAt)) < 60_000, started.startedAt);
  assert.ok(fs.existsSync(started.runtimeLogPath));
  for (const name of ['Xvfb', 'openbox', 'dbus']) {
    assert.ok(isAlive(stage.pidOf(started, name)), `${name}: ${JSON.stringify(started.processes)}`);
    assert.equal(started.processes.find((entry) => entry.name === name).running, true);
  }
  assertHas(await client.getDesktopDisplayInfo(), { display: `:${displayNum}`, resolution });

  const again = await client.startDesktop({ ...SIZE, displayNum: displayNumber() });
  assertHas(again, { display: started.display, resolution, startedAt: started.startedAt });
  const { processes } = await client.listProcesses();
  const own = processes.filter(({ owner }) => owner === 'desktop').map(({ command }) => path.basename(command));
  assert.ok(own.includes('Xvfb') && own.includes('openbox'), own.join());

  const xvfb = stage.pidOf(started, 'Xvfb');
  assertHas(await client.stopDesktop(), { state: 'inactive', display: undefined, processes: [] });
  await stage.untilGone(xvfb);
  assert.ok(!fs.existsSync(`/tmp/.X11-unix/X${displayNum}`), 'the socket is left');
  assertHas(await client.getDesktopStatus(), { state: 'inactive', processes: [] });
  assertHas(await stage.start({ displayNum }), { state: 'active', display: `:${displayNum}`, resolution: { ...SIZE, dpi: 96 } });
}, { inactive: true });

desktopScenario('has the usual size when nothing is asked for', async ({ client }) => {
  assertHas(await client.startDesktop(), { state: 'active', resolution: { width: 1440, height: 900, dpi: 96 } });
}, { inactive: true });

desktopScenario('is started once by several who ask at once', async (stage) => {
  const displayNum = displayNumber();
  const all = await Promise.all(Array.from({ length: 5 }, () => stage.client.startDesktop({ ...SIZE, displayNum })));
  assert.equal(new Set(all.map((status) => stage.pidOf(status, 'Xvfb'))).size, 1);
  assert.ok(all.every(({ state }) => state === 'active'));
}, { inactive: true });

desktopScenario('takes the next display when another X server has the first', async (stage) => {
  const displayNum = displayNumber();
  const other = spawn('Xvfb', [`:${displayNum}`, '-screen', '0', '100x100x24', '-nolisten', 'tcp'], { stdio: 'ignore', env: stage.server.env });
  try {
    await until(() => fs.existsSync(`/tmp/.X11-unix/X${displayNum}`), 'the other X server');
    assertHas(await stage.start({ displayNum }), { state: 'active', display: `:${displayNum + 1}` });
    assert.equal(other.exitCode, null);
  } finally {
    other.kill('SIGTERM');
  }
}, { inactive: true });

desktopScenario('refuses sizes and numbers that are none', async ({ client }) => {
  for (const spec of [{ width: 0 }, { height: 0 }, { dpi: 0 }, { displayNum: 0 }, { displayNum: -1 }]) {
    await desktopProblem(client.startDesktop(spec), 400, 'desktop_invalid_action').catch((error) => assert.fail(`${JSON.stringify(spec)}: ${error.message}`));
  }
  assert.equal((await client.getDesktopStatus()).state, 'inactive');
}, { inactive: true });

desktopScenario('refuses a screen that X can not have before anything is started', async ({ client }) => {
  await desktopProblem(client.startDesktop({ width: 100_000, height: 100_000 }), 400, 'desktop_invalid_action');
  assertHas(await client.getDesktopStatus(), { state: 'inactive', lastError: undefined });
}, { inactive: true, betterThanReference: 'it starts Xvfb, and then fails at its first picture' });

desktopScenario('tells what is wrong with a call before it tells that there is no desktop', async (stage) => {
  for (const [name, call] of Object.entries(WRONG)) {
    await desktopProblem(call(stage.client), 400, 'desktop_invalid_action').catch((error) => assert.fail(`${name}: ${error.message}`));
  }
  const json = (body) => ({ method: 'POST', body: JSON.stringify(body) });
  const statuses = [
    [415, 'mouse/move', { method: 'POST', body: '{"x":1,"y":1}', type: 'text/plain' }],
    [415, 'start', { method: 'POST' }],
    [400, 'mouse/move', { method: 'POST', body: '{"x":' }],
    [400, 'mouse/move', { method: 'POST', body: '' }],
    [422, 'mouse/move', json({ x: 1 })],
    [422, 'mouse/move', json({ x: 1.5, y: 1 })],
    [422, 'mouse/move', json({ x: 3e9, y: 1 })],
    [422, 'mouse/click', json({ x: 1, y: 1, button: 'none' })],
    [422, 'mouse/click', json({ x: 1, y: 1, clickCount: -1 })],
    [422, 'keyboard/type', json({ text: 7 })],
    [422, 'windows/1/move', json({ x: 1 })],
    [422, 'launch', json({})],
    [400, 'screenshot?format=gif'],
    [400, 'screenshot?format=PNG'],
    [400, 'screenshot?showCursor=1'],
    [400, 'screenshot/region?x=1'],
    [405, 'mouse/move'],
    [409, 'mouse/move', json({ x: 1, y: 1, unknown: true })],
    [409, 'mouse/down', json({ x: null, y: null, button: null })],
  ];
  for (const [status, route, request] of statuses) {
    const response = await stage.raw(route, request);
    assert.equal(response.status, status, `${route} ${JSON.stringify(request)}: ${await response.text()}`);
  }
}, { inactive: true });

desktopScenario('says what has to be installed, and starts once it is', async (stage) => {
  const { client, server } = stage;
  for (const [name, call] of Object.entries({ ...CALLS, start: () => client.startDesktop({}) })) {
    const got = await desktopProblem(call(client), 503, 'desktop_dependencies_missing').catch((error) => assert.fail(`${name}: ${error.message}`));
    assert.deepEqual(got.missingDependencies, ['Xvfb']);
    assert.match(got.installCommand, /install desktop --yes$/);
  }
  for (const [name, call] of Object.entries(WRONG)) {
    await desktopProblem(call(client), 400, 'desktop_invalid_action').catch((error) => assert.fail(`${name}: ${error.message}`));
  }
  const status = await client.getDesktopStatus();
  assertHas(status, { state: 'install_required', missingDependencies: ['Xvfb'], processes: [] });
  assert.equal(status.lastError.code, 'desktop_dependencies_missing');
  assert.match(status.installCommand, /install desktop --yes$/);
  assertHas(await client.stopDesktop(), { state: 'inactive', missingDependencies: ['Xvfb'] });
  assert.equal((await client.getDesktopStatus()).state, 'install_required');

  link(server.env.PATH, 'Xvfb');
  assertHas(await client.getDesktopStatus(), { missingDependencies: [], installCommand: undefined });
  assertHas(await stage.start(), { state: 'active' });
}, { inactive: true, prepare: (server) => {
  const bin = path.join(server.home, 'bin');
  fs.mkdirSync(bin);
  for (const program of ['sh', 'openbox', 'xkbcomp', ...(isReference ? ['xdotool', 'import', 'xrandr', 'convert'] : [])]) link(bin, program);
  server.env.PATH = bin;
} });

function link(bin, program) {
  fs.symlinkSync(path.join('/usr/bin', program), path.join(bin, program));
}
