// Windows, the clipboard and programs of the desktop, through the published SDK.

import assert from 'node:assert/strict';
import fs from 'node:fs';
import path from 'node:path';

import { desktopProblem, desktopScenario } from './lib/desktop_scenario.mjs';
import { assertHas, isAlive, problem } from './lib/process_scenario.mjs';
import { until } from './lib/wait.mjs';

/** A frame of openbox is no wider and no higher than this. */
const FRAME = 40;
const TEXT = 'naïve “text”\n\twith 日本語 😀 and an end of line\n';

desktopScenario('lists windows, and says which has the keyboard', async (stage) => {
  const { client } = stage;
  await desktopProblem(client.getDesktopFocusedWindow(), 404, 'no_focused_window');
  assert.deepEqual(await client.listDesktopWindows(), { windows: [] });
  assert.equal((await client.getDesktopStatus()).windows, undefined);
  const first = await stage.lines('first', ['-T', 'the first', '-geometry', '50x10+20+40']);
  const second = await stage.lines('second', ['-T', 'the second', '-geometry', '50x10+300+300']);

  const { windows } = await client.listDesktopWindows();
  assert.deepEqual(windows.map(({ id, title, isActive }) => [id, title, isActive]), [[first.id, 'the first', false], [second.id, 'the second', true]]);
  for (const { x, y, width, height } of windows) assert.ok([x, y, width, height].every(Number.isInteger));
  assert.deepEqual((await client.getDesktopStatus()).windows.map(({ id }) => id), windows.map(({ id }) => id));
  assertHas(await client.getDesktopFocusedWindow(), { id: second.id, title: 'the second', isActive: true });

  await client.typeDesktopText({ text: 'to the second\n' });
  assertHas(await client.focusDesktopWindow(first.id), { id: first.id, title: 'the first' });
  await until(async () => (await client.getDesktopFocusedWindow()).id === first.id, 'the focus');
  await client.typeDesktopText({ text: 'to the first\n' });
  await stage.untilRead('first', 'to the first\n');
  await stage.untilRead('second', 'to the second\n');
});

desktopScenario('reads titles in the encodings that programs write them in', async (stage) => {
  const names = ['“note” 日本.txt', 'the “terminal”'];
  const editor = await stage.window('mousepad', [stage.file(names[0])]);
  const terminal = await stage.lines('typed', ['-T', names[1]]);
  // The one writes UTF8_STRING, the other COMPOUND_TEXT.
  const titles = async () => Promise.all([editor, terminal].map(async ({ id }) => (await stage.windowOf(id)).title));
  await until(async () => (await titles()).every((title, index) => title.includes(names[index])), 'the titles', 5_000)
    .catch(async () => assert.fail(JSON.stringify(await titles())));
}, { betterThanReference: 'it takes another window of a GTK program for its first' });

desktopScenario('answers to a change of focus once it is made', async (stage) => {
  const [first, second] = [await stage.lines('first'), await stage.lines('second')];
  for (let round = 0; round < 5; round += 1) {
    for (const { id } of [first, second]) {
      assertHas(await stage.client.focusDesktopWindow(id), { id, isActive: true });
      assertHas(await stage.client.getDesktopFocusedWindow(), { id });
    }
  }
}, { betterThanReference: 'it tells how the window was' });

desktopScenario('moves and resizes windows, and tells where they are then', async (stage) => {
  const { client } = stage;
  const { id } = await stage.lines('typed', ['-geometry', '50x10+20+40']);
  for (const [x, y] of [[300, 200], [0, 0], [-50, 100], [700, 500]]) {
    const moved = await client.moveDesktopWindow(id, { x, y });
    assert.ok(moved.x >= x && moved.x - x < FRAME && moved.y >= y && moved.y - y < FRAME, `${x},${y}: ${JSON.stringify(moved)}`);
    assert.deepEqual(await stage.windowOf(id), moved);
  }
  await client.moveDesktopWindow(id, { x: 10, y: 10 });
  const resized = await client.resizeDesktopWindow(id, { width: 600, height: 400 });
  // A terminal has whole characters only.
  assert.ok(resized.width <= 600 && resized.width > 580 && resized.height <= 400 && resized.height > 370, JSON.stringify(resized));
  assert.deepEqual(await stage.windowOf(id), resized);
  const higher = await client.resizeDesktopWindow(id, { width: 0, height: 300 });
  assert.equal(higher.width, resized.width);
  assert.ok(higher.height <= 300 && higher.height > 270, JSON.stringify(higher));
}, { betterThanReference: 'it tells how the window was, and off by its frame' });

desktopScenario('makes a window as large as it was asked to', async (stage) => {
  const { id } = await stage.window('mousepad', []);
  for (const [width, height] of [[600, 400], [501, 303]]) {
    assertHas(await stage.client.resizeDesktopWindow(id, { width, height }), { id, width, height });
    assertHas(await stage.windowOf(id), { width, height });
  }
}, { betterThanReference: 'it tells how the window was' });

