// The desktop live in a browser: by the published component and by our page, over UDP, TCP and the WebSocket.

import assert from 'node:assert/strict';

import { desktopScenario } from './lib/desktop_scenario.mjs';
import {
  WEBRTC, browsing, call, clickAndType, openComponent, openOurs, screenshot, showCard, untilCard, untilMoving, untilPath, viewers,
} from './lib/stream_scenario.mjs';
import { until } from './lib/wait.mjs';

const TEXT = 'Grüße 日本 €';

const { options, ...looking } = await browsing();

desktopScenario('DesktopViewer shows the desktop, and controls it', async (stage) => {
  await stage.client.startDesktopStream();
  const { page, context, problems } = await openComponent(stage, looking);
  await untilPath(stage, WEBRTC);
  await showCard(stage);
  await untilCard(page);
  await untilMoving(stage, page);
  await clickAndType(stage, page, 'video');
  await screenshot(page, 'desktop-viewer');
  assert.deepEqual(problems, []);
  await context.close();
  await until(async () => (await viewers(stage)).length === 0, 'the end of the viewer');
}, options);

for (const [name, way, paths] of [
  ['WebRTC', undefined, WEBRTC],
  ['the WebSocket as H.264', 'websocket', ['websocket-h264']],
  ['the WebSocket as JPEG', 'jpeg', ['websocket-jpeg']],
]) {
  desktopScenario(`our page shows and controls the desktop over ${name}`, async (stage) => {
    const { client, server } = stage;
    await client.startDesktopStream();
    const { page, context, problems } = await openOurs(stage, looking, { name: 'test', way });
    const [viewer] = await untilPath(stage, paths);
    assert.equal(viewer.name, 'test');
    assert.ok(!page.url().includes('ticket'), 'the ticket stays in the address');
    await showCard(stage);
    await untilCard(page);
    await untilMoving(stage, page);
    await clickAndType(stage, page, '#stage');

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
    await screenshot(page, `desktop-page-${paths[0]}`);

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
  for (const [mode, way] of [['control'], ['view'], ['view', 'websocket']]) {
    pages.push((await openOurs(stage, looking, { mode, way, viewport: { width: 500, height: 400 } })).page);
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
  assert.equal((await call(stage, 'DELETE', `viewers/${watching.id}`)).status, 204);
  await pages[1].locator('#ask[open]').waitFor(); // its ticket is no good any more
  assert.equal((await viewers(stage)).length, 2);
  assert.equal(stage.read('typed'), '');
  for (const page of pages) await page.context().close();
}, options);
