// What strangers and broken clients send to the desktop's stream does no harm: who watches goes on, and others can come.
// HARM_SEED repeats the dice of an earlier run.

import assert from 'node:assert/strict';
import dgram from 'node:dgram';
import { once } from 'node:events';
import fs from 'node:fs';
import net from 'node:net';

import { desktopScenario } from './lib/desktop_scenario.mjs';
import { Dice } from './lib/dice.mjs';
import { isAlive } from './lib/process_scenario.mjs';
import { RawWebSocket } from './lib/raw_websocket.mjs';
import { extremes, rubbishMessage, spoiledSdp } from './lib/rubbish.mjs';
import { browsing, call, openOurs, rawViewer, signaling, ticket, untilMoving, untilPath, viewers, WEBRTC } from './lib/stream_scenario.mjs';
import { until } from './lib/wait.mjs';

const SEED = process.env.HARM_SEED ?? String(Math.floor(Math.random() * 1e9));
const ANSWERS = 300;
const MESSAGES = 600;
const DATAGRAMS = 3000;
const STRANGERS = 60;
const COMINGS = 200;
const COMINGS_AT_ONCE = 10;
const PAGES = 20;
/** The runtime keeps some threads for a while, as many as were busy at once. */
const SPARE_THREADS = 8;
const GROWTH_MAX_KB = 64 * 1024;

const { options, ...looking } = await browsing();
console.log(`HARM_SEED=${SEED}`);

/** Somebody watches before, while and after `body`, and is not disturbed; others can come then, and the server is the same. */
function scenario(title, body) {
  desktopScenario(title, async (stage, t) => {
    let log = '';
    stage.server.onStderr = (text) => { log += text; };
    await stage.client.startDesktopStream();
    const good = await openOurs(stage, looking, { name: 'good' });
    await untilPath(stage, WEBRTC);
    await untilMoving(stage, good.page);
    const { pid } = stage.server;

    await body(stage, new Dice(`${SEED}/${title}`), t);

    assert.ok(isAlive(pid), 'the server is gone');
    assert.doesNotMatch(log, /panic/i);
    await until(async () => (await viewers(stage)).length === 1, 'the end of all others').catch(async () => assert.deepEqual(await viewers(stage), []));
    const [{ name, path: way }] = await viewers(stage);
    assert.ok(name === 'good' && WEBRTC.includes(way), `${name} ${way}`);
    stage.mover = undefined; // it may be closed or covered
    await untilMoving(stage, good.page);
    const next = await openOurs(stage, looking);
    await untilPath(stage, WEBRTC, 2);
    await untilMoving(stage, next.page);
    await next.context.close();
    assert.deepEqual(good.problems, []);
    await good.context.close();
  }, { ...options, hangGuardMs: 240_000 });
}

/** What a browser answers to an offer. */
async function answerTo(sdp) {
  const page = await looking.browser.newPage();
  const answer = await page.evaluate(async (offered) => {
    const connection = new RTCPeerConnection();
    await connection.setRemoteDescription({ type: 'offer', sdp: offered });
    return (await connection.createAnswer()).sdp;
  }, sdp);
  await page.close();
  return answer;
}

const midsOf = (sdp) => [...sdp.matchAll(/^a=mid:(.*?)\r?$/gm)].map(([, mid]) => mid);

/** The answer to one offer as one to another: they differ in the names of their parts. */
function adapted(answer, offer) {
  const [old, now] = [midsOf(answer), midsOf(offer)];
  assert.equal(old.length, now.length);
  const renamed = (mids) => mids.split(' ').map((mid) => now[old.indexOf(mid)]).join(' ');
  return answer.replaceAll(/^(a=mid:|a=group:BUNDLE )(.*?)(\r?)$/gm, (_, name, mids, end) => `${name}${renamed(mids)}${end}`);
}

scenario('spoiled answers', async (stage, dice) => {
  const viewer = await rawViewer(stage);
  let answer;
  let refused = 0;
  for (let round = 0; round < ANSWERS; round += 1) {
    let from = viewer.heard.length;
    viewer.say('signal/request', { video: {}, audio: {} });
    const { sdp } = await viewer.untilHeard('signal/provide', undefined, from);
    answer ??= await answerTo(sdp);
    from = viewer.heard.length;
    viewer.say('signal/answer', { sdp: spoiledSdp(dice, adapted(answer, sdp)) });
    viewer.say('control/request', {}); // what is heard of this comes after what is heard of the answer
    await viewer.untilHeard('control/host', undefined, from);
    refused += viewer.heard.slice(from).filter(({ event }) => event === 'system/error').length;
  }
  assert.ok(refused > ANSWERS / 4, `only ${refused} of ${ANSWERS} were refused: are they spoiled at all?`);
  viewer.close();
});

