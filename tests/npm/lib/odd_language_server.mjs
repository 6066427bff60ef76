// A language server that misbehaves: node odd_language_server.mjs MODE LOG. It writes down what it hears.

import fs from 'node:fs';

const [, , mode, log] = process.argv;
let rest = Buffer.alloc(0);

function send(message) {
  const body = Buffer.from(JSON.stringify({ jsonrpc: '2.0', ...message }));
  process.stdout.write(Buffer.concat([Buffer.from(`Content-Length: ${body.length}\r\n\r\n`), body]));
}

const publish = (uri, message, version) => send({ method: 'textDocument/publishDiagnostics', params: {
  uri, version, diagnostics: [{ range: { start: { line: 0, character: 0 }, end: { line: 0, character: 1 } }, severity: 2, message, code: message }],
} });

const CAPABILITIES = { textDocumentSync: 2, hoverProvider: true, definitionProvider: true };
let uri;
let asked = 0;

const MODES = {
  /** Answers nothing but the handshake. */
  silent: () => {},
  /** Ends with each question. */
  crash: () => { process.stderr.write('odd: I give up\n'); process.exit(7); },
  /** Says what is no message. */
  rubbish: () => process.stdout.write('Listening on port 7 of something\n'),
  /** Says that it says more than anybody takes. */
  oversize: () => process.stdout.write('Content-Length: 9999999999\r\n\r\n'),
  /** Gives up the first time. */
  stale: (id) => (asked += 1) < 3 ? send({ id, error: { code: -32801, message: 'content modified' } }) : send({ id, result: { contents: 'at last' } }),
  /** Says very much, and asks in between. */
  flood: (id) => {
    for (let number = 0; number < 20_000; number += 1) publish(uri, `flood ${number}`);
    for (let number = 0; number < 100; number += 1) send({ id: `ask-${number}`, method: 'workspace/configuration', params: { items: [{ section: 'a.b' }] } });
    send({ id, result: { contents: 'done' } });
  },
  /** Wants a file changed before it answers. */
  edits: (id) => {
    const edit = { changes: { [uri]: [{ range: { start: { line: 0, character: 0 }, end: { line: 0, character: 3 } }, newText: 'new' }] } };
    send({ id: 'edit', method: 'workspace/applyEdit', params: { label: 'mine', edit } });
    MODES.waiting = id;
  },
};

function hear(message) {
  fs.appendFileSync(log, `${JSON.stringify(message)}\n`);
  if (message.method === 'initialize') send({ id: message.id, result: { capabilities: CAPABILITIES } });
  else if (message.method === 'shutdown') send({ id: message.id, result: null });
  else if (message.method === 'exit') process.exit(0);
  else if (message.method === 'textDocument/didOpen') {
    uri = message.params.textDocument.uri;
    if (mode !== 'silent') publish(uri, 'opened', message.params.textDocument.version);
  } else if (message.method === 'textDocument/hover') MODES[mode](message.id);
  else if (message.id === 'edit') send({ id: MODES.waiting, result: { contents: JSON.stringify(message.result) } });
}

process.stdin.on('data', (bytes) => {
  rest = Buffer.concat([rest, bytes]);
  for (;;) {
    const end = rest.indexOf('\r\n\r\n');
    const length = end < 0 ? NaN : Number(/content-length: (\d+)/i.exec(rest.subarray(0, end).toString())[1]);
    if (!(rest.length >= end + 4 + length)) return;
    const body = rest.subarray(end + 4, end + 4 + length);
    rest = rest.subarray(end + 4 + length);
    hear(JSON.parse(body.toString()));
  }
});
process.stdin.on('end', () => process.exit(0));
