// Pictures of the desktop, through the published SDK: their formats, sizes and pixels.

import assert from 'node:assert/strict';

import { SIZE, desktopProblem, desktopScenario } from './lib/desktop_scenario.mjs';
import { decodePng, describePicture } from './lib/pictures.mjs';

const BLUE = [0x20, 0x40, 0x60];

desktopScenario('takes a picture in each format', async (stage) => {
  await stage.paint('#204060');
  for (const format of ['png', 'jpeg', 'webp']) {
    const picture = await stage.client.takeDesktopScreenshot({ format });
    assert.deepEqual(describePicture(picture), { kind: format, ...SIZE });
    const response = await stage.raw(`screenshot?format=${format}`);
    assert.equal(response.headers.get('content-type'), `image/${format}`);
    assert.equal(Number(response.headers.get('content-length')), (await response.arrayBuffer()).byteLength);
  }
  const { at, ...size } = decodePng(await stage.client.takeDesktopScreenshot());
  assert.deepEqual(size, SIZE);
  for (const [x, y] of [[0, 0], [799, 0], [0, 599], [799, 599], [400, 300]]) assert.deepEqual(at(x, y), BLUE, `${x},${y}`);
});

desktopScenario('shows what is on the screen, where it is', async (stage) => {
  await stage.paint('#204060');
  const { id } = await stage.lines('typed', ['-bg', '#c08040', '-geometry', '40x10+200+150']);
  const { x, y, width, height } = await stage.windowOf(id);
  const { at } = decodePng(await stage.client.takeDesktopScreenshot());
  assert.deepEqual(at(x + width - 8, y + height - 8), [0xc0, 0x80, 0x40]);
  assert.deepEqual(at(x, y + height + 50), BLUE);
  const region = decodePng(await stage.client.takeDesktopRegionScreenshot({ x: x + width - 20, y: y + height - 20, width: 100, height: 60 }));
  assert.deepEqual([region.width, region.height], [100, 60]);
  assert.deepEqual(region.at(12, 12), [0xc0, 0x80, 0x40]);
  assert.deepEqual(region.at(99, 59), BLUE);
}, { betterThanReference: 'its windows are off by their frames' });

desktopScenario('scales and cuts', async ({ client }) => {
  const size = async (picture) => {
    const { width, height } = describePicture(await picture);
    return [width, height];
  };
  assert.deepEqual(await size(client.takeDesktopScreenshot({ scale: 0.5 })), [400, 300]);
  assert.deepEqual(await size(client.takeDesktopScreenshot({ scale: 0.1, format: 'webp' })), [80, 60]);
  assert.deepEqual(await size(client.takeDesktopScreenshot({ scale: 1 })), [800, 600]);
  assert.deepEqual(await size(client.takeDesktopRegionScreenshot({ x: 40, y: 50, width: 301, height: 203 })), [301, 203]);
  assert.deepEqual(await size(client.takeDesktopRegionScreenshot({ x: 40, y: 50, width: 301, height: 203, scale: 0.5 })), [151, 102]);
  assert.deepEqual(await size(client.takeDesktopRegionScreenshot({ x: 40, y: 50, width: 100, height: 60, format: 'jpeg' })), [100, 60]);
  assert.deepEqual(await size(client.takeDesktopRegionScreenshot({ x: 790, y: 580, width: 50, height: 50 })), [10, 20]);
});

desktopScenario('makes smaller files of lower quality', async (stage) => {
  await stage.lines('typed', ['-geometry', '80x24+50+50']);
  await stage.client.typeDesktopText({ text: 'The quick brown fox jumps over the lazy dog\n'.repeat(10) });
  for (const format of ['jpeg', 'webp']) {
    const [low, high] = [await stage.client.takeDesktopScreenshot({ format, quality: 10 }), await stage.client.takeDesktopScreenshot({ format, quality: 95 })];
    assert.ok(low.length < high.length, `${format}: ${low.length} at 10, ${high.length} at 95`);
  }
});

desktopScenario('refuses a region that is not on the screen', async ({ client }) => {
  await desktopProblem(client.takeDesktopRegionScreenshot({ x: 800, y: 0, width: 10, height: 10 }), 400, 'desktop_invalid_action');
  await desktopProblem(client.takeDesktopRegionScreenshot({ x: 5000, y: 5000, width: 10, height: 10 }), 400, 'desktop_invalid_action');
}, { betterThanReference: 'it answers with one grey pixel' });

desktopScenario('marks the pointer in red when it is asked to', async (stage) => {
  await stage.paint('#204060');
  await stage.client.moveDesktopMouse({ x: 200, y: 150 });
  const plain = decodePng(await stage.client.takeDesktopScreenshot({ showCursor: false }));
  const marked = decodePng(await stage.client.takeDesktopScreenshot({ showCursor: true }));
  for (const [x, y] of [[195, 150], [205, 150], [200, 145], [200, 155]]) {
    assert.deepEqual(plain.at(x, y), BLUE);
    assertRed(marked.at(x, y), `${x},${y}`);
  }
  for (const [x, y] of [[180, 150], [220, 150], [200, 130], [200, 170]]) assert.deepEqual(marked.at(x, y), BLUE, `${x},${y}`);
  for (const format of ['jpeg', 'webp']) {
    assert.deepEqual(describePicture(await stage.client.takeDesktopScreenshot({ format, showCursor: true })), { kind: format, ...SIZE });
  }
});

desktopScenario('marks the pointer at its place in parts and in scaled pictures', async (stage) => {
  await stage.paint('#204060');
  await stage.client.moveDesktopMouse({ x: 200, y: 150 });
  const part = decodePng(await stage.client.takeDesktopRegionScreenshot({ x: 150, y: 100, width: 100, height: 100, showCursor: true }));
  assertRed(part.at(55, 50), 'in a part');
  const half = decodePng(await stage.client.takeDesktopScreenshot({ scale: 0.5, showCursor: true }));
  assertRed(half.at(103, 75), 'at half the size');
  assert.deepEqual(half.at(200, 150), BLUE);
}, { betterThanReference: 'it marks where the pointer would be on the whole screen' });

desktopScenario('takes many pictures at once', async (stage) => {
  await stage.paint('#204060');
  const formats = ['png', 'jpeg', 'webp', 'png', 'jpeg', 'webp', 'png', 'jpeg'];
  const pictures = await Promise.all(formats.map((format) => stage.client.takeDesktopScreenshot({ format })));
  assert.deepEqual(pictures.map(describePicture), formats.map((kind) => ({ kind, ...SIZE })));
  assert.deepEqual(decodePng(pictures[0]).at(7, 7), BLUE);
});

function assertRed([red, green, blue], where) {
  // Scaled down, it is mixed with what is beside it.
  assert.ok(red > 130 && green < 80 && blue < 80, `${where}: ${red},${green},${blue} is not red`);
}
