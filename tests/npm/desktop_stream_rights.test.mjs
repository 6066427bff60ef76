// Who may watch the desktop live, and who may do something there: tickets, the token, pages of others.

import assert from 'node:assert/strict';

import { desktopScenario, displayNumber } from './lib/desktop_scenario.mjs';
import { askForWebSocket } from './lib/raw_websocket.mjs';
import { browsing, call, openOurs, rawViewer, signaling, ticket, untilPath, viewers, WEBRTC } from './lib/stream_scenario.mjs';
import { until } from './lib/wait.mjs';

const WATCHING_ONLY = /for watching only/;
const [KEY_DOWN, KEY_UP, BUTTON_DOWN] = [3, 4, 5];
const [LETTER, RETURN] = [0x7a, 0xff0d];

const { options, ...looking } = await browsing();

function scenario(title, body) {
  desktopScenario(title, async (stage) => {
    await stage.client.startDesktopStream();
    await body(stage);
  }, options);
}

/** The problem with which a request for a viewer's WebSocket is refused. */
async function refusal(stage, query, status, headers) {
  const answer = await askForWebSocket(signaling(stage, query), headers);
  answer.socket?.destroy();
  assert.equal(answer.status, status, `${JSON.stringify(query)}: ${answer.body}`);
  assert.match(answer.headers['content-type'], /^application\/problem\+json/);
  const problem = JSON.parse(answer.body);
  assert.equal(problem.status, status);
  assert.ok(problem.type && problem.title, answer.body);
  return problem;
}

/** What typing, clicking, copying and resizing do, as a viewer says it. */
const ACTS = [
  ['control/move', { x: 300, y: 250 }],
  ['control/keypress', { keysym: LETTER }],
  ['control/keydown', { keysym: LETTER }],
  ['control/buttonpress', { code: 1, x: 300, y: 250 }],
  ['control/buttondown', { code: 1 }],
  ['control/scroll', { delta_x: 0, delta_y: 120 }],
  ['control/select_all'],
  ['control/copy'],
  ['control/paste', { text: 'not mine' }],
  ['clipboard/set', { text: 'not mine' }],
  ['screen/set', { width: 640, height: 480, rate: 30 }],
];

scenario('a ticket for watching does nothing on the desktop', async (stage) => {
  const { client } = stage;
  await stage.copy('clipboard', 'mine');
  await stage.lines('typed', ['-geometry', '40x8+200+200']);
  const before = await client.getDesktopMousePosition();
  const watcher = await rawViewer(stage, (await ticket(stage, { mode: 'view' })).ticket);
  assert.equal(watcher.init.sandboxd.may_control, false);
  for (const [event, payload] of ACTS) {
    const from = watcher.heard.length;
    watcher.say(event, payload);
    const { message } = await watcher.untilHeard('system/error', undefined, from);
    assert.match(message, WATCHING_ONLY, event);
  }
  watcher.say('control/request', {});
  const host = await watcher.untilHeard('control/host');
  assert.equal(host.has_host, false);

  // over the data channel of a browser, past the page, which sends nothing
  const { page, context } = await openOurs(stage, looking, { mode: 'view' });
  await untilPath(stage, [...WEBRTC, 'connecting'], 2);
  await until(() => page.evaluate(() => window.sandboxdDesktop.channel?.readyState === 'open'), 'the data channel');
  const said = page.waitForEvent('console', { predicate: (message) => WATCHING_ONLY.test(message.text()) });
  await page.evaluate((messages) => messages.forEach(([kind, value]) => {
    const view = new DataView(new ArrayBuffer(7));
    [[0, kind], [2, 4]].forEach(([at, byte]) => view.setUint8(at, byte));
    view.setUint32(3, value);
    window.sandboxdDesktop.channel.send(view.buffer);
  }), [[KEY_DOWN, LETTER], [KEY_UP, LETTER], [BUTTON_DOWN, 1]]);
  await said;

  // what comes next comes after all of that
  const owner = await rawViewer(stage);
  assert.equal(owner.init.sandboxd.may_control, true);
  for (const keysym of [0x61, RETURN]) owner.say('control/keypress', { keysym });
  await stage.untilRead('typed', 'a\n');
  assert.equal((await client.getDesktopClipboard()).text, 'mine');
  const { x, y } = await client.getDesktopMousePosition();
  assert.deepEqual([x, y], [before.x, before.y]);
  assert.deepEqual((await client.getDesktopStatus()).resolution.width, 800);
  assert.deepEqual((await viewers(stage)).map(({ mode, inControl }) => [mode, inControl]), [['view', false], ['view', false], ['control', true]]);

  // nor is what it can come back with worth more
  const back = await rawViewer(stage, watcher.init.sandboxd.ticket);
  assert.equal(back.init.sandboxd.may_control, false);
  for (const viewer of [watcher, owner, back]) viewer.close();
  await context.close();
});

