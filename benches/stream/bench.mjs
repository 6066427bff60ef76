// The server, a desktop with the test card, and pages that watch it.

import assert from 'node:assert/strict';
import { spawn } from 'node:child_process';
import { once } from 'node:events';
import fs from 'node:fs';
import { setTimeout as sleep } from 'node:timers/promises';

import { launchBrowser } from '../../tests/npm/lib/browser.mjs';
import { displayNumber } from '../../tests/npm/lib/desktop_scenario.mjs';
import { Server } from '../../tests/npm/lib/server.mjs';
import { call, openOurs, ticket, viewers } from '../../tests/npm/lib/stream_scenario.mjs';
import { until } from '../../tests/npm/lib/wait.mjs';
import { readStrips } from './strip.mjs';

const SCREEN = { width: 1280, height: 720 };
const FPS = 30;
/** So long after a page came or the card changed: what is learnt of the network is learnt, and what rests is at rest. */
const SETTLE_MS = 5000;
/** A part of what /proc/PID/stat counts in; the same on all of Linux. */
const TICK_MS = 10;
const VIEWERS = [0, 1, 2, 4];
export const MODES = ['still', 'clock', 'typing', 'scroll', 'video'];
/** `way` is what our page is asked for; `costs`: what it costs is measured, too. */
export const WAYS = [
  { name: 'WebRTC', way: undefined, costs: true },
  { name: 'WebSocket, H.264', way: 'websocket', costs: true },
  { name: 'WebSocket, JPEG', way: 'jpeg', costs: false },
];

export class Bench {
  #card;

  static async start(options) {
    const bench = new Bench();
    Object.assign(bench, options);
    assert.ok(fs.existsSync(bench.card), `${bench.card} is missing: cargo build --release -p x-desktop --example test_card`);
    bench.server = new Server({ token: 'bench' });
    try {
      await bench.server.start();
      bench.browser = await launchBrowser();
      const desktop = await bench.#post('start', { ...SCREEN, displayNum: displayNumber() });
      bench.display = desktop.display;
      await bench.#post('mouse/move', { x: SCREEN.width - 2, y: SCREEN.height - 2 });
      assert.equal((await call(bench, 'POST', 'start')).status, 200);
    } catch (error) {
      await bench.close();
      throw error;
    }
    return bench;
  }

  async close() {
    await this.#showMode(undefined);
    await this.browser?.close();
    await this.server.close();
  }

  /** All figures: {ways: [{name, path, modes: {clock: …}, cpu: {…}}], idleCpu}. */
  async run() {
    const ways = [];
    for (const { name, way, costs } of WAYS) {
      const figures = { name, modes: {}, cpu: {} };
      for (const mode of MODES) figures.modes[mode] = await this.#watched(mode, way);
      figures.path = figures.modes.clock.path;
      if (costs) {
        for (const count of VIEWERS) figures.cpu[count] = await this.#cost('clock', way, count);
        figures.cpu.still = await this.#cost('still', way, 1);
      }
      ways.push(figures);
    }
    return ways;
  }

  /** One page watches for a while: {path, firstMs, latencies, fps, bps}. */
  async #watched(mode, way) {
    await this.#showMode(mode);
    const { page, context, firstMs } = await this.#open(way);
    await sleep(SETTLE_MS);
    const begin = await this.#sent();
    await page.evaluate(() => { window.seen.length = 0; });
    const from = Date.now();
    await sleep(this.seconds * 1000);
    const [seen, seconds] = [await page.evaluate(() => window.seen), (Date.now() - from) / 1000];
    const end = await this.#sent();
    const [{ path }] = await viewers(this);
    await context.close();
    await this.#untilViewers(0);
    assert.ok(seen.length > 0 || mode === 'still', `no strip can be read: ${mode} over ${path}`);
    return {
      path,
      firstMs,
      latencies: seen.map(([shownAt, drawnAt]) => shownAt - drawnAt).sort((one, other) => one - other),
      fps: seen.length / seconds,
      bps: ((end.bytes - begin.bytes) * 8000) / (end.at - begin.at),
    };
  }

  /** The server's own time in percent of one core, and the frames a second that the slowest of its viewers shows. */
  async #cost(mode, way, count) {
    await this.#showMode(mode);
    const opened = [];
    for (let number = 0; number < count; number += 1) opened.push(await this.#open(way));
    await sleep(SETTLE_MS);
    for (const { page } of opened) await page.evaluate(() => { window.seen.length = 0; });
    const [begin, from] = [this.#cpuMs(), performance.now()];
    await sleep(this.seconds * 1000);
    const [spent, elapsed] = [this.#cpuMs() - begin, performance.now() - from];
    const shown = [];
    for (const { page } of opened) shown.push(await page.evaluate(() => window.seen.length));
    for (const { context } of opened) await context.close();
    await this.#untilViewers(0);
    return { percent: (spent * 100) / elapsed, fps: count ? (Math.min(...shown) * 1000) / elapsed : undefined };
  }

  async #open(way) {
    const opened = await openOurs(this, this, { way, viewport: { width: SCREEN.width, height: SCREEN.height + 80 } });
    await opened.page.evaluate(readStrips);
    // by the clock of the page, which begins with it
    const firstMs = await until(() => opened.page.evaluate(() => window.shownFrames.times[0]), 'a frame');
    return { ...opened, firstMs };
  }

  #untilViewers(count) {
    return until(async () => (await viewers(this)).length === count, `${count} viewers`);
  }

  /** What was sent to the only viewer, and when it was known: for WebRTC it is told once a second. */
  async #sent() {
    const bytes = async () => (await viewers(this))[0].bytesSent;
    const [first, deadline] = [await bytes(), Date.now() + 1500];
    for (;;) {
      const now = await bytes();
      if (now !== first || Date.now() > deadline) return { bytes: now, at: Date.now() };
      await sleep(20);
    }
  }

  #cpuMs() {
    const stat = fs.readFileSync(`/proc/${this.server.pid}/stat`, 'utf8');
    const fields = stat.slice(stat.lastIndexOf(')') + 2).split(' ');
    return (Number(fields[11]) + Number(fields[12])) * TICK_MS;
  }

  /** The card in this mode, in place of the one before. */
  async #showMode(mode) {
    if (this.#card?.mode === mode) return;
    if (this.#card) {
      const ended = once(this.#card.child, 'exit');
      this.#card.child.kill();
      await ended;
    }
    this.#card = undefined;
    if (!mode) return;
    const child = spawn(this.card, ['--mode', mode, '--fps', String(FPS)], { env: { ...this.server.env, DISPLAY: this.display }, stdio: 'inherit' });
    await once(child, 'spawn');
    this.#card = { mode, child };
  }

  async #post(route, body) {
    const headers = { authorization: `Bearer ${this.server.token}`, 'content-type': 'application/json' };
    const answer = await fetch(`${this.server.url}/v1/desktop/${route}`, { method: 'POST', headers, body: JSON.stringify(body) });
    assert.equal(answer.status, 200, `${route}: ${await answer.clone().text()}`);
    return answer.json();
  }
}