scenario('messages that make no sense', async (stage, dice) => {
  for (const mode of ['view', 'control']) {
    const viewer = await rawViewer(stage, (await ticket(stage, { mode })).ticket);
    for (let round = 0; round < MESSAGES; round += 1) {
      viewer.frame(1, Buffer.from(rubbishMessage(dice), 'utf8'));
      if (dice.throw() < 0.1) viewer.frame(2, dice.bytes(dice.between(0, 500)));
      if (round % 50 === 49) await untilHeardOut(viewer);
    }
    viewer.close();
  }
});

scenario('numbers at their bounds', async (stage) => {
  for (const isNeko of [false, true]) {
    const viewer = await rawViewer(stage);
    viewer.say(isNeko ? 'client/heartbeat' : 'client/hello', isNeko ? undefined : {});
    for (const round of [1, 2]) {
      for (const [event, payload] of extremes()) {
        viewer.say(event, payload);
        await untilHeardOut(viewer, `${round} ${event} ${JSON.stringify(payload)}`);
      }
    }
    // it is still carried out what this viewer wants
    await until(async () => {
      viewer.say('control/move', { x: 123, y: 45 });
      const { x, y } = await stage.client.getDesktopMousePosition();
      return x === 123 && y === 45;
    }, 'a move of the pointer');
    viewer.close();
  }
  const { resolution } = await stage.client.getDesktopStatus();
  assert.deepEqual([resolution.width, resolution.height], [800, 600]);
});

/** All that this viewer said was heard. */
async function untilHeardOut(viewer, what = '') {
  const from = viewer.heard.length;
  viewer.say('control/request', {});
  await viewer.untilHeard('control/host', undefined, from).catch((error) => assert.fail(`${what}: ${error.message}`));
}

scenario('frames against the rules', async (stage) => {
  const TEXT = 1;
  const breaches = {
    'not masked': (viewer) => viewer.frame(TEXT, Buffer.from('{}'), { isMasked: false }),
    'of an unknown kind': (viewer) => viewer.frame(3, Buffer.from('{}')),
    'with reserved bits': (viewer) => viewer.frame(TEXT | 0x70, Buffer.from('{}')),
    'half a ping': (viewer) => viewer.frame(9, Buffer.from('x'), { isLast: false }),
    'a ping that is too long': (viewer) => viewer.frame(9, Buffer.alloc(126)),
    'a continuation of nothing': (viewer) => viewer.frame(0, Buffer.from('{}')),
    'not UTF-8': (viewer) => viewer.frame(TEXT, Buffer.from([0xff, 0xfe, 0xc0])),
    'too long': (viewer) => viewer.frame(TEXT, Buffer.alloc(2 << 20, 0x20)),
    'too long in pieces': (viewer) => {
      for (let piece = 0; piece < 40; piece += 1) viewer.frame(piece ? 0 : TEXT, Buffer.alloc(65_536, 0x20), { isLast: false });
    },
    'cut': (viewer) => viewer.socket.end(Buffer.from([0x81, 0xff, 0, 0, 0, 0, 0, 0x10])),
  };
  for (const [name, breach] of Object.entries(breaches)) {
    const viewer = await rawViewer(stage);
    breach(viewer);
    await until(() => viewer.isClosed, `the end of one whose frame is ${name}`);
    if (name.startsWith('too long')) assert.equal(viewer.closeCode, 1009, name);
  }
});

scenario('rubbish over the data channel', async (stage, dice) => {
  const { page, context } = await openOurs(stage, looking);
  await untilPath(stage, WEBRTC, 2);
  await until(() => page.evaluate(() => window.sandboxdDesktop.channel?.readyState === 'open'), 'the data channel');
  const messages = [];
  for (let op = 0; op < 256; op += 1) {
    for (const length of [0, 1, 2, 6, 7, dice.between(0, 40), dice.between(0, 2000)]) messages.push(Buffer.concat([Buffer.from([op]), dice.bytes(length)]));
  }
  messages.push(Buffer.alloc(200_000, 7), Buffer.from('a text'));
  await page.evaluate(async (all) => {
    const { channel } = window.sandboxdDesktop;
    for (const [index, text] of all.entries()) {
      // who says more than is done in time is closed
      if (index % 100 === 0) await new Promise((resolve) => setTimeout(resolve, 300));
      channel.send(Uint8Array.from(atob(text), (character) => character.charCodeAt(0)));
    }
    channel.send('and one that is text');
  }, messages.map((message) => message.toString('base64')));
  // its last ones were heard
  await until(async () => {
    await page.evaluate(() => {
      const view = new DataView(new ArrayBuffer(7));
      [[0, 1], [2, 4], [4, 77], [6, 88]].forEach(([at, byte]) => view.setUint8(at, byte));
      window.sandboxdDesktop.channel.send(view.buffer);
    });
    const { x, y } = await stage.client.getDesktopMousePosition();
    return x === 77 && y === 88;
  }, 'a move of the pointer');
  await context.close();
});

