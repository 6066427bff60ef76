// Pointer and keyboard of the desktop, through the published SDK: what programs get of them is read back from files.

import assert from 'node:assert/strict';

import { SIZE, desktopProblem, desktopScenario } from './lib/desktop_scenario.mjs';
import { assertHas } from './lib/process_scenario.mjs';
import { until } from './lib/wait.mjs';

const UNICODE = 'naïve café — “quoted” ü ñ 日本語 😀';
/** Has an xterm tell buttons, and motion while one is down (XTerm Control Sequences, SGR mouse). */
const TELL_MOUSE = '\\033[?1002h\\033[?1006h';

desktopScenario('moves the pointer and says where it is', async ({ client }) => {
  const there = await client.moveDesktopMouse({ x: 123, y: 45 });
  assertHas(there, { x: 123, y: 45, screen: 0 });
  assert.match(there.window, /^[1-9]\d*$/);
  assert.deepEqual(await client.getDesktopMousePosition(), there);
  assertHas(await client.moveDesktopMouse({ x: 5000, y: 5000 }), { x: SIZE.width - 1, y: SIZE.height - 1 });
  assertHas(await client.clickDesktop({ x: 10, y: 11 }), { x: 10, y: 11 });
  assertHas(await client.mouseDownDesktop({ x: 20, y: 21 }), { x: 20, y: 21 });
  assertHas(await client.mouseUpDesktop({}), { x: 20, y: 21 });
  assertHas(await client.dragDesktopMouse({ startX: 30, startY: 31, endX: 300, endY: 200 }), { x: 300, y: 200 });
  assertHas(await client.scrollDesktop({ x: 40, y: 41, deltaY: 1 }), { x: 40, y: 41 });
  assertHas(await client.getDesktopMousePosition(), { x: 40, y: 41 });
});

desktopScenario('has the pointer in the middle at first', async ({ client }) => {
  assertHas(await client.getDesktopMousePosition(), { x: SIZE.width / 2, y: SIZE.height / 2 });
});

desktopScenario('stops the pointer at the edge, however far it is sent', async ({ client }) => {
  assertHas(await client.moveDesktopMouse({ x: 40_000, y: 2_000_000_000 }), { x: SIZE.width - 1, y: SIZE.height - 1 });
}, { betterThanReference: 'it takes what is beyond 32 767 for 0' });

desktopScenario('gives programs the buttons that were asked for', async (stage) => {
  const { client } = stage;
  const { at, reports } = await mouseTerminal(stage);
  const here = at(10, 5);
  await client.clickDesktop(here);
  await client.clickDesktop({ ...here, button: 'middle' });
  await client.clickDesktop({ ...here, button: 'right' });
  assert.deepEqual(await reports(6), ['0 down', '0 up', '1 down', '1 up', '2 down', '2 up']);
  await client.clickDesktop({ ...here, clickCount: 3 });
  assert.deepEqual(await reports(6), ['0 down', '0 up', '0 down', '0 up', '0 down', '0 up']);
  await client.mouseDownDesktop({ ...here, button: 'middle' });
  assert.deepEqual(await reports(1), ['1 down']);
  await client.mouseUpDesktop({ button: 'middle' });
  assert.deepEqual(await reports(1), ['1 up']);
  for (const [delta, button] of [[{ deltaY: 3 }, 65], [{ deltaY: -3 }, 64], [{ deltaX: 3 }, 67], [{ deltaX: -3 }, 66]]) {
    await client.scrollDesktop({ ...here, ...delta });
    const downs = (await reports(3)).filter((report) => report === `${button} down`);
    assert.equal(downs.length, 3, JSON.stringify(delta));
  }
});

desktopScenario('clicks where it was asked to, as the list of windows counts', async (stage) => {
  const { at, places } = await mouseTerminal(stage);
  for (const [column, row] of [[1, 1], [10, 5], [40, 10]]) {
    await stage.client.clickDesktop(at(column, row));
    assert.deepEqual((await places(2))[0], [column, row]);
  }
}, { betterThanReference: 'its windows are off by their frames' });