scenario('a ticket that is no good is refused, and it is said why', async (stage) => {
  const { ticket: short } = await ticket(stage, { mode: 'control', ttlMs: 1 });
  const tickets = {};
  for (const name of ['kicked', 'good']) tickets[name] = (await ticket(stage, { mode: 'control', name })).ticket;
  const over = await until(() => refusal(stage, { ticket: short }, 401).catch(() => false), 'the end of the ticket');
  assert.match(over.details.message, /over/);

  const [claims, signature] = tickets.good.split('.');
  const forged = JSON.parse(Buffer.from(claims, 'base64url'));
  const longer = Buffer.from(JSON.stringify({ ...forged, expires_at_ms: forged.expires_at_ms + 1 })).toString('base64url');
  const flipped = `${signature.startsWith('A') ? 'B' : 'A'}${signature.slice(1)}`;
  for (const each of ['', '.', claims, `${claims}.`, `${longer}.${signature}`, `${claims}.${flipped}`, `${tickets.good}A`, `${tickets.good} `, 'x'.repeat(5000)]) {
    assert.match((await refusal(stage, { ticket: each }, 401)).details.message, /isn't one of this server's/, each);
  }

  const viewer = await rawViewer(stage, tickets.kicked);
  const again = viewer.init.sandboxd.ticket;
  assert.ok(again && again !== tickets.kicked);
  const { id } = (await viewers(stage)).find(({ name }) => name === 'kicked');
  assert.equal((await call(stage, 'DELETE', `viewers/${id}`)).status, 204);
  await viewer.untilHeard('system/disconnect', ({ message }) => /sent away/.test(message));
  await until(() => viewer.isClosed, 'the end of its WebSocket');
  for (const each of [tickets.kicked, again]) assert.match((await refusal(stage, { ticket: each }, 401)).details.message, /taken back/);

  (await rawViewer(stage, tickets.good)).close();
  await stage.client.stopDesktop();
  await stage.start({ displayNum: displayNumber() });
  await stage.client.startDesktopStream();
  assert.match((await refusal(stage, { ticket: tickets.good }, 401)).details.message, /stopped/);
});

scenario('without ticket and token, and for pages of others, there is nothing', async (stage) => {
  for (const query of [undefined, { access_token: 'wrong' }, { tickets: 'x' }, { access_token: '' }]) await refusal(stage, query, 401);
  const { ticket: good } = await ticket(stage, { mode: 'control' });
  for (const origin of ['http://evil.test', 'null', stage.server.url.replace('127.0.0.1', 'localhost')]) {
    for (const query of [{ ticket: good }, { access_token: stage.server.token }]) {
      assert.match((await refusal(stage, query, 403, { origin })).detail, /may not call this server/);
    }
  }
  const own = await askForWebSocket(signaling(stage, { ticket: good }), { origin: stage.server.url });
  assert.equal(own.status, 101);
  own.socket.destroy();
});

scenario('a ticket opens nothing else', async (stage) => {
  const { url, token } = stage.server;
  const { ticket: good } = await ticket(stage, { mode: 'control' });
  const { paths } = await (await fetch(`${url}/v1/openapi.json`, { headers: { authorization: `Bearer ${token}` } })).json();
  let count = 0;
  for (const [route, methods] of Object.entries(paths).filter(([path]) => /^\/(v1|acp)\b/.test(path))) {
    for (const method of Object.keys(methods).filter((name) => /^(get|put|post|delete|patch)$/.test(name))) {
      const target = `${url}${route.replaceAll(/\{[^}]*\}/g, '1')}?path=%2Fetc%2Fpasswd&ticket=${good}`;
      const answer = await fetch(target, { method: method.toUpperCase(), headers: { authorization: `Bearer ${good}` } });
      assert.equal(answer.status, 401, `${method} ${route}`);
      if (method === 'get' && !route.endsWith('/stream/signaling')) {
        const { status, socket } = await askForWebSocket(`${target}&access_token=${good}`);
        socket?.destroy();
        assert.equal(status, 401, `a WebSocket of ${route}`);
      }
      await answer.arrayBuffer();
      count += 1;
    }
  }
  assert.ok(count > 100, `only ${count} routes`);
});

scenario('all hear who is in control', async (stage) => {
  const [first, second] = [await rawViewer(stage, (await ticket(stage, { mode: 'control' })).ticket), await rawViewer(stage)];
  const ids = [first, second].map((viewer) => viewer.init.session_id);
  const heardBy = async (viewer, from, hostId) => {
    const fits = (payload) => payload.has_host === Boolean(hostId) && payload.host_id === hostId;
    await viewer.untilHeard('control/host', fits, from);
    assert.deepEqual((await viewers(stage)).filter(({ inControl }) => inControl).map(({ id }) => id), hostId ? [hostId] : []);
  };
  const changes = [
    [() => first.say('control/request', {}), ids[0]],
    [() => second.say('control/keypress', { keysym: 0xffe1 }), ids[1]],
    [() => first.say('control/buttonpress', { code: 1 }), ids[0]],
    [() => first.say('control/release'), undefined],
    [() => second.say('control/request', {}), ids[1]],
  ];
  for (const [change, hostId] of changes) {
    const from = [first, second].map((viewer) => viewer.heard.length);
    change();
    await heardBy(first, from[0], hostId);
    await heardBy(second, from[1], hostId);
  }
  const from = first.heard.length;
  second.abort();
  await until(async () => (await viewers(stage)).length === 1, 'the end of the other');
  await heardBy(first, from, undefined);
  first.close();
});