desktopScenario('has no window by an id that is none', async ({ client }) => {
  for (const id of ['999999', '1', '4294967296', 'abc', '--help', '']) {
    for (const call of [() => client.focusDesktopWindow(id), () => client.moveDesktopWindow(id, { x: 1, y: 1 }), () => client.resizeDesktopWindow(id, { width: 9, height: 9 })]) {
      if (id) assert.match((await desktopProblem(call(), 404, 'window_not_found')).detail, new RegExp(id));
      else await problem(call(), 404);
    }
  }
}, { betterThanReference: 'it hands them to xdotool as options' });

desktopScenario('has no window that was closed', async (stage) => {
  const { client } = stage;
  const { id, pid } = await stage.lines('typed');
  process.kill(pid, 'SIGKILL');
  await until(async () => !(await stage.windowOf(id)), 'the end of the window');
  await desktopProblem(client.focusDesktopWindow(id), 404, 'window_not_found');
  await desktopProblem(client.moveDesktopWindow(id, { x: 1, y: 1 }), 404, 'window_not_found');
  await desktopProblem(client.getDesktopFocusedWindow(), 404, 'no_focused_window');
  assert.deepEqual(await client.listDesktopWindows(), { windows: [] });
}, { betterThanReference: 'it answers 503 for the focus, as it believes what openbox told last' });

desktopScenario('tells of a window that is closed under the call that it is no more', async (stage) => {
  const calls = [
    (id) => stage.client.moveDesktopWindow(id, { x: 50, y: 60 }),
    (id) => stage.client.resizeDesktopWindow(id, { width: 300, height: 200 }),
    (id) => stage.client.focusDesktopWindow(id),
  ];
  for (let round = 0; round < 9; round += 1) {
    const { id, pid } = await stage.window('xterm', []);
    const call = calls[round % 3](id);
    process.kill(pid, 'SIGKILL');
    const { value, error } = await call.then((value) => ({ value }), (error) => ({ error }));
    if (error) await desktopProblem(Promise.reject(error), 404, 'window_not_found');
    else assert.equal(value?.id, id, `round ${round}: ${JSON.stringify(value)}`);
  }
}, { betterThanReference: 'it answers 503' });

desktopScenario('reads what another program has copied', async (stage) => {
  const { client } = stage;
  assert.equal((await client.getDesktopClipboard()).text, '');
  await stage.copy('clipboard', TEXT);
  await stage.copy('primary', 'marked');
  assertHas(await client.getDesktopClipboard(), { text: TEXT, selection: 'clipboard' });
  assertHas(await client.getDesktopClipboard({ selection: 'clipboard' }), { text: TEXT, selection: 'clipboard' });
  assertHas(await client.getDesktopClipboard({ selection: 'primary' }), { text: 'marked', selection: 'primary' });
});

desktopScenario('gives other programs what was copied through it', async (stage) => {
  const { client } = stage;
  const paste = (selection) => stage.other('xclip', ['-selection', selection, '-o']);
  assert.deepEqual(await client.setDesktopClipboard({ text: TEXT }), { ok: true });
  assert.equal(await paste('clipboard'), TEXT);
  await client.setDesktopClipboard({ text: 'marked', selection: 'primary' });
  assert.deepEqual([await paste('primary'), await paste('clipboard')], ['marked', TEXT]);
  await client.setDesktopClipboard({ text: 'both', selection: 'both' });
  assert.deepEqual([await paste('primary'), await paste('clipboard')], ['both', 'both']);
  assertHas(await client.getDesktopClipboard(), { text: 'both', selection: 'clipboard' });

  const large = 'äöü and more\n'.repeat(100_000);
  await client.setDesktopClipboard({ text: large });
  assert.ok((await paste('clipboard')) === large, 'a large text came otherwise');
  await stage.copy('clipboard', `${large}.`);
  await client.setDesktopClipboard({ text: '' });
  assertHas(await client.getDesktopClipboard(), { text: '' });
  await problem(client.setDesktopClipboard({ text: 'a', selection: 'secondary' }), 422);
}, { betterThanReference: 'its answer never comes' });

desktopScenario('keeps what a program has copied that does not hand it out any more, and holds nobody up', async (stage) => {
  const { client } = stage;
  await stage.copy('clipboard', 'handed out once');
  const holder = stage.server.processes().find(({ command }) => command.startsWith('xclip'));
  process.kill(holder.pid, 'SIGSTOP');
  let ended = false;
  const read = client.getDesktopClipboard().finally(() => { ended = true; });
  await client.moveDesktopMouse({ x: 1, y: 1 });
  await client.takeDesktopScreenshot({ format: 'jpeg' });
  assert.ok(!ended, 'nobody was asked');
  assertHas(await read, { text: 'handed out once' });
  process.kill(holder.pid, 'SIGKILL');
  await stage.untilGone(holder.pid);
  assertHas(await client.getDesktopClipboard(), { text: 'handed out once' });
  await client.setDesktopClipboard({ text: 'mine' });
  assertHas(await client.getDesktopClipboard(), { text: 'mine' });
}, { betterThanReference: 'it waits, and with it everybody' });

