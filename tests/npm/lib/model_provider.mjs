// A model provider on loopback, so that published coding agents complete turns without a network.
//
// It speaks Anthropic Messages, OpenAI Responses and OpenAI Chat. The last line of the newest user text says what
// the "model" does:
//   RUN: <command>   calls the agent's shell tool once, then says "done"
//   TRY: <command>   the same, inside the sandbox, if the tool has one
//   SAY: <text>      says the text
//   DRIP: <n> <ms>   says n words, ms milliseconds apart
//   HANG             begins an answer and never ends it
//   anything else    says "echo: <line>"

import { once } from 'node:events';
import http from 'node:http';

const SHELL_TOOLS = ['Bash', 'bash', 'shell', 'exec_command', 'shell_command', 'run_shell_command'];
// Codex asks for permission only when the model itself wants to leave the sandbox.
const ESCALATED = { sandbox_permissions: 'require_escalated', justification: 'May this command run?' };

export async function startModelProvider({ delayMs = 0 } = {}) {
  const provider = new ModelProvider(delayMs);
  provider.server.listen(0, '127.0.0.1');
  await once(provider.server, 'listening');
  return provider;
}

class ModelProvider {
  /** Every POST so far: {path, body, plan, aside}. */
  requests = [];
  #hanging = 0;
  #serial = 0;
  #watchers = new Set();

  constructor(delayMs) {
    this.delayMs = delayMs;
    this.server = http.createServer((request, response) => {
      this.#answer(request, response).catch((error) => response.destroy(error));
    });
  }

  get url() {
    return `http://127.0.0.1:${this.server.address().port}`;
  }

  /** How many answers are begun and not ended at this moment. */
  get hanging() {
    return this.#hanging;
  }

  /** Resolves once `condition(provider)` holds; looked at whenever a request begins or ends. */
  async when(condition) {
    if (condition(this)) return;
    await new Promise((resolve) => {
      const watcher = () => condition(this) && this.#watchers.delete(watcher) && resolve();
      this.#watchers.add(watcher);
    });
  }

  async stop() {
    this.server.closeAllConnections();
    this.server.close();
    await once(this.server, 'close');
  }

  #changed() {
    for (const watcher of [...this.#watchers]) watcher();
  }

  async #answer(request, response) {
    const path = request.url.split('?')[0].replace(/\/+$/, '');
    if (request.method !== 'POST') {
      const models = { object: 'list', data: [{ id: 'fake-model', object: 'model', type: 'model' }] };
      return sendJson(response, 200, path.endsWith('/models') ? models : { ok: true });
    }
    const body = await readJson(request);
    if (path.endsWith('/messages/count_tokens')) return sendJson(response, 200, { input_tokens: 10 });
    const format = FORMATS.find((candidate) => path.endsWith(candidate.path));
    if (!format) return sendJson(response, 404, { error: { type: 'not_found_error', message: path } });

    const turn = format.read(body);
    const plan = planFor(turn);
    // Titles and summaries are asked for beside the conversation, with no tools and only a part of the history.
    this.requests.push({ path, body, plan, aside: turn.tools.length === 0 });
    this.#changed();
    const answer = { ...plan, serial: ++this.#serial, model: body.model ?? 'fake-model', createdS: Math.floor(Date.now() / 1000) };
    if (!body.stream && plan.kind !== 'hang') return sendJson(response, 200, format.whole(answer));
    await this.#stream(response, format, answer);
  }

  async #stream(response, format, answer) {
    const frames = format.frames(answer);
    response.writeHead(200, { 'content-type': 'text/event-stream', 'cache-control': 'no-cache', connection: 'close' });
    if (answer.kind === 'hang') {
      response.write(frame(frames[0], format.named));
      this.#hanging += 1;
      this.#changed();
      await once(response, 'close');
      this.#hanging -= 1;
      this.#changed();
      return;
    }
    const pauseMs = answer.pauseMs ?? this.delayMs;
    for (const data of frames) {
      if (pauseMs) await new Promise((resolve) => setTimeout(resolve, pauseMs));
      if (response.destroyed) return;
      response.write(frame(data, format.named));
    }
    response.end();
  }
}

