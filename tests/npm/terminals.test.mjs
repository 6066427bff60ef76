// Terminals: the SDK's WebSocket session on processes with a tty.

import assert from 'node:assert/strict';

import { isAlive, problem, processScenario, textOf } from './lib/process_scenario.mjs';
import { askForWebSocket } from './lib/raw_websocket.mjs';
import { guard, until } from './lib/wait.mjs';

const FLOOD_BYTES = 20_000_000;

/** Says what it reads, until it reads "exit N". Its own echo is off, so that each answer is its own. */
const PARROT = 'stty -echo; echo "parrot of $(tty)"; while read -r a b; do [ "$a" = exit ] && exit "$b"; echo "<$a $b>"; done';

async function parrot(stage) {
  const info = await stage.shell(PARROT, { tty: true, interactive: true });
  await stage.untilLogged(info.id, 'parrot of');
  return info;
}

processScenario('a terminal: ready, output, input, exit code, close', async (stage) => {
  const { id } = await stage.shell('read -r name; echo "hello $name"; read -r bye; exit 7', { tty: true });
  const terminal = await (await stage.terminal(id)).ready();
  assert.deepEqual(terminal.readyFrame, { type: 'ready', processId: id });
  terminal.type('wörld\r');
  await terminal.untilText('hello wörld\r\n');
  terminal.type('bye\r');
  assert.deepEqual(await terminal.exited(), { type: 'exit', exitCode: 7 });
  await terminal.closed();
  await guard(terminal.session.closed, 'the closed promise', 10_000);
  assert.equal((await stage.client.getProcess(id)).exitCode, 7);
  assert.deepEqual(terminal.errors, []);
  assert.equal(terminal.exits.length, 1);
});

processScenario('a terminal takes bytes as well as text', async (stage) => {
  const { id } = await parrot(stage);
  const terminal = await (await stage.terminal(id)).ready();
  terminal.type(new TextEncoder().encode('bytes ä\n'));
  await terminal.untilText('<bytes ä>');
  terminal.type('\x04');
  assert.equal((await terminal.exited()).exitCode, 0);
});

processScenario('a terminal sends control characters as signals', async (stage) => {
  const { id } = await stage.shell('trap "echo interrupted; read -r bye; exit 9" INT; echo armed; while :; do sleep 0.05; done', { tty: true });
  await stage.untilLogged(id, 'armed');
  const terminal = await (await stage.terminal(id)).ready();
  terminal.type('\x03');
  await terminal.untilText('interrupted');
  terminal.type('bye\r');
  assert.equal((await terminal.exited()).exitCode, 9);
});

processScenario('a terminal has a size, which clients change', async (stage) => {
  const { client } = stage;
  const { id } = await stage.shell('stty size; trap "stty size" WINCH; while :; do sleep 0.05; done', { tty: true });
  await stage.untilLogged(id, '24 80');
  const terminal = await (await stage.terminal(id)).ready();
  terminal.session.resize({ cols: 111, rows: 33 });
  await terminal.untilText('33 111');
  assert.deepEqual(await client.resizeProcessTerminal(id, { cols: 100, rows: 40 }), { cols: 100, rows: 40 });
  await terminal.untilText('40 100');

  await client.killProcess(id, { waitMs: 10_000 });
  await problem(client.resizeProcessTerminal(id, { cols: 80, rows: 24 }), 409, 'conflict');
  const { id: piped } = await stage.shell('exec sleep 86397');
  await problem(client.resizeProcessTerminal(piped, { cols: 80, rows: 24 }), 409, 'conflict');
  await problem(client.resizeProcessTerminal('proc_999', { cols: 80, rows: 24 }), 404, 'not_found');
});

processScenario('a closed terminal leaves its process running', async (stage) => {
  const { id, pid } = await parrot(stage);
  const first = await (await stage.terminal(id)).ready();
  first.session.close();
  await first.closed();
  assert.deepEqual(first.exits, []);
  assert.equal((await stage.client.getProcess(id)).status, 'running');
  assert.ok(isAlive(pid));

  const second = await (await stage.terminal(id)).ready();
  second.type('still there\n');
  await second.untilText('<still there>');
});

processScenario('two terminals share a process', async (stage) => {
  const { id } = await parrot(stage);
  const [one, two] = [await (await stage.terminal(id)).ready(), await (await stage.terminal(id)).ready()];
  one.type('from one\n');
  two.type('from two\n');
  for (const terminal of [one, two]) {
    await terminal.untilText('<from one>');
    await terminal.untilText('<from two>');
  }
  await stage.type(id, 'by rest\n');
  for (const terminal of [one, two]) await terminal.untilText('<by rest>');
  one.session.close();
  await one.closed();
  two.type('exit 6\n');
  assert.equal((await two.exited()).exitCode, 6);
  await two.closed();
});

processScenario('a terminal of an exited process tells its exit and closes', async (stage) => {
  const { id } = await stage.shell('exit 5', { tty: true });
  await stage.untilExited(id);
  const terminal = await (await stage.terminal(id)).ready();
  assert.deepEqual(await terminal.exited(), { type: 'exit', exitCode: 5 });
  await terminal.closed();
});

