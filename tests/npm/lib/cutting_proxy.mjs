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
  #toSwallow = 0;
  #sockets = new Set();

  constructor(port, limitMs) {
    this.server = net.createServer((client) => this.#join(client, net.connect(port, '127.0.0.1'), limitMs));
  }

  get url() {
    return `http://127.0.0.1:${this.server.address().port}`;
  }

  /** The next `count` answers never arrive: their requests were done, but nobody learns of it. */
  swallowAnswers(count) {
    this.#toSwallow = count;
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
    client.pipe(upstream);
    upstream.on('data', (data) => {
      if (this.#toSwallow > 0) {
        this.#toSwallow -= 1;
        this.swallowed += 1;
        return cut();
      }
      if (!client.write(data)) upstream.pause();
    });
    client.on('drain', () => upstream.resume());
    upstream.on('end', () => client.end());
  }
}