desktopScenario('moves step by step while it drags', async (stage) => {
  const { at, reports } = await mouseTerminal(stage);
  const [from, to] = [at(2, 2), at(38, 9)];
  await stage.client.dragDesktopMouse({ startX: from.x, startY: from.y, endX: to.x, endY: to.y });
  const seen = await reports((all) => all.at(-1) === '0 up');
  assert.equal(seen[0], '0 down');
  assert.ok(seen.slice(1, -1).every((report) => report === '32 down'), seen.join());
  assert.ok(seen.length > 6, `only ${seen.length} reports: ${seen.join()}`);
}, { betterThanReference: 'it jumps from the start to the end' });

desktopScenario('scrolls as far as it was asked to', async (stage) => {
  const { at, reports } = await mouseTerminal(stage);
  await stage.client.scrollDesktop({ ...at(10, 5), deltaY: 120 });
  assert.deepEqual(new Set(await reports(120)), new Set(['65 down']));
}, { betterThanReference: 'from 50 notches on it answers 502 after 5 s' });

desktopScenario('types into a terminal', async (stage) => {
  await stage.lines('typed');
  const text = '-n "plain" $HOME `text` \\ * !? {[(<>)]} ~#^|&;\n';
  assert.deepEqual(await stage.client.typeDesktopText({ text }), { ok: true });
  await stage.client.typeDesktopText({ text: 'a\tb\n', delayMs: 0 });
  await stage.untilRead('typed', `${text}a\tb\n`);
});

desktopScenario('types every character into a terminal, whatever the keyboard has', async (stage) => {
  await stage.lines('typed', ['-u8']);
  const text = `${UNICODE}\n`.repeat(5);
  await stage.client.typeDesktopText({ text });
  await stage.untilRead('typed', text);
}, { betterThanReference: 'it loses some each time' });

desktopScenario('types long texts, whole', async (stage) => {
  await stage.lines('typed');
  const text = Array.from({ length: 60 }, (_, line) => `${line}: the quick brown fox jumps over the lazy dog\n`).join('');
  await stage.client.typeDesktopText({ text });
  await stage.untilRead('typed', text);
}, { betterThanReference: 'from 820 characters on it answers 502, with a part of it typed' });

desktopScenario('types every character into an editor, which saves them', async (stage) => {
  await stage.window('mousepad', [stage.file('note.txt')]);
  await stage.client.typeDesktopText({ text: `${UNICODE}\nand a second line` });
  await stage.client.pressDesktopKey({ key: 's', modifiers: { ctrl: true } });
  await stage.untilRead('note.txt', `${UNICODE}\nand a second line`);
}, { betterThanReference: 'it loses some each time' });

desktopScenario('types each character once, however slowly', async (stage) => {
  await stage.lines('typed');
  await stage.client.typeDesktopText({ text: 'abc\n', delayMs: 1500 });
  await stage.untilRead('typed', 'abc\n');
}, { betterThanReference: 'it holds each key down for half of the delay, and the keyboard repeats it' });

/** Names that xdotool knows, and what a terminal gets of them. */
const KEYS = {
  Return: '\r', BackSpace: '\x7f', Tab: '\t', Escape: '\x1b', Delete: '\x1b[3~', Up: '\x1b[A', Left: '\x1b[D', Page_Down: '\x1b[6~',
  F5: '\x1b[15~', space: ' ', a: 'a', Q: 'Q', 7: '7', 'ctrl+a': '\x01', 'ctrl+shift+Left': '\x1b[1;6D', 'shift+b': 'B', '0x61': 'a',
};
/** Names that others get wrong. */
const MORE_KEYS = {
  Enter: '\r', enter: '\r', Backspace: '\x7f', ArrowUp: '\x1b[A', ArrowRight: '\x1b[C', PageUp: '\x1b[5~', Esc: '\x1b', Del: '\x1b[3~', '!': '!',
  '+': '+', '-': '-', é: 'é', 'Ctrl+C': '\x03', 'Control+d': '\x04', 'shift+arrowleft': '\x1b[1;2D',
};

async function assertKeys(stage, keys) {
  await stage.bytes('keys', '', ['-u8']);
  let expected = '';
  for (const [key, bytes] of Object.entries(keys)) {
    assert.deepEqual(await stage.client.pressDesktopKey({ key }), { ok: true });
    expected += bytes;
    await stage.untilRead('keys', expected).catch((error) => assert.fail(`after ${key}: ${error.message}`));
  }
  return expected;
}

