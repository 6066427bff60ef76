// The official SDK's client on its own HTTP or WebSocket transport, unchanged.

import { client, methods } from 'acp-sdk';
import { createHttpStream } from 'acp-sdk/experimental/http-client';
import { createWebSocketStream } from 'acp-sdk/experimental/ws-client';
import { WebSocket } from 'undici';

import { guard } from './wait.mjs';

/** The transports, by name: each opens a stream of messages to a URL of the server. */
const doors = {
  http: (server, query) => createHttpStream(`${server.url}/acp${query}`),
  websocket: (server, query) => createWebSocketStream(`${server.url.replace('http', 'ws')}/acp${query}`, { WebSocket }),
};

export const doorNames = Object.keys(doors);

/** An initialized client and everything it was told. */
export class RemoteClient {
  updates = [];
  /** Permission requests: [{params, signal, answer}]. */
  questions = [];

  /** `permission` answers requests for permission; without it `answer` of a question does. */
  static async open(stage, door, { query = `?agent=${stage.agentName}`, permission, capabilities = {} } = {}) {
    const self = new RemoteClient();
    const app = client({ name: 'remote-test' })
      .onNotification(methods.client.session.update, ({ params }) => { self.updates.push(params); })
      .onRequest(methods.client.session.requestPermission, ({ params, signal }) => {
        if (permission) {
          self.questions.push({ params, signal });
          return permission(params);
        }
        return new Promise((answer, reject) => {
          self.questions.push({ params, signal, answer });
          signal.addEventListener('abort', () => reject(signal.reason), { once: true });
        });
      });
    self.connection = app.connect(doors[door](stage.server, query));
    self.agent = self.connection.agent;
    self.initialized = await guard(self.agent.request(methods.agent.initialize, {
      protocolVersion: 1, clientCapabilities: capabilities,
    }), 'initialize', 60_000);
    return stage.track(self);
  }

  async newSession(cwd) {
    return (await this.agent.request(methods.agent.session.new, { cwd, mcpServers: [] })).sessionId;
  }

  prompt(sessionId, text) {
    return this.agent.request(methods.agent.session.prompt, { sessionId, prompt: [{ type: 'text', text }] });
  }

  cancel(sessionId) {
    return this.agent.notify(methods.agent.session.cancel, { sessionId });
  }

  load(sessionId, cwd) {
    return this.agent.request(methods.agent.session.load, { sessionId, cwd, mcpServers: [] });
  }

  /** What the agent said in a session. */
  textOf(sessionId) {
    const chunks = this.updates.filter((told) => told.sessionId === sessionId && told.update.sessionUpdate === 'agent_message_chunk');
    return chunks.map(({ update }) => update.content.text).join('');
  }

  async leave() {
    this.connection.close();
    await this.connection.closed;
  }
}

export const choose = (kind) => ({ options }) => {
  const option = options.find((candidate) => candidate.kind === kind);
  return { outcome: { outcome: 'selected', optionId: option.optionId } };
};