/** Looks like something that the media port knows, or like nothing. */
function packet(dice) {
  const body = dice.bytes(dice.between(0, 1400));
  const heads = {
    nothing: [],
    stun: [0, 1, 0, dice.pick([0, 8, 255]), 0x21, 0x12, 0xa4, 0x42],
    stunAnswer: [1, 1, 0, 12, 0x21, 0x12, 0xa4, 0x42],
    dtls: [22, 254, 253, 0, 0, 0, 0, 0, 0, 0, 0, dice.between(0, 255), dice.between(0, 255), 1],
    rtp: [128, 102, 0, 1],
    rtcp: [dice.pick([128, 129, 143]), dice.between(192, 213), 0, dice.between(0, 255)],
  };
  return Buffer.concat([Buffer.from(heads[dice.pick(Object.keys(heads))]), body]);
}

scenario('rubbish to the media port', async (stage, dice) => {
  const { webrtc: { port } } = await (await call(stage, 'GET', 'status')).json();
  const udp = dgram.createSocket('udp4');
  for (let sent = 0; sent < DATAGRAMS; sent += 1) await new Promise((resolve) => udp.send(packet(dice), port, '127.0.0.1', resolve));
  udp.close();

  const strangers = [];
  for (let number = 0; number < STRANGERS; number += 1) {
    const socket = net.connect(port, '127.0.0.1').on('error', () => {});
    await once(socket, 'connect');
    strangers.push(socket);
    const body = packet(dice);
    const framed = Buffer.concat([Buffer.from([body.length >> 8, body.length & 255]), body]);
    dice.pick([
      () => socket.write(framed), () => socket.write(body), () => socket.write(Buffer.concat([framed, framed.subarray(0, 5)])),
      () => socket.write(Buffer.from([255, 255, 1])), () => socket.end(framed), () => {}, // says nothing at all
    ])();
    if (dice.throw() < 0.3 && !socket.writableEnded) socket.resetAndDestroy(); // one that is being shut down would keep this process
  }
  await untilMoving(stage, (await openOurs(stage, looking)).page);
  for (const socket of strangers) socket.destroy();
  await looking.browser.contexts().at(-1).close();
});

/** What the server holds: descriptors, threads, memory of its own in KiB. */
function held({ pid }) {
  const count = (name) => fs.readdirSync(`/proc/${pid}/${name}`).length;
  const [, memory] = /^RssAnon:\s+(\d+) kB$/m.exec(fs.readFileSync(`/proc/${pid}/status`, 'utf8'));
  return { descriptors: count('fd'), threads: count('task'), memory: Number(memory) };
}

scenario('viewers that come and go leave nothing', async (stage, dice, t) => {
  const { server } = stage;
  const { ticket: leave } = await ticket(stage, { mode: 'control', ttlMs: 600_000 });
  const come = async () => {
    const viewer = await RawWebSocket.connect(signaling(stage, { ticket: leave }));
    if (dice.throw() < 0.8) viewer.say('signal/request', {});
    else viewer.say('stream/request', { media: dice.pick(['h264', 'jpeg']) });
    if (dice.throw() < 0.8) await viewer.untilHeard('system/init');
    if (dice.throw() < 0.5) viewer.abort();
    else viewer.close();
  };
  const visit = async () => {
    const { page, context } = await openOurs(stage, looking);
    await until(() => page.evaluate(() => window.shownFrames.count > 0), 'a frame');
    await context.close();
  };
  const isAlone = async () => (await viewers(stage)).length === 1;
  const comeAll = async (comings, pages) => {
    for (let number = 0; number < comings; number += COMINGS_AT_ONCE) {
      await Promise.all(Array.from({ length: COMINGS_AT_ONCE }, come));
      await until(isAlone, 'the end of them');
    }
    for (let number = 0; number < pages; number += 1) await visit();
    await until(isAlone, 'the end of the pages');
  };
  await comeAll(5 * COMINGS_AT_ONCE, 2); // what is made once is made now
  const before = held(server);
  await comeAll(COMINGS, PAGES);
  const isBack = () => {
    const now = held(server);
    return now.descriptors <= before.descriptors && now.threads <= before.threads + SPARE_THREADS;
  };
  await until(isBack, 'descriptors and threads as before', 60_000).catch(() => assert.deepEqual(held(server), before));
  const after = held(server);
  t.diagnostic(`before ${JSON.stringify(before)}, after ${JSON.stringify(after)}`);
  assert.ok(after.memory - before.memory < GROWTH_MAX_KB, `${before.memory} kB became ${after.memory} kB`);
});
