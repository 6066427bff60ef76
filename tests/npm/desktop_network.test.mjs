// The desktop live on bad networks: ways that are barred, loss, and little room. Runs in a network of its own.

import { drop, heal, narrow } from './lib/own_network.mjs'; // first: what comes after it is in that network
import assert from 'node:assert/strict';
import fs from 'node:fs';
import { setTimeout as sleep } from 'node:timers/promises';

import { desktopScenario, displayNumber } from './lib/desktop_scenario.mjs';
import { browsing, call, clickAndType, openComponent, openOurs, scroll, showCard, untilCard, untilMoving, untilPath, viewers } from './lib/stream_scenario.mjs';
import { until } from './lib/wait.mjs';

const PORTS = '59050-59070';
const NO_UDP = `udp dport ${PORTS}`;
const NO_TCP = `tcp dport ${PORTS}`;
const LOST = ['dport', 'sport'].map((side) => `udp ${side} ${PORTS} numgen random mod 100 < 20`);
const LOSS_MS = 2000;
/** While the network is narrow, so many colours are looked for, one after the other. */
const COLOURS = ['#c01020', '#1020c0', '#10a020', '#c0a010', '#802090', '#20a0a0', '#e0e0e0', '#303030'];
const DELAY_MAX_MS = 5000;
/** Those before are shown while it is found out how narrow the network is. */
const SETTLED = 2;

const { options, ...looking } = await browsing();

function scenario(title, body, { size, ...more } = {}) {
  desktopScenario(title, async (stage, t) => {
    if (size) await stage.start(size);
    await stage.client.startDesktopStream();
    try {
      await body(stage, t);
    } finally {
      heal();
    }
  }, { ...options, inactive: Boolean(size), hangGuardMs: 180_000, ...more });
}

/** What each kind of page shows is right and moves, and what is done there reaches programs. */
async function assertWatched(stage, way, pages = { video: openComponent, '#stage': openOurs }) {
  await showCard(stage);
  for (const [selector, openPage] of Object.entries(pages)) {
    const { page, context, problems } = await openPage(stage, looking);
    await untilPath(stage, [way]);
    await untilCard(page);
    await untilMoving(stage, page);
    await clickAndType(stage, page, selector, `typed-${openPage.name}`);
    await untilPath(stage, [way]);
    assert.deepEqual(problems, []);
    await context.close();
    await until(async () => (await viewers(stage)).length === 0, 'the end of the viewer');
  }
}

scenario('without TCP the picture comes over UDP', async (stage) => {
  drop(NO_TCP);
  await assertWatched(stage, 'webrtc-udp');
});

scenario('without UDP it comes over TCP', async (stage) => {
  drop(NO_UDP);
  await assertWatched(stage, 'webrtc-tcp');
});

scenario('without both, our page takes the WebSocket by itself and says why', async (stage) => {
  drop(NO_UDP, NO_TCP);
  await assertWatched(stage, 'websocket-h264', {
    '#stage': async function explained() {
      const opened = await openOurs(stage, looking);
      const [{ pathReason }] = await untilPath(stage, ['websocket-h264']);
      assert.match(pathReason, /WebRTC.*UDP.*TCP/);
      assert.ok((await opened.page.locator('#state').textContent()).includes(pathReason), 'the page does not say so');
      return opened;
    },
  });
});

/** When frames were shown, and now, by the clock of the page. */
const timesOf = (page) => page.evaluate(() => ({ now: performance.now(), times: window.shownFrames.times }));

/** Frames a second from `from` to `to`. */
const rateOf = (times, from, to) => (times.filter((at) => at >= from && at < to).length * 1000) / (to - from);

/** From `from` on: the beginning of the first second in which frames came as often as `wanted`, if there was one. */
function recoveredAt(times, from, now, wanted) {
  for (let at = from; at + 1000 <= now; at += 50) { // what was held back comes in a burst, which is shorter
    if (rateOf(times, at, at + 1000) >= wanted) return at;
  }
  return undefined;
}

