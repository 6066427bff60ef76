// The desktop live in a browser: pages that watch it, what they show, and what the server says of them.

import assert from 'node:assert/strict';
import fs from 'node:fs';
import path from 'node:path';
import { after } from 'node:test';
import { fileURLToPath } from 'node:url';

import { launchBrowser, servePage } from './browser.mjs';
import { SIZE } from './desktop_scenario.mjs';
import { RawWebSocket } from './raw_websocket.mjs';
import { watchFrames } from './shown_frames.mjs';
import { until } from './wait.mjs';

const TOKEN = 'stream-token+/=';
const RESULTS = path.join(path.dirname(fileURLToPath(import.meta.url)), '../../../test-results');
/** A browser takes whichever answers first. */
export const WEBRTC = ['webrtc-udp', 'webrtc-tcp'];

/** A browser and the page of the published component, as long as the test file runs; `options` are for its scenarios. */
export async function browsing() {
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
  return { site, browser, options };
}

/** A page on `url`; what it complains about comes into `problems`. */
export async function open(browser, url, viewport = { width: 900, height: 760 }) {
  const context = await browser.newContext({ viewport });
  const page = await context.newPage();
  page.setDefaultTimeout(30_000);
  await page.addInitScript(watchFrames);
  const problems = [];
  page.on('pageerror', (error) => problems.push(error.stack));
  page.on('requestfailed', (request) => problems.push(`${request.url()}: ${request.failure()?.errorText}`));
  await page.goto(url);
  return { page, context, problems };
}

/** The page with the published DesktopViewer. */
export function openComponent(stage, { browser, site }) {
  const { url, token } = stage.server;
  return open(browser, `${site.origin}/?${new URLSearchParams({ server: url, token })}`, { width: 900, height: 700 });
}

/** Our page, with a ticket. `way`: `websocket`, `jpeg`, or whatever passes. */
export async function openOurs(stage, { browser }, { mode = 'control', name, way, viewport } = {}) {
  const { page } = await ticket(stage, { mode, name });
  return open(browser, `${stage.server.url}${page}${way ? `&path=${way}` : ''}`, viewport);
}

/** Frames that a page has shown so far. */
export function framesOf(page) {
  return page.evaluate(() => window.shownFrames.count);
}

/** Colours of places of the picture, given as parts of its width and height. */
export function coloursOf(page, places) {
  return page.evaluate((wanted) => {
    const source = document.querySelector('canvas:not([hidden])') ?? document.querySelector('video');
    const [width, height] = [source.videoWidth ?? source.width, source.videoHeight ?? source.height];
    const copy = Object.assign(document.createElement('canvas'), { width, height });
    const context = copy.getContext('2d');
    context.drawImage(source, 0, 0, width, height);
    return wanted.map(([x, y]) => [...context.getImageData(Math.floor(x * width), Math.floor(y * height), 1, 1).data.slice(0, 3)]);
  }, places);
}

export const isNear = (one, other) => one.every((value, index) => Math.abs(value - other[index]) < 24);

/** The test card: four windows, each of a colour, in the corners; the upper ones have their titles above these places. */
const CARD = [[[0.05, 0.13], [255, 0, 0]], [[0.95, 0.13], [0, 255, 0]], [[0.05, 0.96], [0, 0, 255]], [[0.95, 0.96], [255, 255, 255]]];

export async function showCard(stage) {
  const script = CARD.map(([[x, y], colour], index) => {
    const hex = `#${colour.map((value) => value.toString(16).padStart(2, '0')).join('')}`;
    return [`card${index}`, hex, x < 0.5 ? 0 : 600, y < 0.5 ? 0 : 500];
  });
  for (const [name, hex, x, y] of script) {
    const id = await showWindow(stage, name, hex);
    await stage.client.resizeDesktopWindow(id, { width: 200, height: 100 });
    await stage.client.moveDesktopWindow(id, { x, y });
  }
}

/** A window all of one colour; resolves to its id. */
async function showWindow(stage, name, colour) {
  const args = ['-bg', colour, '-fg', colour, '-b', '0', '-bw', '0', '-geometry', '16x2', '-T', name, '+sb', '-cr', colour, '-e', 'sleep', '1000'];
  await stage.client.launchDesktopApp({ app: 'xterm', args, wait: true });
  return until(async () => (await stage.client.listDesktopWindows()).windows.find(({ title }) => title === name)?.id, name);
}

