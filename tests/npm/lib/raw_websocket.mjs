// A WebSocket client that sees the answer to its request and may break every rule.

import crypto from 'node:crypto';
import http from 'node:http';

import { until } from './wait.mjs';

const [TEXT, BINARY, CLOSE, PING, PONG] = [1, 2, 8, 9, 10];
const UPGRADE = { connection: 'upgrade', upgrade: 'websocket', 'sec-websocket-version': '13', 'sec-websocket-key': 'AAAAAAAAAAAAAAAAAAAAAA==' };

/** Resolves to what the server says to a request for a WebSocket: {status, headers, body}, or {status, socket, head}. */
export function askForWebSocket(url, headers = {}) {
  return new Promise((resolve, reject) => {
    const request = http.get(url.replace(/^ws/, 'http'), { headers: { ...UPGRADE, ...headers }, agent: false });
    request.once('response', async (response) => {
      const chunks = await response.toArray();
      resolve({ status: response.statusCode, headers: response.headers, body: Buffer.concat(chunks).toString('utf8') });
    });
    request.once('upgrade', (response, socket, head) => resolve({ status: response.statusCode, socket, head }));
    request.once('error', reject);
  });
}

/** One that speaks `{event, payload}`. */
export class RawWebSocket {
  /** Events, in their order. */
  heard = [];
  /** Binary messages. */
  pictures = [];
  isClosed = false;
  closeCode;
  #rest;

  static async connect(url, headers) {
    const { status, socket, head, body } = await askForWebSocket(url, headers);
    if (!socket) throw new Error(`no WebSocket but ${status}: ${body}`);
    return new RawWebSocket(socket, head);
  }

  constructor(socket, head) {
    this.socket = socket;
    this.#rest = head;
    socket.on('data', (bytes) => this.#take(bytes));
    socket.on('error', () => {}); // 'close' follows
    socket.on('close', () => { this.isClosed = true; });
    this.#take(Buffer.alloc(0));
  }

  #take(bytes) {
    this.#rest = Buffer.concat([this.#rest, bytes]);
    for (;;) {
      const frame = cut(this.#rest);
      if (!frame) return;
      this.#rest = this.#rest.subarray(frame.end);
      if (frame.opcode === TEXT) this.heard.push(JSON.parse(frame.body.toString('utf8')));
      else if (frame.opcode === BINARY) this.pictures.push(frame.body);
      else if (frame.opcode === PING) this.frame(PONG, frame.body);
      else if (frame.opcode === CLOSE) this.closeCode = frame.body.length ? frame.body.readUInt16BE() : 1005;
    }
  }

  say(event, payload) {
    this.frame(TEXT, Buffer.from(JSON.stringify({ event, payload })));
  }

  /** `first` is the first byte of the frame without its end bit. */
  frame(first, body, { isLast = true, isMasked = true } = {}) {
    if (this.socket.writable) this.socket.write(packed(first | (isLast ? 0x80 : 0), body, isMasked));
  }

  /** Resolves to the payload of the first such event since `from`. */
  async untilHeard(event, fits = () => true, from = 0) {
    const found = () => this.heard.slice(from).find((message) => message.event === event && fits(message.payload));
    const message = await until(() => found() ?? this.isClosed, `${event}`).catch((error) => {
      throw new Error(`${error.message}, but heard ${JSON.stringify(this.heard.slice(from)).slice(0, 2000)}`);
    });
    if (message === true) throw new Error(`closed (${this.closeCode}) before ${event}: ${JSON.stringify(this.heard.slice(from)).slice(0, 2000)}`);
    return message.payload ?? {};
  }

  /** As a client that leaves. */
  close() {
    this.frame(CLOSE, Buffer.from([3, 232]));
    this.socket.end();
  }

  /** As one whose machine is gone. */
  abort() {
    this.socket.resetAndDestroy();
  }
}

/** The first frame of the bytes, once it is whole (RFC 6455, 5.2). A server masks nothing. */
function cut(bytes) {
  if (bytes.length < 2) return undefined;
  const short = bytes[1] & 0x7f;
  const begin = { 126: 4, 127: 10 }[short] ?? 2;
  if (bytes.length < begin) return undefined;
  const length = short === 126 ? bytes.readUInt16BE(2) : short === 127 ? Number(bytes.readBigUInt64BE(2)) : short;
  const end = begin + length;
  return bytes.length < end ? undefined : { opcode: bytes[0] & 15, body: bytes.subarray(begin, end), end };
}

function packed(first, body, isMasked) {
  const mark = isMasked ? 0x80 : 0;
  const head = Buffer.alloc(body.length < 126 ? 2 : body.length < 65536 ? 4 : 10);
  head[0] = first;
  if (head.length === 2) head[1] = mark | body.length;
  else if (head.length === 4) head[1] = mark | 126, head.writeUInt16BE(body.length, 2);
  else head[1] = mark | 127, head.writeBigUInt64BE(BigInt(body.length), 2);
  if (!isMasked) return Buffer.concat([head, body]);
  const mask = crypto.randomBytes(4);
  return Buffer.concat([head, mask, body.map((byte, index) => byte ^ mask[index & 3])]);
}
