// The sound of the sandbox in a browser: what a program of the desktop plays is heard in the page.

import assert from 'node:assert/strict';

import { desktopScenario } from './lib/desktop_scenario.mjs';
import { SoundServer } from './lib/sound_server.mjs';
import { browsing, openOurs } from './lib/stream_scenario.mjs';
import { until } from './lib/wait.mjs';

const watching = await browsing();

/** The loudest frequency that the page plays, in Hz; none when it is quiet. */
function heard(page) {
  return page.evaluate(async () => {
    const { sound } = window.sandboxdDesktop;
    const { srcObject } = document.querySelector('audio');
    if (!sound && !srcObject) return undefined;
    const context = sound?.context ?? (window.listener ??= new AudioContext({ sampleRate: 48000 }));
    if (!window.analyser || window.analyser.context !== context) {
      window.analyser = new AnalyserNode(context, { fftSize: 8192 });
      if (sound) sound.output = window.analyser;
      else context.createMediaStreamSource(srcObject).connect(window.analyser);
    }
    await context.resume();
    const decibels = new Float32Array(window.analyser.frequencyBinCount);
    window.analyser.getFloatFrequencyData(decibels);
    const loudest = decibels.reduce((best, value, index) => (value > decibels[best] ? index : best), 0);
    return decibels[loudest] > -60 ? (loudest * context.sampleRate) / 8192 : undefined;
  });
}

for (const [name, way] of [['WebRTC', undefined], ['the WebSocket', 'websocket']]) {
  let sounds;
  desktopScenario(`what a program plays is heard over ${name}; there is none without a sound server`, async (stage) => {
    const { client } = stage;
    await client.startDesktopStream();
    const { page, context, problems } = await openOurs(stage, watching, { mode: 'view', way });
    const button = page.locator('#sound');
    await until(async () => /no PulseAudio/.test(await button.getAttribute('title') ?? ''), 'the reason in the page');
    assert.ok(await button.isDisabled());
    const { audio } = await client.getDesktopStreamStatus();
    assert.equal(audio.available, false);
    assert.match(audio.reason, /no PulseAudio or PipeWire server answers/);

    sounds.start();
    await until(async () => button.isEnabled(), 'a server that came later', 30_000);
    await client.launchDesktopApp(sounds.tone(440, 60));
    await button.click();
    const near = (hertz) => Math.abs((hertz ?? 0) - 440) < 12;
    await until(async () => near(await heard(page)), 'the tone', 30_000);
    await button.click();
    await until(async () => (await heard(page)) === undefined, 'silence', 30_000);
    await button.click();
    await until(async () => near(await heard(page)), 'the tone again', 30_000);

    await sounds.close();
    await until(async () => button.isDisabled(), 'the end of the sound server', 30_000);
    assert.deepEqual(problems, []);
    await context.close();
  }, {
    ...watching.options,
    prepare: (server) => {
      sounds = new SoundServer(server.workDir);
      Object.assign(server.env, sounds.env);
    },
  });
}
