// The published React component on a terminal of ours, in a real browser, by keyboard and by sight.

import assert from 'node:assert/strict';
import path from 'node:path';
import { after } from 'node:test';
import { fileURLToPath } from 'node:url';

import { launchBrowser, servePage } from './lib/browser.mjs';
import { processScenario } from './lib/process_scenario.mjs';
import { until } from './lib/wait.mjs';

const screenshotPath = path.join(path.dirname(fileURLToPath(import.meta.url)), '../../test-results/process-terminal.png');
const RED = [0xf8, 0x71, 0x71];

const site = await servePage('react/page.jsx');
const browser = await launchBrowser();
after(async () => {
  await browser.close();
  await site.close();
});

const serverOptions = { token: 'page-token+/=', flags: ['-O', site.origin, '-A', 'authorization', '-A', 'content-type'] };

async function shell(stage) {
  const options = { env: { PS1: '$ ', TERM: 'xterm-256color' }, tty: true, interactive: true };
  return stage.client.createProcess({ command: 'sh', args: ['-i'], cwd: stage.server.workDir, ...options });
}

/** A page with the component, once that says it is connected; `problems` is what the page complained about. */
async function openPage(stage, processId) {
  const page = await browser.newPage({ viewport: { width: 900, height: 480 } });
  page.setDefaultTimeout(15_000);
  const problems = [];
  page.on('pageerror', (error) => problems.push(error.stack));
  page.on('console', (message) => message.type() === 'error' && problems.push(message.text()));
  const address = new URLSearchParams({ server: stage.server.url, token: stage.server.token, process: processId });
  await page.goto(`${site.origin}/?${address}`);
  try {
    await page.getByText('Connected', { exact: true }).waitFor();
  } catch (error) {
    throw new Error(`${error.message}\n${problems.join('\n')}\n${await page.textContent('body')}`);
  }
  return { page, problems };
}

async function untilOnScreen(page, text) {
  try {
    await page.waitForFunction((wanted) => window.screenText().includes(wanted), text);
  } catch {
    throw new Error(`"${text}" is not on the screen, which shows:\n${await page.evaluate(() => window.screenText())}`);
  }
}

/** How many pixels of the terminal have nearly that colour. */
async function countPixels(page, colour) {
  return page.evaluate((wanted) => {
    const canvas = document.querySelector('canvas');
    const { data } = canvas.getContext('2d').getImageData(0, 0, canvas.width, canvas.height);
    let count = 0;
    for (let index = 0; index < data.length; index += 4) {
      if (wanted.every((value, channel) => Math.abs(data[index + channel] - value) < 4)) count += 1;
    }
    return count;
  }, colour);
}

/** Waits for a bar of that colour: some thousand pixels. The component paints a little after it knows what. */
async function untilPainted(page, colour) {
  await until(async () => (await countPixels(page, colour)) > 2000, `pixels of the colour ${colour}`, 10_000);
}

processScenario('ProcessTerminal: a shell in the browser, from "Connected" to its exit code', async (stage) => {
  const { id } = await shell(stage);
  const { page, problems } = await openPage(stage, id);
  await page.keyboard.type('echo answer $((6 * 7))\n');
  await untilOnScreen(page, 'answer 42');

  const { rows, cols } = await page.evaluate(() => ({ rows: window.terminal.rows, cols: window.terminal.cols }));
  assert.ok(cols > 80, `the component fits its terminal into the page: ${cols} columns`);
  await page.keyboard.type('stty size\n');
  await untilOnScreen(page, `\n${rows} ${cols}\n`);

  await page.keyboard.type("sh -c 'echo under way; exec cat'\n");
  await untilOnScreen(page, '\nunder way\n');
  await page.keyboard.press('Control+C');
  await untilOnScreen(page, '^C\n$');
  await page.keyboard.type('echo status $?\n');
  await untilOnScreen(page, 'status 130');

  assert.equal(await countPixels(page, RED), 0);
  await page.keyboard.type("printf '\\033[41m%60s\\033[0m\\n' 'red ground'\n");
  await untilOnScreen(page, ' red ground\n');
  await untilPainted(page, RED);
  await page.screenshot({ path: screenshotPath });

  await page.keyboard.type('exit 7\n');
  await page.getByText('Process exited with code 7.', { exact: true }).waitFor();
  await page.getByText('exit=7', { exact: true }).waitFor();
  assert.equal((await stage.client.getProcess(id)).exitCode, 7);
  assert.deepEqual(problems, []);
}, serverOptions);

processScenario('ProcessTerminal: leaving the page leaves the shell running', async (stage) => {
  const { id } = await shell(stage);
  const { page } = await openPage(stage, id);
  await page.keyboard.type('fruit=apple; echo "fruit is $fruit"\n');
  await untilOnScreen(page, 'fruit is apple');
  await page.close();
  assert.equal((await stage.client.getProcess(id)).status, 'running');

  const again = await openPage(stage, id);
  await again.page.keyboard.type('echo "a kept $fruit"\n');
  await untilOnScreen(again.page, 'a kept apple');
  assert.deepEqual(again.problems, []);
}, serverOptions);

processScenario('ProcessTerminal: a page that comes later shows the screen', async (stage) => {
  const { id } = await shell(stage);
  const first = await openPage(stage, id);
  await first.page.keyboard.type('printf "\\033[41m%60s\\033[0m\\n" "seen before"\n');
  await untilOnScreen(first.page, ' seen before\n');
  const second = await openPage(stage, id);
  await untilOnScreen(second.page, ' seen before\n');
  await untilPainted(second.page, RED);
}, { ...serverOptions, betterThanReference: 'a terminal begins empty, whatever is on the screen' });
