// A proxy that cuts every connection after a while, whatever goes on in it, as many a gateway does.

import { once } from 'node:events';
import net from 'node:net';

export async function startCuttingProxy(targetUrl, limitMs) {
  const proxy = new CuttingProxy(Number(new URL(targetUrl).port), limitMs);
  proxy.server.listen(0, '127.0.0.1');
  await once(proxy.server, 'listening');
  return proxy;
}

class CuttingProxy {
  /** Connections that were cut because their time was over. */
  cuts = 0;
  /** Connections that were cut with the answer already there. */
  swallowed = 0;
  /** How many answers never arrive, by what stands in their requests' heads. */
  #toSwallow = new Map();
  #sockets = new Set();

  constructor(port, limitMs) {
    this.server = net.createServer((client) => this.#join(client, net.connect(port, '127.0.0.1'), limitMs));
  }

  get url() {
    return `http://127.0.0.1:${this.server.address().port}`;
  }

  /** The next `count` answers to requests with `about` in their heads never arrive: they were done, but nobody learns of it. */
  swallowAnswers(about, count) {
    this.#toSwallow.set(about, count);
  }

  #swallows(head) {
    const [about, count] = [...this.#toSwallow].find(([text, left]) => left > 0 && head.includes(text)) ?? [];
    if (!about) return false;
    this.#toSwallow.set(about, count - 1);
    this.swallowed += 1;
    return true;
  }

  async close() {
    this.server.close();
    for (const socket of this.#sockets) socket.destroy();
  }

  #join(client, upstream, limitMs) {
    const cut = () => [client, upstream].forEach((socket) => socket.destroy());
    const timer = setTimeout(() => {
      this.cuts += 1;
      cut();
    }, limitMs);
    for (const socket of [client, upstream]) {
      this.#sockets.add(socket);
      socket.on('error', cut);
      socket.on('close', () => {
        clearTimeout(timer);
        this.#sockets.delete(socket);
        cut();
      });
    }
    let head = '';
    client.on('data', (data) => {
      const text = data.toString('latin1');
      if (/^[A-Z]+ \//.test(text)) head = text;
    });
    client.pipe(upstream);
    upstream.on('data', (data) => {
      if (this.#swallows(head)) return cut();
      if (!client.write(data)) upstream.pause();
    });
    client.on('drain', () => upstream.resume());
    upstream.on('end', () => client.end());
  }
}