processScenario('a terminal of a killed process ends without an exit code', async (stage) => {
  const { id } = await parrot(stage);
  const terminal = await (await stage.terminal(id)).ready();
  await stage.client.killProcess(id, { waitMs: 10_000 });
  assert.equal((await terminal.exited()).exitCode ?? null, null);
  await terminal.closed();
});

processScenario('a terminal complains about frames it does not know, and goes on', async (stage) => {
  const { id } = await parrot(stage);
  const terminal = await (await stage.terminal(id)).ready();
  const bad = ['no json', '{"type":"dance"}', '{"type":"input","data":"x","encoding":"rot13"}', '{"type":"input","data":"***","encoding":"base64"}'];
  for (const [index, frame] of bad.entries()) {
    terminal.session.socket.send(frame);
    await until(() => terminal.errors.length === index + 1, `complaint about ${frame}`);
    assert.equal(terminal.errors[index].type, 'error');
    assert.ok(terminal.errors[index].message);
  }
  terminal.session.socket.send(new Uint8Array([1, 2, 3]));
  await until(() => terminal.errors.length === 5, 'complaint about a binary frame');
  terminal.type('as before\n');
  await terminal.untilText('<as before>');
});

processScenario('no terminal without a tty or a process', async (stage) => {
  const { id } = await stage.shell('exec sleep 86397');
  for (const [target, status] of [[id, 409], ['proc_999', 404]]) {
    await assert.rejects((await stage.terminal(target)).ready(), /connection failed/);
    assert.equal(await upgradeStatus(stage.client.buildProcessTerminalWebSocketUrl(target)), status);
  }
});

processScenario('a terminal needs the token of the server', async (stage) => {
  const { client } = stage;
  const { id } = await parrot(stage);
  assert.ok(client.buildProcessTerminalWebSocketUrl(id).includes('access_token='));
  const terminal = await (await stage.terminal(id)).ready();
  terminal.type('with token\n');
  await terminal.untilText('<with token>');

  const withoutToken = client.buildProcessTerminalWebSocketUrl(id).split('?')[0];
  for (const url of [withoutToken, `${withoutToken}?access_token=wrong`]) assert.equal(await upgradeStatus(url), 401);
  await assert.rejects((await stage.terminal(id, { accessToken: 'wrong' })).ready(), /connection failed/);
}, { token: 's&cret+/=%41' });

processScenario('a late terminal shows the present screen', async (stage) => {
  const { id } = await parrot(stage);
  const early = await (await stage.terminal(id)).ready();
  early.type('seen early\n');
  await early.untilText('<seen early>');
  const late = await (await stage.terminal(id)).ready();
  await late.untilText('<seen early>');
}, { betterThanReference: 'a terminal begins empty, whatever is on the screen' });

processScenario('a terminal shows nothing but the output of the process', async (stage) => {
  const { id } = await stage.shell('read -r line; echo done', { tty: true });
  const terminal = await (await stage.terminal(id)).ready();
  terminal.type('go\n');
  await terminal.closed();
  assert.equal(terminal.text, 'go\r\ndone\r\n');
  assert.equal(textOf((await stage.client.getProcessLogs(id)).entries), 'go\r\ndone\r\n');
}, { betterThanReference: 'it writes "process stream error: I/O error" to every terminal' });

processScenario('a terminal hears of the exit after the last output', async (stage) => {
  for (let round = 0; round < 30; round += 1) {
    const { id } = await stage.shell('read -r line; echo the end; exit 3', { tty: true });
    const terminal = await (await stage.terminal(id)).ready();
    let textAtExit;
    terminal.session.onExit(() => { setImmediate(() => { textAtExit = terminal.text; }); });
    terminal.type('go\n');
    await until(() => textAtExit !== undefined, 'the exit frame');
    assert.ok(textAtExit.endsWith('the end\r\n'), `round ${round}: ${JSON.stringify(textAtExit)}`);
  }
}, { betterThanReference: 'its exit frame may overtake the last output, which is then lost' });

processScenario('a terminal gets every byte of a flood', async (stage) => {
  const line = `${'0123456789abcdef'.repeat(6)}\n`;
  const script = `stty raw -echo; echo go?; head -n 1 >/dev/null; yes ${line.trim()} | head -c ${FLOOD_BYTES}; printf END`;
  const { id } = await stage.shell(script, { tty: true });
  await stage.untilLogged(id, 'go?');
  const terminal = await (await stage.terminal(id, { keepText: false })).ready();
  const chunks = [];
  terminal.session.onData((bytes) => chunks.push(bytes));
  terminal.type('go\n');
  await terminal.exited();
  await terminal.closed();

  const expected = Buffer.from(`${line.repeat(Math.ceil(FLOOD_BYTES / line.length)).slice(0, FLOOD_BYTES)}END`);
  assert.deepEqual(terminal.errors, [], 'it was not taken for slow');
  // Before the flood there may be the screen as it was.
  const flood = Buffer.concat(chunks).subarray(-expected.length);
  assert.equal(flood.length, expected.length);
  assert.ok(flood.equals(expected), 'the bytes differ');
}, { betterThanReference: 'it drops output silently when a reader falls behind' });

/** The status of the reply to a request for a WebSocket. */
async function upgradeStatus(webSocketUrl) {
  const { status, socket } = await askForWebSocket(webSocketUrl);
  socket?.destroy();
  return status;
}