/** What the model does about `turn` = {text, afterTool, tools}: {kind: 'text'|'call'|'hang', …}. */
function planFor({ text, afterTool, tools }) {
  if (afterTool) return { kind: 'text', text: 'done' };
  const line = lastLine(text);
  const shell = SHELL_TOOLS.find((name) => tools.includes(name));
  const [, verb, rest] = /^(RUN|TRY|SAY|DRIP):\s*(.*)$/.exec(line) ?? [];
  if (['RUN', 'TRY'].includes(verb) && shell) return { kind: 'call', tool: shell, command: rest, escalated: verb === 'RUN' };
  if (verb === 'SAY') return { kind: 'text', text: rest };
  // Agents await some of the requests they make aside, with the same user text, so those must never hang.
  if (verb === 'DRIP' && shell) return drip(rest);
  if (line === 'HANG' && shell) return { kind: 'hang', text: 'never' };
  return { kind: 'text', text: `echo: ${line}` };
}

function drip(order) {
  const [count, pauseMs] = order.split(' ').map(Number);
  return { kind: 'text', text: Array.from({ length: count }, (_, index) => `drop${index}`).join(' '), pauseMs };
}

function lastLine(text) {
  // Agents add texts of their own to what the user said.
  const fromUser = text.replace(/<(system-reminder|skill)>[\s\S]*?<\/\1>/g, '');
  return fromUser.split('\n').map((line) => line.trim()).filter(Boolean).at(-1) ?? '';
}

function textOf(content) {
  if (typeof content === 'string') return content;
  const texts = (content ?? []).map((part) => (typeof part === 'string' ? part : (part.text ?? '')));
  return texts.join('\n');
}

const words = (text) => text.split(/(?= )/);
const isToolResult = (part) => part.type === 'tool_result';
const said = (content) => (Array.isArray(content) && content.some(isToolResult)) || lastLine(textOf(content)) !== '';
const lastUser = (messages) => messages.findLast(({ role, content }) => role === 'user' && said(content))?.content ?? '';

const anthropic = {
  path: '/messages',
  named: true,
  read(body) {
    const content = lastUser(body.messages ?? []);
    // A refused call and the next user text arrive in one message, so only what comes last counts.
    const parts = Array.isArray(content) ? content.filter((part) => part.text === undefined || lastLine(part.text)) : [];
    const afterTool = parts.at(-1)?.type === 'tool_result';
    return { text: textOf(content), afterTool, tools: (body.tools ?? []).map((tool) => tool.name) };
  },
  block(answer) {
    if (answer.kind !== 'call') return { type: 'text', text: answer.text };
    const input = { command: answer.command, description: 'run a command' };
    return { type: 'tool_use', id: `toolu_${answer.serial}`, name: answer.tool, input };
  },
  whole(answer) {
    const usage = { input_tokens: 25, output_tokens: 9, cache_read_input_tokens: 0, cache_creation_input_tokens: 0 };
    const stop_reason = answer.kind === 'call' ? 'tool_use' : 'end_turn';
    const head = { id: `msg_${answer.serial}`, type: 'message', role: 'assistant', model: answer.model };
    return { ...head, content: [this.block(answer)], stop_reason, stop_sequence: null, usage };
  },
  frames(answer) {
    const message = this.whole(answer);
    const [block] = message.content;
    const call = block.type === 'tool_use';
    const empty = call ? { ...block, input: {} } : { type: 'text', text: '' };
    const deltas = call
      ? [{ type: 'input_json_delta', partial_json: JSON.stringify(block.input) }]
      : words(block.text).map((text) => ({ type: 'text_delta', text }));
    const ending = { stop_reason: message.stop_reason, stop_sequence: null };
    return [
      { type: 'message_start', message: { ...message, content: [], stop_reason: null } },
      { type: 'content_block_start', index: 0, content_block: empty },
      ...deltas.map((delta) => ({ type: 'content_block_delta', index: 0, delta })),
      { type: 'content_block_stop', index: 0 },
      { type: 'message_delta', delta: ending, usage: message.usage },
      { type: 'message_stop' },
    ];
  },
};

