// The SDK's terminal session, and everything it said.

import { WebSocket } from 'undici';

import { until } from './wait.mjs';

export class Terminal {
  /** Exit frames, in the order of their arrival. */
  exits = [];
  /** Error frames and errors of the connection. */
  errors = [];
  isClosed = false;
  #text = '';
  #decoder = new TextDecoder();

  constructor(client, processId, { keepText = true, ...options } = {}) {
    this.processId = processId;
    this.session = client.connectProcessTerminal(processId, { WebSocket, ...options });
    this.session.onReady((frame) => { this.readyFrame = frame; });
    this.session.onExit((frame) => this.exits.push(frame));
    this.session.onError((error) => this.errors.push(error));
    this.session.onClose(() => { this.isClosed = true; });
    this.session.onData((bytes) => {
      if (keepText) this.#text += this.#decoder.decode(bytes, { stream: true });
    });
  }

  /** All output so far. A terminal that had output before begins with its screen, so look for parts of this. */
  get text() {
    return this.#text;
  }

  async ready() {
    await until(() => this.readyFrame || this.errors.length, `ready frame of ${this.processId}`, 10_000);
    if (!this.readyFrame) throw new Error(`${this.errors[0].message}`);
    return this;
  }

  type(input) {
    this.session.sendInput(input);
  }

  async untilText(text) {
    try {
      await until(() => this.#text.includes(text), 'text', 10_000);
    } catch {
      const shown = JSON.stringify({ text: this.#text, exits: this.exits, errors: this.errors, isClosed: this.isClosed });
      throw new Error(`"${text}" is not in the terminal: ${shown}`);
    }
  }

  /** Resolves to the exit frame. */
  async exited() {
    return until(() => this.exits[0], `exit frame of ${this.processId}`, 30_000);
  }

  async closed() {
    await until(() => this.isClosed, `close of the terminal of ${this.processId}`, 10_000);
  }
}
