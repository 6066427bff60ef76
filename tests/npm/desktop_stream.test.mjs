// The desktop live in a browser: by the published component and by our page, over UDP, TCP and the WebSocket.

import assert from 'node:assert/strict';
import fs from 'node:fs';
import path from 'node:path';
import { after } from 'node:test';
import { fileURLToPath } from 'node:url';

import { launchBrowser, servePage } from './lib/browser.mjs';
import { desktopScenario } from './lib/desktop_scenario.mjs';
import { until } from './lib/wait.mjs';

const TOKEN = 'stream-token+/=';
const RESULTS = path.join(path.dirname(fileURLToPath(import.meta.url)), '../../test-results');
/** A browser takes whichever answers first. */
const WEBRTC = ['webrtc-udp', 'webrtc-tcp'];
const TEXT = 'Grüße 日本 €';

const site = await servePage('react/desktop.jsx');
const browser = await launchBrowser();
after(async () => {
  await browser.close();
  await site.close();
});

const options = {
  token: TOKEN,
  betterThanReference: 'there, a neko is needed that nobody can install',
  flags: ['-O', site.origin, '-A', 'authorization', '-A', 'content-type'],
};

/** What the page complains about fails its test. */
async function open(context, url) {
  const page = await context.newPage();
  page.setDefaultTimeout(30_000);
  const problems = [];
  page.on('pageerror', (error) => problems.push(error.stack));
  page.on('requestfailed', (request) => problems.push(`${request.url()}: ${request.failure()?.errorText}`));
  await page.goto(url);
  return { page, problems };
}

/** Frames that a page has shown so far. */
function framesOf(page) {
  return page.evaluate(() => {
    const canvas = document.querySelector('canvas:not([hidden])');
    const video = document.querySelector('video');
    return canvas && window.sandboxdDesktop ? (window.frameCount = (window.frameCount ?? 0) + window.sandboxdDesktop.player.frames) : video.getVideoPlaybackQuality().totalVideoFrames;
  });
}

/** Colours of places of the picture, given as parts of its width and height. */
function coloursOf(page, places) {
  return page.evaluate((wanted) => {
    const source = document.querySelector('canvas:not([hidden])') ?? document.querySelector('video');
    const [width, height] = [source.videoWidth ?? source.width, source.videoHeight ?? source.height];
    const copy = Object.assign(document.createElement('canvas'), { width, height });
    const context = copy.getContext('2d');
    context.drawImage(source, 0, 0, width, height);
    return wanted.map(([x, y]) => [...context.getImageData(Math.floor(x * width), Math.floor(y * height), 1, 1).data.slice(0, 3)]);
  }, places);
}

const isNear = (one, other) => one.every((value, index) => Math.abs(value - other[index]) < 24);

/** The test card: four windows, each of a colour, in the corners; the upper ones have their titles above these places. */
const CARD = [[[0.05, 0.13], [255, 0, 0]], [[0.95, 0.13], [0, 255, 0]], [[0.05, 0.96], [0, 0, 255]], [[0.95, 0.96], [255, 255, 255]]];

async function showCard(stage) {
  const script = CARD.map(([[x, y], colour], index) => {
    const hex = `#${colour.map((value) => value.toString(16).padStart(2, '0')).join('')}`;
    return [`card${index}`, hex, x < 0.5 ? 0 : 600, y < 0.5 ? 0 : 500];
  });
  for (const [name, colour, x, y] of script) {
    await stage.client.launchDesktopApp({ app: 'xterm', args: ['-bg', colour, '-fg', colour, '-b', '0', '-bw', '0', '-T', name, '+sb', '-cr', colour, '-e', 'sleep', '1000'], wait: true });
    const id = await until(async () => (await stage.client.listDesktopWindows()).windows.find(({ title }) => title === name)?.id, name);
    await stage.client.resizeDesktopWindow(id, { width: 200, height: 100 });
    await stage.client.moveDesktopWindow(id, { x, y });
  }
}

async function untilCard(page) {
  const seen = async () => {
    const colours = await coloursOf(page, CARD.map(([place]) => place)).catch(() => []);
    return colours.length === CARD.length && colours.every((colour, index) => isNear(colour, CARD[index][1])) ? true : (seen.last = colours, false);
  };
  await until(seen, 'the test card', 30_000).catch(() => assert.fail(`the card looks like ${JSON.stringify(seen.last)}`));
}

/** Moves something on the screen until the page has shown so many frames more. */
async function untilMoving(stage, page, frames = 20) {
  const before = await framesOf(page);
  let x = 0;
  await until(async () => {
    x = (x + 7) % 300;
    await stage.client.moveDesktopMouse({ x: 250 + x, y: 300 });
    return (await framesOf(page)) >= before + frames;
  }, `${frames} frames`, 30_000);
}

async function ticket(stage, spec) {
  const answer = await fetch(`${stage.server.url}/v1/desktop/stream/tickets`, {
    method: 'POST', headers: { authorization: `Bearer ${TOKEN}`, 'content-type': 'application/json' }, body: JSON.stringify(spec),
  });
  assert.equal(answer.status, 200, await answer.clone().text());
  return answer.json();
}

async function viewers(stage) {
  const answer = await fetch(`${stage.server.url}/v1/desktop/stream/viewers`, { headers: { authorization: `Bearer ${TOKEN}` } });
  return (await answer.json()).viewers ?? []; // the stream is off
}

