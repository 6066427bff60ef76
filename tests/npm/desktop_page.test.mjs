// Our page of the live desktop by hand: fingers, the keyboard on the screen, the pointer, another size of the screen.

import assert from 'node:assert/strict';
import { isDeepStrictEqual } from 'node:util';

import { desktopScenario } from './lib/desktop_scenario.mjs';
import { WEBRTC, browsing, clickAndType, openComponent, openOurs, placesOf, screenshot, untilPath } from './lib/stream_scenario.mjs';
import { until } from './lib/wait.mjs';

const { options, ...looking } = await browsing();

desktopScenario('fingers tap, hold, drag and scroll, and the keyboard on the screen types', async (stage) => {
  await stage.client.startDesktopStream();
  const { page, context, problems } = await openOurs(stage, looking, { viewport: { width: 420, height: 800 } });
  await untilPath(stage, WEBRTC);
  await stage.bytes('touched', '\\033[?1002h\\033[?1006h', ['-geometry', '60x20+100+100']);
  const at = await placesOf(page);
  const devtools = await context.newCDPSession(page);
  await devtools.send('Emulation.setTouchEmulationEnabled', { enabled: true, maxTouchPoints: 2 });
  const touch = (type, ...points) => devtools.send('Input.dispatchTouchEvent', { type, touchPoints: points.map((point, id) => { const [x, y] = at(...point); return { x, y, id }; }) });
  const said = (pattern, what) => until(() => pattern.test(stage.read('touched')), what).catch(() => assert.fail(`no ${what} in ${JSON.stringify(stage.read('touched'))}`));

  await touch('touchStart', [250, 250]);
  await touch('touchEnd');
  await said(/\[<0;\d+;\d+M.*\[<0;\d+;\d+m/s, 'tap');

  await touch('touchStart', [250, 250]);
  await said(/\[<2;\d+;\d+M.*\[<2;\d+;\d+m/s, 'click of the right button');
  await touch('touchEnd');

  await touch('touchStart', [200, 250]);
  for (const x of [230, 260, 290, 320]) await touch('touchMove', [x, 260]);
  await touch('touchEnd');
  await said(/\[<0;\d+;\d+M.*\[<32;\d+;\d+M.*\[<0;\d+;\d+m$/s, 'drag');

  await touch('touchStart', [250, 300], [300, 300]);
  for (const y of [250, 200, 150]) await touch('touchMove', [250, y], [300, y]);
  await touch('touchEnd');
  await said(/\[<65;\d+;\d+M/, 'turn of the wheel downwards');

  await page.locator('#keyboard').click();
  await page.keyboard.type('ok é');
  await page.keyboard.press('Enter');
  await said(/ok é\r/, 'typed text');
  await screenshot(page, 'desktop-page-phone');
  assert.deepEqual(problems, []);
  await context.close();
}, options);

desktopScenario('the page shows the pointer: its own at once, and where others move it', async (stage) => {
  const { client } = stage;
  await client.startDesktopStream();
  const { page, context, problems } = await openOurs(stage, looking);
  await untilPath(stage, WEBRTC);
  await stage.lines('typed', ['-geometry', '40x8+200+200']);
  const at = await placesOf(page);
  await client.moveDesktopMouse({ x: 300, y: 270 });
  const pointer = page.locator('#pointer');
  const place = () => pointer.evaluate((image) => {
    const { x, y } = image.getBoundingClientRect();
    return { x, y, width: image.naturalWidth };
  });
  const [x, y] = at(300, 270);
  const isThere = (seen) => seen.width > 1 && Math.abs(seen.x - x) < 20 && Math.abs(seen.y - y) < 20;
  await until(async () => isThere(await place()), 'the pointer where the API moved it');
  await screenshot(page, 'desktop-page-pointer');

  const cursor = () => page.locator('#stage').evaluate((element) => getComputedStyle(element).cursor);
  /** Once it rests. */
  const picture = async () => {
    for (let last; ;) {
      const now = await pointer.getAttribute('src');
      if (now === last) return now;
      last = now;
      await new Promise((resolve) => setTimeout(resolve, 500));
    }
  };
  const overText = await picture();
  await page.mouse.click(...at(500, 450)); // only who is in control moves it
  await until(async () => (await picture()) !== overText && (await cursor()).includes(await picture()), 'another picture beside the text, as the mouse');
  const beside = await picture();
  await page.mouse.move(...at(300, 250));
  await until(async () => (await picture()) !== beside, 'another one over it');
  await page.mouse.move(...at(301, 250));
  assert.ok(await pointer.isHidden(), 'it is there twice');

  // somebody whose viewer doesn't show it: it is in the picture for all, and not twice
  const other = await openComponent(stage, looking);
  await until(async () => (await cursor()) === 'none' && pointer.isHidden(), 'the pointer in the picture');
  await other.context.close();
  await until(async () => /^url/.test(await cursor()), 'the pointer out of it again');
  assert.deepEqual([problems, other.problems], [[], []]);
  await context.close();
}, options);

desktopScenario('another size of the screen: pictures and clicks follow', async (stage) => {
  const { client } = stage;
  await client.startDesktopStream();
  const ours = await openOurs(stage, looking);
  const theirs = await openComponent(stage, looking);
  await untilPath(stage, WEBRTC, 2);
  const size = { width: 1000, height: 500 };
  const resized = await stage.raw('display/resize', { method: 'POST', body: JSON.stringify(size) });
  assert.equal(resized.status, 200, await resized.text());
  for (const { page } of [ours, theirs]) {
    const shown = () => page.evaluate(() => { const { videoWidth: width, videoHeight: height } = document.querySelector('video'); return { width, height }; });
    await until(async () => isDeepStrictEqual(await shown(), size), 'the other size', 30_000);
  }
  await clickAndType(stage, ours.page, '#stage', 'ours', size);
  await clickAndType(stage, theirs.page, 'video', 'theirs', size);
  assert.deepEqual([ours.problems, theirs.problems], [[], []]);
  for (const { context } of [ours, theirs]) await context.close();
}, options);
