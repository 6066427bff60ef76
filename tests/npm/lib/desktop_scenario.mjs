// A test of the desktop: a server with a desktop of its own on a real X server, and real programs in it.

import assert from 'node:assert/strict';
import { spawn } from 'node:child_process';
import { once } from 'node:events';
import fs from 'node:fs';
import path from 'node:path';
import { isDeepStrictEqual } from 'node:util';

import { decodePng } from './pictures.mjs';
import { ProcessStage, problem, stageScenario } from './process_scenario.mjs';
import { isReference } from './target.mjs';
import { until } from './wait.mjs';

export const SIZE = { width: 800, height: 600 };

/** Ten display numbers of its own for each server, below the ports of TCP that X uses for them. */
let nextDisplay = 1000 + (process.pid % 500) * 100;

export function displayNumber() {
  nextDisplay += 10;
  return nextDisplay;
}

/** As `processScenario`; `body` gets a DesktopStage. With `inactive`, its desktop is not started. `prepare` gets the server before it starts. */
export function desktopScenario(title, body, options) {
  stageScenario(DesktopStage, title, body, options);
}

class DesktopStage extends ProcessStage {
  #inactive;

  constructor({ inactive = false, prepare, ...serverOptions }) {
    super(serverOptions);
    this.#inactive = inactive;
    // Without a locale, the reference can type nothing but ASCII.
    if (isReference) this.server.env.LANG = 'C.UTF-8';
    prepare?.(this.server);
  }

  async open() {
    await super.open();
    if (!this.#inactive) await this.start();
  }

  async close() {
    // A killed Xvfb leaves its socket behind, and then its number is taken.
    await this.client?.stopDesktop().catch(() => {});
    await super.close();
  }

  async start(spec = {}) {
    this.status = await this.client.startDesktop({ ...SIZE, displayNum: displayNumber(), ...spec });
    return this.status;
  }

  file(name) {
    return path.join(this.server.workDir, name);
  }

  read(name) {
    return fs.existsSync(this.file(name)) ? fs.readFileSync(this.file(name), 'utf8') : '';
  }

  /** Resolves once the file holds just `text`; fails with what it holds instead. */
  async untilRead(name, text) {
    await until(() => this.read(name) === text, `"${text}" in ${name}`, 15_000).catch(() => assert.equal(this.read(name), text));
  }

  /** Another program on the display, as a user would start it elsewhere; resolves to what it wrote. */
  async other(program, args, input = '') {
    const env = { ...this.server.env, DISPLAY: this.status.display, LANG: 'C.UTF-8' };
    // What xclip leaves in the background to hand out its text would hold a pipe open, and complain when the display goes.
    const [stdout, stderr] = args.includes('-i') ? ['ignore', 'ignore'] : ['pipe', 'inherit'];
    const child = spawn(program, args, { env, cwd: this.server.workDir, stdio: ['pipe', stdout, stderr] });
    const chunks = [];
    child.stdout?.on('data', (chunk) => chunks.push(chunk));
    child.stdin.on('error', () => {}).end(input);
    const [code] = await once(child, 'close');
    assert.equal(code, 0, `${program} ${args.join(' ')} ended with ${code}`);
    return Buffer.concat(chunks).toString('utf8');
  }

  /** Has another program own `selection`; resolves once that is so, as it ends before it. */
  async copy(selection, text) {
    await this.other('xclip', ['-selection', selection, '-i'], text);
    await until(async () => (await this.client.getDesktopClipboard({ selection })).text === text, 'the text of xclip');
  }

  /** Gives the background a colour, such as `#204060`; resolves once it is seen. */
  async paint(colour) {
    await this.other('xsetroot', ['-solid', colour]);
    const wanted = [1, 3, 5].map((at) => parseInt(colour.slice(at, at + 2), 16));
    const corner = () => this.client.takeDesktopRegionScreenshot({ x: 0, y: 0, width: 1, height: 1 });
    await until(async () => isDeepStrictEqual(decodePng(await corner()).at(0, 0), wanted), `the background ${colour}`);
  }

  /** Starts a program and resolves to its window, which has the keyboard. */
  async window(app, args) {
    const launched = await this.client.launchDesktopApp({ app, args, wait: true });
    const { pid } = launched;
    // On a busy machine it may take longer than the server waits.
    const ofPid = async () => (await this.client.listDesktopWindows()).windows.find((window) => window.pid === pid)?.id;
    const windowId = launched.windowId ?? await until(ofPid, `the window of ${app}`);
    const hasFocus = () => this.client.getDesktopFocusedWindow().then(({ id }) => id === windowId, () => false);
    await until(async () => (await hasFocus()) || (await this.client.focusDesktopWindow(windowId), false), `the focus of ${app}`);
    return { id: windowId, pid };
  }

  /** An xterm that runs `script`, which makes the file `ready` once it listens. */
  async xterm(script, ready, args = []) {
    const window = await this.window('xterm', [...args, '-e', 'sh', '-c', script.replaceAll('FILE', this.file(ready))]);
    await until(() => fs.existsSync(this.file(ready)), `${ready} of an xterm`);
    return window;
  }

  /** An xterm that writes each line that it gets into the file `name`. */
  lines(name, args) {
    return this.xterm('exec cat > FILE', name, args);
  }

  /** An xterm that writes each byte that it gets into the file `name`; with `modes`, after it has set these. */
  bytes(name, modes = '', args = []) {
    return this.xterm(`stty raw -echo; printf '${modes}'; exec cat > FILE`, name, args);
  }

  async windowOf(id) {
    return (await this.client.listDesktopWindows()).windows.find((window) => window.id === id);
  }

  pidOf(status, name) {
    return status.processes.find((entry) => entry.name === name)?.pid;
  }

  /** A request that the SDK doesn't make. */
  raw(route, { method = 'GET', body, type = 'application/json' } = {}) {
    const headers = body === undefined || !type ? {} : { 'content-type': type };
    if (this.server.token) headers.authorization = `Bearer ${this.server.token}`;
    return fetch(`${this.server.url}/v1/desktop/${route}`, { method, headers, body });
  }
}

/** Resolves to the desktop's problem with this code, whose members are as they should be. */
export async function desktopProblem(promise, status, code) {
  const got = await problem(promise, status, code);
  const { type, title, detail } = got;
  assert.equal(type, `urn:sandbox-agent:error:${code}`);
  assert.equal(title, code.split('_').map((word) => word[0].toUpperCase() + word.slice(1)).join(' '));
  assert.equal(got.code, code);
  assert.ok(detail, 'a problem without detail');
  return got;
}
