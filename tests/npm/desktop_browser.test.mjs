// A browser on the desktop: what is typed and clicked arrives in a page, what the page copies is the clipboard, and its tree is read.

import assert from 'node:assert/strict';
import fs from 'node:fs';

import { desktopScenario } from './lib/desktop_scenario.mjs';
import { until } from './lib/wait.mjs';

const BY_ITSELF = { betterThanReference: 'no browser is looked at there' };
const TEXT = 'naïve Ελληνικά Русский 日本語 😀 ÄÖÜß €';
/** Everything that happens is told in the title. */
const PAGE = `<!doctype html><meta charset="utf-8"><title>ready</title>
<style>body{margin:0;background:#fff}textarea,button{position:fixed;left:100px;width:400px;font-size:20px}</style>
<textarea id="text" aria-label="message" style="top:20px;height:120px"></textarea>
<button id="go" style="top:180px;height:60px">Say it</button>
<div id="pad" style="position:fixed;left:100px;top:270px;width:400px;height:120px;background:#204060"></div>
<script>
const $ = (id) => document.getElementById(id);
const moves = [];
$('go').onclick = () => { document.title = 'said:' + $('text').value; };
$('text').onclick = () => { document.title = 'clicked'; };
$('text').onselect = () => { document.title = 'selected'; };
$('text').oncopy = () => { document.title = 'copied'; };
$('pad').onpointerdown = (event) => { $('pad').setPointerCapture(event.pointerId); moves.length = 0; };
$('pad').onpointermove = (event) => { if (event.buttons) moves.push(event.clientX); };
$('pad').onpointerup = () => { document.title = 'dragged:' + moves.length + ':' + Math.round(moves.at(-1)); };
addEventListener('wheel', (event) => { document.title = 'wheel:' + Math.sign(event.deltaY); });
</script>`;

desktopScenario('works in a page of Chromium', async (stage) => {
  const { client } = stage;
  fs.writeFileSync(stage.file('page.html'), PAGE);
  const flags = ['--no-sandbox', '--no-first-run', '--disable-gpu', '--disable-dev-shm-usage', '--force-renderer-accessibility', '--password-store=basic'];
  const args = [...flags, `--user-data-dir=${stage.file('profile')}`, '--window-position=0,0', '--window-size=700,500', `--app=file://${stage.file('page.html')}`];
  await client.launchDesktopApp({ app: 'chromium', args });
  const title = async () => (await client.listDesktopWindows()).windows.map((window) => window.title).join();
  const untilTitle = (text) => until(async () => (await title()).includes(text), `the title "${text}"`, 60_000)
    .catch(async () => assert.fail(`"${text}" never came: ${await title()}`));
  await untilTitle('ready');
  // The SDK knows no calls for the tree.
  const tree = async (route, body) => {
    const answer = await stage.raw(`accessibility/${route}`, { method: 'POST', body: JSON.stringify(body) });
    const text = await answer.text();
    assert.ok(answer.ok, `${route}: ${answer.status} ${text}`);
    return JSON.parse(text);
  };
  const find = async (spec) => {
    const { nodes } = await tree('find', { ...spec, timeoutMs: 30_000 });
    assert.equal(nodes.length, 1, JSON.stringify(nodes));
    const [{ bounds }] = nodes;
    return { ...nodes[0], centre: { x: bounds.x + (bounds.width >> 1), y: bounds.y + (bounds.height >> 1) } };
  };
  const field = await find({ name: 'message', role: 'entry' });
  const button = await find({ name: 'Say it', role: 'push button' });

  await client.clickDesktop(field.centre);
  await untilTitle('clicked');
  await client.typeDesktopText({ text: TEXT });
  await client.clickDesktop(button.centre);
  await untilTitle(`said:${TEXT}`);

  // Chromium may take a key before the click that came first.
  await client.clickDesktop(field.centre);
  await untilTitle('clicked');
  await client.pressDesktopKey({ key: 'ctrl+a' });
  await untilTitle('selected');
  await client.pressDesktopKey({ key: 'ctrl+c' });
  await untilTitle('copied');
  await until(async () => (await client.getDesktopClipboard()).text === TEXT, 'what the page copied');
  await client.setDesktopClipboard({ text: 'pasted “back”' });
  await client.pressDesktopKey({ key: 'ctrl+v' });
  await tree('act', { node: button.id, action: 'click' });
  await untilTitle('said:pasted “back”');

  const { x, y } = button.centre;
  await client.dragDesktopMouse({ startX: x - 150, startY: y + 120, endX: x + 150, endY: y + 130 });
  await untilTitle('dragged:');
  const [, count] = /dragged:(\d+)/.exec(await title());
  assert.ok(Number(count) > 3, `a path, and not a jump: ${count}`);
  await client.scrollDesktop({ x, y, deltaY: 1 });
  await untilTitle('wheel:1');
}, { ...BY_ITSELF, todo: 'on a busy machine, one time in eight, one of the steps has no effect: Chromium or we' });