scenario('after two seconds of loss the picture moves as before', async (stage, t) => {
  drop(NO_TCP);
  const { page } = await openOurs(stage, looking);
  await untilPath(stage, ['webrtc-udp']);
  await showCard(stage);
  await untilCard(page);
  await scroll(stage, 60, 16, 40, '+220+200');
  await untilMoving(stage, page, 60);
  await sleep(3000);
  const { now: lossAt, times: before } = await timesOf(page);
  const rate = rateOf(before, lossAt - 3000, lossAt);

  drop(...LOST);
  await sleep(LOSS_MS);
  heal();
  drop(NO_TCP);
  const { now: endAt } = await timesOf(page);
  const recovered = await until(async () => {
    const { now, times } = await timesOf(page);
    return recoveredAt(times, endAt, now, rate * 0.8);
  }, `${rate * 0.8} frames a second again`);
  const { now, times } = await timesOf(page);
  const during = times.filter((at) => at > lossAt - 1000);
  const gap = Math.max(...during.map((at, index) => at - (during[index - 1] ?? at)));
  const steps = Array.from({ length: Math.floor((now - lossAt) / 250) }, (_, index) => rateOf(times, lossAt + index * 250, lossAt + (index + 1) * 250));
  t.diagnostic(`${rate.toFixed(1)} frames/s before, back ${Math.round(recovered - endAt)} ms after the end of the loss, longest gap ${Math.round(gap)} ms`);
  t.diagnostic(`frames/s in each 250 ms since the loss began: ${steps.join(' ')}`);
  await untilCard(page);
  await untilMoving(stage, page);
});

/** A window in the corner that takes on each colour that is written into its pipe. */
async function colourable(stage) {
  const pipe = stage.file('colours');
  const script = `mkfifo ${pipe}; exec 3<>${pipe}; touch FILE; while read colour <&3; do printf '\\033]11;%s\\007' "$colour"; done`;
  await stage.xterm(script, 'listens', ['-geometry', '20x6-0-0', '+sb']);
  return (colour) => fs.writeFileSync(pipe, `${colour}\n`);
}

/** Resolves to when, by the clock, the page first showed this colour in the corner. */
function shownAt(page, colour) {
  return page.evaluate((wanted) => new Promise((resolve) => {
    const copy = Object.assign(document.createElement('canvas'), { width: 1, height: 1 });
    const context = copy.getContext('2d', { willReadFrequently: true });
    window.shownFrames.onFrame = (source) => {
      const [width, height] = [source.videoWidth ?? source.width, source.videoHeight ?? source.height];
      context.drawImage(source, width * 0.97, height * 0.97, 1, 1, 0, 0, 1, 1);
      const seen = context.getImageData(0, 0, 1, 1).data;
      if (wanted.every((value, index) => Math.abs(value - seen[index]) < 32)) {
        window.shownFrames.onFrame = undefined;
        resolve(Date.now());
      }
    };
  }), [1, 3, 5].map((at) => parseInt(colour.slice(at, at + 2), 16)));
}

const video = async (stage) => (await (await call(stage, 'GET', 'status')).json()).video;

for (const [name, way, barred, matches] of [
  ['over UDP', 'webrtc-udp', NO_TCP, () => `udp sport ${PORTS}`],
  ['over TCP', 'webrtc-tcp', NO_UDP, () => `tcp sport ${PORTS}`],
  ['over the WebSocket', 'websocket-h264', NO_UDP, ({ url }) => `tcp sport ${new URL(url).port}`],
]) {
  scenario(`where the network is narrow the picture goes on, and is not late: ${name}`, async (stage, t) => {
    drop(barred);
    const isWebRtc = way.startsWith('webrtc');
    const { page } = await openOurs(stage, looking, { way: isWebRtc ? undefined : 'websocket' });
    await untilPath(stage, [way]);
    const paint = await colourable(stage);
    await scroll(stage, 120, 36, 600, '+10+10');
    await untilMoving(stage, page, 60);
    const wide = await until(async () => (await video(stage)).bitrateBps > 1_500_000 && video(stage), 'a bit rate for the wide network');

    const delays = [];
    narrow(matches(stage.server), '1mbit', 25);
    const { now: from } = await timesOf(page);
    await sleep(2000);
    for (const colour of COLOURS) {
      const shown = shownAt(page, colour);
      const paintedAt = Date.now();
      paint(colour);
      delays.push(await shown - paintedAt);
      await sleep(1500);
    }
    const [least, { now, times }] = [await video(stage), await timesOf(page)];
    heal();
    drop(barred);
    t.diagnostic(`delays (ms): ${delays.join(' ')}; ${rateOf(times, from, now).toFixed(1)} frames/s`);
    t.diagnostic(`from ${JSON.stringify(wide)} to ${JSON.stringify(least)}`);
    assert.ok(Math.max(...delays.slice(SETTLED)) < DELAY_MAX_MS, `late: ${delays}`);
    if (isWebRtc) { // over the WebSocket there are fewer frames instead
      assert.ok(least.bitrateBps < wide.bitrateBps || least.frameRate < wide.frameRate, JSON.stringify({ wide, least }));
      await until(async () => (await video(stage)).bitrateBps > least.bitrateBps * 1.2, 'a higher bit rate again', 60_000);
    }
    await untilMoving(stage, page);
  }, { size: { width: 1280, height: 720, displayNum: displayNumber() } });
}
