// A plain reader of `GET /v1/acp/{id}`, for what the SDK hides: event ids, gaps, doubles and the end of the stream.

export class EventStream {
  /** Everything read so far: {id: number, message}. */
  events = [];
  #abort = new AbortController();
  #ended;

  static async open(server, serverId, lastEventId) {
    const stream = new EventStream();
    const headers = { accept: 'text/event-stream' };
    if (lastEventId !== undefined) headers['last-event-id'] = String(lastEventId);
    const url = `${server.url}/v1/acp/${encodeURIComponent(serverId)}`;
    const response = await fetch(url, { headers, signal: stream.#abort.signal });
    if (response.status !== 200) throw new Error(`stream of ${serverId}: ${response.status} ${await response.text()}`);
    stream.#ended = stream.#read(response.body);
    stream.#ended.catch(() => {});
    return stream;
  }

  get ids() {
    return this.events.map((event) => event.id);
  }

  get messages() {
    return this.events.map((event) => event.message);
  }

  /** Resolves when the server ends the stream; rejects when the connection breaks. */
  get ended() {
    return this.#ended;
  }

  /** Leaves, as a client does whose machine goes to sleep. */
  async leave() {
    this.#abort.abort();
    await this.#ended.catch(() => {});
  }

  async #read(body) {
    let text = '';
    for await (const chunk of body.pipeThrough(new TextDecoderStream())) {
      text += chunk;
      const frames = text.split('\n\n');
      text = frames.pop();
      for (const frame of frames) this.#take(frame);
    }
  }

  #take(frame) {
    const fields = new Map(frame.split('\n').map((line) => [line.slice(0, line.indexOf(':')), line.slice(line.indexOf(':') + 1).trim()]));
    if (fields.get('event') !== 'message') return;
    this.events.push({ id: Number(fields.get('id')), message: JSON.parse(fields.get('data')) });
  }
}

/** Posts one JSON-RPC message; {status, message} with the parsed body, if any. */
export async function post(server, serverId, message, agent) {
  const query = agent ? `?agent=${agent}` : '';
  const response = await fetch(`${server.url}/v1/acp/${encodeURIComponent(serverId)}${query}`, {
    method: 'POST',
    headers: { 'content-type': 'application/json', accept: 'application/json' },
    body: JSON.stringify({ jsonrpc: '2.0', ...message }),
  });
  const text = await response.text();
  return { status: response.status, message: text.trim() ? JSON.parse(text) : undefined };
}

/** Starts `agent` under `serverId` and opens a session; resolves to its session id. */
export async function openSession(server, serverId, agent) {
  const params = { protocolVersion: 1, clientInfo: { name: 'plain-client', version: '1' } };
  await post(server, serverId, { id: 'init', method: 'initialize', params }, agent);
  const reply = await post(server, serverId, { id: 'new', method: 'session/new', params: { cwd: server.workDir, mcpServers: [] } });
  const sessionId = reply.message?.result?.sessionId;
  if (!sessionId) throw new Error(`session/new gave no session: ${JSON.stringify(reply)}`);
  return sessionId;
}

export function promptMessage(id, sessionId, text) {
  return { id, method: 'session/prompt', params: { sessionId, prompt: [{ type: 'text', text }] } };
}