desktopScenario('presses keys', async (stage) => {
  const { client } = stage;
  let expected = await assertKeys(stage, KEYS);
  for (const [key, modifiers, bytes] of [['c', { ctrl: true }, '\x03'], ['x', { shift: true, ctrl: false, alt: null }, 'X'], ['Home', { ctrl: true, alt: true }, '\x1b[1;7H']]) {
    await client.pressDesktopKey({ key, modifiers });
    await stage.untilRead('keys', expected += bytes);
  }
  await client.keyDownDesktop({ key: 'shift' });
  await client.pressDesktopKey({ key: 'd' });
  await client.keyUpDesktop({ key: 'shift' });
  await client.pressDesktopKey({ key: 'd' });
  await stage.untilRead('keys', `${expected}Dd`);
});

desktopScenario('presses keys by the names that people use', (stage) => assertKeys(stage, MORE_KEYS),
  { betterThanReference: 'it answers that all is well, and does nothing' });

desktopScenario('refuses keys that are none, and says which', async ({ client }) => {
  for (const verb of ['pressDesktopKey', 'keyDownDesktop', 'keyUpDesktop']) {
    for (const key of ['NoSuchKey', 'ctrl+NoSuchKey']) {
      const { detail } = await desktopProblem(client[verb]({ key }), 400, 'desktop_invalid_action');
      assert.match(detail, /NoSuchKey/);
    }
  }
}, { betterThanReference: 'it answers that all is well, and does nothing' });

desktopScenario('can be looked at while it types', async (stage) => {
  await stage.lines('typed');
  let typed = false;
  const typing = stage.client.typeDesktopText({ text: `${'x'.repeat(200)}\n`, delayMs: 20 }).then(() => { typed = true; });
  await stage.client.getDesktopStatus();
  await stage.client.takeDesktopScreenshot({ format: 'jpeg' });
  await stage.client.listDesktopWindows();
  assert.ok(!typed, 'they waited for the end of the typing');
  await typing;
  await stage.untilRead('typed', `${'x'.repeat(200)}\n`);
}, { betterThanReference: 'one lock serves all' });

desktopScenario('types one text after the other when two are typed at once', async (stage) => {
  await stage.lines('typed');
  const texts = ['a', 'b', 'c'].map((letter) => `${letter.repeat(60)}\n`);
  await Promise.all(texts.map((text) => stage.client.typeDesktopText({ text, delayMs: 2 })));
  await until(() => stage.read('typed').length === 183, 'all three lines');
  assert.deepEqual(stage.read('typed').split('\n').sort().join('\n'), `\n${texts.sort().join('').trimEnd()}`);
});

/** An xterm of 40 columns and 10 rows that tells what the pointer does: where a cell is, and what was told since. */
async function mouseTerminal(stage) {
  const [columns, rows] = [40, 10];
  const { id } = await stage.bytes('mouse', TELL_MOUSE, ['-geometry', `${columns}x${rows}+100+100`, '+sb', '-b', '2']);
  const { x, y, width, height } = await stage.windowOf(id);
  const at = (column, row) => ({
    x: Math.floor(x + 2 + ((column - 0.5) * (width - 4)) / columns),
    y: Math.floor(y + 2 + ((row - 0.5) * (height - 4)) / rows),
  });
  let seen = 0;
  const told = () => [...stage.read('mouse').matchAll(/\x1b\[<(\d+);(\d+);(\d+)([mM])/g)].slice(seen);
  const take = async (wanted, describe) => {
    const enough = (all) => (typeof wanted === 'number' ? all.length >= wanted : all.length > 0 && wanted(all));
    await until(() => enough(told().map(describe)), `reports of the mouse, not just ${JSON.stringify(told().map(describe))}`);
    const taken = told().map(describe);
    seen += taken.length;
    return taken;
  };
  const reports = (wanted) => take(wanted, ([, button, , , end]) => `${button} ${end === 'M' ? 'down' : 'up'}`);
  const places = (wanted) => take(wanted, ([, , column, row]) => [Number(column), Number(row)]);
  return { at, reports, places };
}
