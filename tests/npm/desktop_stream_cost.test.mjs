// What the live stream sends: next to nothing while the screen rests, and what is different while it moves.

import assert from 'node:assert/strict';
import { setTimeout as sleep } from 'node:timers/promises';

import { desktopScenario, displayNumber } from './lib/desktop_scenario.mjs';
import { WEBRTC, browsing, openOurs, scroll, showCard, untilCard, untilPath, videoStats, viewers } from './lib/stream_scenario.mjs';
import { until } from './lib/wait.mjs';

/** Longer than a browser waits for a frame before it asks for a keyframe. */
const REST_MS = 10_000;
/** Checks of the connection, reports of what arrived and what the WebRTC library pads are in it. */
const REST_MAX_BYTES = 40_000;
const FRAMES = 80;
const KEYFRAMES_MAX = FRAMES / 8;

const { options, ...looking } = await browsing();

for (const [way, paths] of [[undefined, WEBRTC], ['websocket', ['websocket-h264']], ['jpeg', ['websocket-jpeg']]]) {
  desktopScenario(`a screen that rests costs next to nothing over ${way ?? 'WebRTC'}`, async (stage, t) => {
    await stage.client.startDesktopStream();
    await showCard(stage);
    const text = 'head -c 1000 /dev/urandom | base64 -w 60; sleep 1000'; // keyframes of it are large
    await stage.client.launchDesktopApp({ app: 'xterm', args: ['-geometry', '60x16+200+150', '-e', 'sh', '-c', text], wait: true });
    const { page } = await openOurs(stage, looking, { way });
    await untilPath(stage, paths);
    await untilCard(page);
    await sleep(3000);
    const sent = async () => ({ bytes: (await viewers(stage))[0].bytesSent, ...(way ? {} : await videoStats(page)) });
    const before = await sent();
    await sleep(REST_MS);
    const after = await sent();
    t.diagnostic(`${JSON.stringify(before)}, then ${JSON.stringify(after)}`);
    assert.ok(after.bytes - before.bytes < REST_MAX_BYTES, `${after.bytes - before.bytes} bytes in ${REST_MS} ms`);
    assert.equal(after.keyFramesDecoded, before.keyFramesDecoded);
    await untilCard(page);
  }, options);
}

desktopScenario('a screen that moves is not sent as keyframes over WebRTC', async (stage, t) => {
  await stage.start({ width: 1280, height: 720, displayNum: displayNumber() });
  await stage.client.startDesktopStream();
  await scroll(stage, 208, 52, 600, '+0+0');
  const { page } = await openOurs(stage, looking);
  await untilPath(stage, WEBRTC);
  const stats = () => videoStats(page).catch(() => ({ framesDecoded: 0 })); // nothing came yet
  await until(async () => (await stats()).framesDecoded > 5, 'the first frames');
  await sleep(3000); // what the network carries is found out
  const before = await stats();
  const after = await until(async () => {
    const now = await stats();
    return now.framesDecoded >= before.framesDecoded + FRAMES && now;
  }, `${FRAMES} frames`, 90_000).catch(stats);
  t.diagnostic(`${JSON.stringify(before)}, then ${JSON.stringify(after)}`);
  const keyframes = after.keyFramesDecoded - before.keyFramesDecoded;
  assert.ok(keyframes <= KEYFRAMES_MAX, `${keyframes} of ${after.framesDecoded - before.framesDecoded} frames are keyframes`);
}, { ...options, inactive: true, hangGuardMs: 150_000 });