desktopScenario('pastes what was copied', async (stage) => {
  const { id } = await stage.window('mousepad', [stage.file('note.txt')]);
  await stage.client.setDesktopClipboard({ text: TEXT });
  await stage.client.pressDesktopKey({ key: 'ctrl+v' });
  await until(async () => (await stage.windowOf(id)).title.startsWith('*'), 'a changed note');
  // The program enables its Save some time after it has changed its title.
  await until(async () => {
    await stage.client.pressDesktopKey({ key: 'ctrl+s' });
    return stage.read('note.txt') === TEXT;
  }, 'the note in its file');
}, { betterThanReference: 'its clipboard can not be set' });

desktopScenario('launches programs, and waits for their windows', async (stage) => {
  const { client } = stage;
  await stage.lines('typed');
  const { processId, pid, windowId } = await client.launchDesktopApp({ app: 'xterm', args: ['-T', 'it'], wait: true });
  assert.match(windowId, /^\d+$/);
  assertHas(await stage.windowOf(windowId), { title: 'it' });
  assertHas(await client.getProcess(processId), { pid, status: 'running', owner: 'desktop' });
  const other = await client.launchDesktopApp({ app: '/usr/bin/xterm', args: ['-T', 'other'] });
  assert.equal(other.windowId, undefined);
  await until(async () => (await client.listDesktopWindows()).windows.some(({ title }) => title === 'other'), 'the other window');

  for (const app of ['no-such-program', '/no/such/program', stage.server.workDir]) {
    assert.match((await desktopProblem(client.launchDesktopApp({ app }), 404, 'app_not_found')).detail, new RegExp(app));
  }
  await client.launchDesktopApp({ app: 'sh', args: ['-c', 'echo "$DISPLAY" > display.new; mv display.new display'] });
  await stage.untilRead('display', `${stage.status.display}\n`);
});

desktopScenario('finds the window of a program right after each start', async (stage) => {
  for (let round = 0; round < 12; round += 1) {
    await stage.start();
    const all = await Promise.all([1, 2].map(() => stage.client.launchDesktopApp({ app: 'xterm', wait: true })));
    assert.ok(all.every(({ windowId }) => windowId), `round ${round}: ${JSON.stringify(all)}`);
    await stage.client.stopDesktop();
  }
}, { inactive: true, betterThanReference: 'it does not wait for its window manager' });

desktopScenario('finds the window of a program that another one starts', async (stage) => {
  const script = 'xterm -T handed & exec sleep 86397';
  const { windowId } = await stage.client.launchDesktopApp({ app: 'sh', args: ['-c', script], wait: true });
  assertHas(await stage.windowOf(windowId), { title: 'handed' });
  const { windowId: other } = await stage.client.launchDesktopApp({ app: 'sh', args: ['-c', 'setsid xterm -T left &'], wait: true });
  assertHas(await stage.windowOf(other), { title: 'left' });
}, { betterThanReference: 'it looks for the pid that it has started, and no other' });

desktopScenario('answers when a program ends without a window', async (stage) => {
  const { processId, windowId } = await stage.client.launchDesktopApp({ app: 'sh', args: ['-c', 'exit 3'], wait: true });
  assert.equal(windowId, undefined);
  assertHas(await stage.client.getProcess(processId), { status: 'exited', exitCode: 3 });
});

desktopScenario('opens files and addresses with what is set for them', async (stage) => {
  for (const target of ['/a/file with spaces.txt', 'http://127.0.0.1:9/?a=b&c', '-h']) {
    const { processId } = await stage.client.openDesktopTarget({ target });
    assertHas(await stage.client.getProcess(processId), { owner: 'desktop' });
    await stage.untilRead('opened', `${target} on ${stage.status.display}\n`);
  }
}, { prepare: (server) => {
  const bin = path.join(server.home, 'bin');
  fs.mkdirSync(bin);
  fs.writeFileSync(path.join(bin, 'xdg-open'), `#!/bin/sh\nprintf '%s on %s\\n' "$1" "$DISPLAY" > '${server.workDir}/opened'\n`, { mode: 0o755 });
  server.env.PATH = `${bin}:${server.env.PATH}`;
} });

desktopScenario('ends the programs that run in it when it stops', async (stage) => {
  const { pid } = await stage.lines('typed');
  const script = 'setsid sleep 86397 & echo $! > child.new; mv child.new child; exec sleep 86397';
  const launched = await stage.client.launchDesktopApp({ app: 'sh', args: ['-c', script] });
  await until(() => stage.read('child'), 'the child');
  await stage.client.stopDesktop();
  await stage.server.waitUntilNoProcessIsLeft();
  for (const each of [pid, launched.pid]) assert.ok(!isAlive(each), `${each} is left`);
}, { betterThanReference: 'it leaves them behind' });