const untilPath = (stage, wanted, count = 1) => until(async () => {
  const all = await viewers(stage).catch(() => []); // the server was killed just now
  return all.length === count && all.every(({ path: way }) => wanted.includes(way)) ? all : false;
}, `the path ${wanted}`, 30_000).catch(async () => assert.fail(JSON.stringify(await viewers(stage))));

desktopScenario('DesktopViewer shows the desktop, and controls it', async (stage) => {
  await stage.client.startDesktopStream();
  const context = await browser.newContext({ viewport: { width: 900, height: 700 } });
  const { page, problems } = await open(context, `${site.origin}/?${new URLSearchParams({ server: stage.server.url, token: TOKEN })}`);
  await untilPath(stage, WEBRTC);
  await showCard(stage);
  await untilCard(page);
  await untilMoving(stage, page);

  await stage.lines('typed', ['-geometry', '40x8+200+200']);
  const box = await page.locator('video').boundingBox();
  const at = (x, y) => [box.x + (x / 800) * box.width, box.y + (y / 600) * box.height];
  await page.mouse.click(...at(300, 250));
  await page.keyboard.type('Hello, World 42');
  await page.keyboard.press('Enter');
  await stage.untilRead('typed', 'Hello, World 42\n');
  fs.mkdirSync(RESULTS, { recursive: true });
  await page.screenshot({ path: path.join(RESULTS, 'desktop-viewer.png') });
  assert.deepEqual(problems, []);
  await context.close();
  await until(async () => (await viewers(stage)).length === 0, 'the end of the viewer');
}, options);

for (const [name, fragment, paths] of [
  ['WebRTC', '', WEBRTC],
  ['the WebSocket as H.264', '&path=websocket', ['websocket-h264']],
  ['the WebSocket as JPEG', '&path=jpeg', ['websocket-jpeg']],
]) {
  desktopScenario(`our page shows and controls the desktop over ${name}`, async (stage) => {
    const { client, server } = stage;
    await client.startDesktopStream();
    const context = await browser.newContext({ viewport: { width: 900, height: 760 } });
    const { page, problems } = await open(context, `${server.url}${(await ticket(stage, { mode: 'control', name: 'test' })).page}${fragment}`);
    const [viewer] = await untilPath(stage, paths);
    assert.equal(viewer.name, 'test');
    assert.ok(!page.url().includes('ticket'), 'the ticket stays in the address');
    await showCard(stage);
    await untilCard(page);
    await untilMoving(stage, page);

    await stage.lines('typed', ['-geometry', '40x8+200+200']);
    const box = await page.locator('#stage').boundingBox();
    const factor = Math.min(box.width / 800, box.height / 600);
    const at = (x, y) => [box.x + (box.width - 800 * factor) / 2 + x * factor, box.y + (box.height - 600 * factor) / 2 + y * factor];
    await page.mouse.click(...at(300, 250));
    await page.keyboard.type('Hello, World 42');
    await page.keyboard.press('Enter');
    await stage.untilRead('typed', 'Hello, World 42\n');

    // both ways
    await page.locator('#clipboard').click();
    await page.locator('#clipboard-text').fill(TEXT);
    await page.locator('#clipboard-send').click();
    await until(async () => (await client.getDesktopClipboard()).text === TEXT, 'the text on the desktop');
    await stage.copy('clipboard', 'copied there');
    await until(async () => (await page.locator('#clipboard-text').inputValue()) === 'copied there', 'the text in the page');
    await page.locator('#clipboard').click();

    await page.locator('#statistics').click();
    await until(async () => /^\d+$/.test(await page.locator('#fps').textContent()), 'statistics');
    await page.screenshot({ path: path.join(RESULTS, `desktop-page-${paths[0]}.png`) });

    await server.crash();
    await untilPath(stage, paths);
    await untilCard(page);
    await untilMoving(stage, page);
    assert.deepEqual(problems, []);
    await context.close();
  }, { ...options, kept: true });
}

desktopScenario('several watch at once, one is slow, and one is sent away', async (stage) => {
  await stage.client.startDesktopStream();
  const pages = [];
  for (const [mode, fragment] of [['control', ''], ['view', ''], ['view', '&path=websocket']]) {
    const context = await browser.newContext({ viewport: { width: 500, height: 400 } });
    pages.push((await open(context, `${stage.server.url}${(await ticket(stage, { mode })).page}${fragment}`)).page);
  }
  await untilPath(stage, [...WEBRTC, 'websocket-h264'], 3);
  await showCard(stage);
  for (const page of pages) await untilCard(page);

  // one stops reading for a while: the others don't notice, and it gets the latest then
  const slow = await pages[2].context().newCDPSession(pages[2]);
  await slow.send('Emulation.setCPUThrottlingRate', { rate: 20 });
  await untilMoving(stage, pages[0], 60);
  await slow.send('Emulation.setCPUThrottlingRate', { rate: 1 });
  await untilMoving(stage, pages[2]);

  await stage.lines('typed', ['-geometry', '40x8+200+200']);
  await pages[1].locator('#stage').click();
  await pages[1].keyboard.type('not mine');
  const [, watching] = await viewers(stage);
  assert.equal(watching.mode, 'view');
  const kicked = await fetch(`${stage.server.url}/v1/desktop/stream/viewers/${watching.id}`, { method: 'DELETE', headers: { authorization: `Bearer ${TOKEN}` } });
  assert.equal(kicked.status, 204);
  await pages[1].locator('#ask[open]').waitFor(); // its ticket is no good any more
  assert.equal((await viewers(stage)).length, 2);
  assert.equal(stage.read('typed'), '');
  for (const page of pages) await page.context().close();
}, options);