export async function untilCard(page) {
  const seen = async () => {
    const colours = await coloursOf(page, CARD.map(([place]) => place)).catch(() => []);
    return colours.length === CARD.length && colours.every((colour, index) => isNear(colour, CARD[index][1])) ? true : (seen.last = colours, false);
  };
  await until(seen, 'the test card', 30_000).catch(() => assert.fail(`the card looks like ${JSON.stringify(seen.last)}`));
}

/** Moves something on the screen until the page has shown so many frames more. */
export async function untilMoving(stage, page, frames = 20) {
  const before = await framesOf(page);
  // a window: the pointer alone isn't in the picture of viewers that show it themselves
  const id = stage.mover ??= await showWindow(stage, 'mover', '#808080');
  let x = 0;
  await until(async () => {
    x = (x + 7) % 300;
    await stage.client.moveDesktopWindow(id, { x: 250 + x, y: 470 });
    return (await framesOf(page)) >= before + frames;
  }, `${frames} frames`, 30_000);
}

/** A terminal of so many characters into which `bytes` of random text come thirty times a second. */
export async function scroll(stage, columns, rows, bytes, place) {
  const text = `while :; do head -c ${bytes} /dev/urandom | base64 -w ${columns}; sleep 0.03; done`;
  await stage.client.launchDesktopApp({ app: 'xterm', args: ['-geometry', `${columns}x${rows}${place}`, '-e', 'sh', '-c', text], wait: true });
}

/** What the browser counts of the video of its latest WebRTC connection. */
export function videoStats(page) {
  return page.evaluate(async () => {
    const report = await window.connections.at(-1).getStats();
    const { framesDecoded, keyFramesDecoded, pliCount } = [...report.values()].find(({ type, kind }) => type === 'inbound-rtp' && kind === 'video');
    return { framesDecoded, keyFramesDecoded, pliCount };
  });
}

/** Where places of the desktop are on the page: the picture is as large as fits into `selector`, in the middle. */
export async function placesOf(page, selector = '#stage', { width, height } = SIZE) {
  const box = await page.locator(selector).boundingBox();
  const factor = Math.min(box.width / width, box.height / height);
  const [left, top] = [box.x + (box.width - width * factor) / 2, box.y + (box.height - height * factor) / 2];
  return (x, y) => [left + x * factor, top + y * factor];
}

/** Clicks into an xterm, over the picture in `selector`, and types; what it gets is right. */
export async function clickAndType(stage, page, selector, file = 'typed', size = SIZE) {
  await stage.lines(file, ['-geometry', '40x8+200+200']);
  const at = await placesOf(page, selector, size);
  await page.mouse.click(...at(300, 250));
  await page.keyboard.type('Hello, World 42');
  await page.keyboard.press('Enter');
  await stage.untilRead(file, 'Hello, World 42\n');
}

export async function screenshot(page, name) {
  fs.mkdirSync(RESULTS, { recursive: true });
  await page.screenshot({ path: path.join(RESULTS, `${name}.png`) });
}

/** A request to `/v1/desktop/stream/…` with the token. */
export function call(stage, method, route, body) {
  const headers = { authorization: `Bearer ${stage.server.token}`, ...(body && { 'content-type': 'application/json' }) };
  return fetch(`${stage.server.url}/v1/desktop/stream/${route}`, { method, headers, body: body && JSON.stringify(body) });
}

export async function ticket(stage, spec) {
  const answer = await call(stage, 'POST', 'tickets', spec);
  assert.equal(answer.status, 200, await answer.clone().text());
  return answer.json();
}

/** Where a viewer says what it wants: with a ticket, or with whatever else `query` says. */
export function signaling(stage, query) {
  return `${stage.server.url}/v1/desktop/stream/signaling${query ? `?${new URLSearchParams(query)}` : ''}`;
}

/** A viewer that speaks for itself, and has heard `system/init`; by the token, if it has no ticket. */
export async function rawViewer(stage, given) {
  const viewer = await RawWebSocket.connect(signaling(stage, given ? { ticket: given } : { access_token: stage.server.token }));
  viewer.init = await viewer.untilHeard('system/init');
  return viewer;
}

export async function viewers(stage) {
  return (await (await call(stage, 'GET', 'viewers')).json()).viewers ?? []; // the stream is off
}

/** Resolves to the viewers once there are just so many, each over one of these paths. */
export function untilPath(stage, wanted, count = 1) {
  const seen = async () => {
    const all = await viewers(stage).catch(() => []); // the server was killed just now
    return all.length === count && all.every(({ path: way }) => wanted.includes(way)) ? all : false;
  };
  return until(seen, `the path ${wanted}`, 30_000).catch(async () => assert.fail(`not ${wanted}: ${JSON.stringify(await viewers(stage))}`));
}