const responses = {
  path: '/responses',
  named: true,
  read(body) {
    const items = typeof body.input === 'string' ? [{ role: 'user', content: body.input }] : (body.input ?? []);
    const afterTool = /_call_output$/.test(items.at(-1)?.type ?? '');
    return { text: textOf(lastUser(items)), afterTool, tools: (body.tools ?? []).map((tool) => tool.name) };
  },
  item(answer) {
    if (answer.kind === 'call') {
      const shellArguments = answer.tool === 'shell'
        ? { command: ['bash', '-c', answer.command] }
        : { cmd: answer.command, command: answer.command, ...(answer.escalated && ESCALATED) };
      const id = `fc_${answer.serial}`;
      const head = { type: 'function_call', id, call_id: `call_${answer.serial}`, status: 'completed' };
      return { ...head, name: answer.tool, arguments: JSON.stringify(shellArguments) };
    }
    const content = [{ type: 'output_text', text: answer.text, annotations: [] }];
    return { type: 'message', id: `msg_${answer.serial}`, role: 'assistant', status: 'completed', content };
  },
  whole(answer) {
    const usage = {
      input_tokens: 25, input_tokens_details: { cached_tokens: 0 },
      output_tokens: 9, output_tokens_details: { reasoning_tokens: 0 }, total_tokens: 34,
    };
    const head = { id: `resp_${answer.serial}`, object: 'response', created_at: answer.createdS, model: answer.model };
    return { ...head, status: 'completed', output: [this.item(answer)], usage };
  },
  frames(answer) {
    const response = this.whole(answer);
    const item = response.output[0];
    const message = item.type === 'message';
    const added = message ? { ...item, content: [], status: 'in_progress' } : item;
    const position = { item_id: item.id, output_index: 0, content_index: 0 };
    const deltas = message ? words(answer.text) : [];
    return [
      { type: 'response.created', response: { ...response, status: 'in_progress', output: [], usage: null } },
      { type: 'response.output_item.added', output_index: 0, item: added },
      ...deltas.map((delta) => ({ type: 'response.output_text.delta', ...position, delta })),
      { type: 'response.output_item.done', output_index: 0, item },
      { type: 'response.completed', response },
    ];
  },
};

const chat = {
  path: '/chat/completions',
  named: false,
  read(body) {
    const messages = body.messages ?? [];
    const afterTool = messages.at(-1)?.role === 'tool';
    return { text: textOf(lastUser(messages)), afterTool, tools: (body.tools ?? []).map((tool) => tool.function?.name) };
  },
  calls(answer) {
    if (answer.kind !== 'call') return undefined;
    const callArguments = JSON.stringify({ command: answer.command, description: 'run a command' });
    const id = `call_${answer.serial}`;
    return [{ index: 0, id, type: 'function', function: { name: answer.tool, arguments: callArguments } }];
  },
  head(answer, object) {
    return { id: `chatcmpl_${answer.serial}`, object, created: answer.createdS, model: answer.model };
  },
  usage: { prompt_tokens: 25, completion_tokens: 9, total_tokens: 34 },
  whole(answer) {
    const tool_calls = this.calls(answer);
    const message = { role: 'assistant', content: tool_calls ? null : answer.text, tool_calls };
    const choice = { index: 0, message, finish_reason: tool_calls ? 'tool_calls' : 'stop' };
    return { ...this.head(answer, 'chat.completion'), choices: [choice], usage: this.usage };
  },
  frames(answer) {
    const tool_calls = this.calls(answer);
    const head = this.head(answer, 'chat.completion.chunk');
    const chunk = (delta, finish_reason = null) => ({ ...head, choices: [{ index: 0, delta, finish_reason }] });
    const deltas = tool_calls ? [{ tool_calls }] : words(answer.text).map((content) => ({ content }));
    return [
      chunk({ role: 'assistant', content: '' }),
      ...deltas.map((delta) => chunk(delta)),
      chunk({}, tool_calls ? 'tool_calls' : 'stop'),
      { ...head, choices: [], usage: this.usage },
      '[DONE]',
    ];
  },
};

const FORMATS = [anthropic, responses, chat];

function frame(data, named) {
  const name = named ? `event: ${data.type}\n` : '';
  return `${name}data: ${typeof data === 'string' ? data : JSON.stringify(data)}\n\n`;
}

async function readJson(request) {
  const chunks = await request.toArray();
  return JSON.parse(Buffer.concat(chunks).toString() || '{}');
}

function sendJson(response, status, value) {
  response.writeHead(status, { 'content-type': 'application/json' });
  response.end(JSON.stringify(value));
}
