// An MCP server with three tools in two pages, made with the official SDK.
//
//   node mcp_server.mjs stdio                  speaks on stdin and stdout
//   node mcp_server.mjs http [SECRET]          Streamable HTTP with sessions at /mcp; prints its URL. /moved leads there
//   node mcp_server.mjs json [SECRET]          the same without event streams
//   node mcp_server.mjs sse [SECRET]           the older HTTP with SSE, at /mcp
//
// With SECRET, requests need it as a bearer token. GET /sessions answers with the number of open sessions.

import { randomUUID } from 'node:crypto';
import http from 'node:http';

import { Server } from '@modelcontextprotocol/sdk/server/index.js';
import { SSEServerTransport } from '@modelcontextprotocol/sdk/server/sse.js';
import { StdioServerTransport } from '@modelcontextprotocol/sdk/server/stdio.js';
import { StreamableHTTPServerTransport } from '@modelcontextprotocol/sdk/server/streamableHttp.js';
import { ListToolsRequestSchema } from '@modelcontextprotocol/sdk/types.js';

const [kind, secret] = process.argv.slice(2);
const tool = (name) => ({ name, inputSchema: { type: 'object' } });

function newServer() {
  const server = new Server({ name: 'test', version: '1' }, { capabilities: { tools: {} } });
  server.setRequestHandler(ListToolsRequestSchema, ({ params }) => {
    if (params?.cursor === 'more') return { tools: [tool('c')] };
    return { tools: [tool('a'), tool('b')], nextCursor: 'more' };
  });
  return server;
}

const sessions = new Map();

async function streamable(request, response) {
  const known = sessions.get(request.headers['mcp-session-id']);
  if (known) return known.handleRequest(request, response);
  const transport = new StreamableHTTPServerTransport({
    sessionIdGenerator: randomUUID,
    enableJsonResponse: kind === 'json',
    onsessioninitialized: (id) => sessions.set(id, transport),
    onsessionclosed: (id) => sessions.delete(id),
  });
  await newServer().connect(transport);
  return transport.handleRequest(request, response);
}

async function withStream(request, response, url) {
  if (request.method === 'POST') return sessions.get(url.searchParams.get('sessionId')).handlePostMessage(request, response);
  const transport = new SSEServerTransport('/mcp', response);
  sessions.set(transport.sessionId, transport);
  response.on('close', () => sessions.delete(transport.sessionId));
  return newServer().connect(transport);
}

function serve() {
  const server = http.createServer((request, response) => {
    const url = new URL(request.url, 'http://localhost');
    if (url.pathname === '/sessions') return response.end(String(sessions.size));
    if (url.pathname === '/moved') return response.writeHead(307, { location: '/mcp' }).end();
    if (url.pathname === '/away') return response.writeHead(307, { location: 'http://127.0.0.1:9/' }).end();
    if (secret && request.headers.authorization !== `Bearer ${secret}`) return response.writeHead(401).end();
    return kind === 'sse' ? withStream(request, response, url) : streamable(request, response);
  });
  server.listen(0, '127.0.0.1', () => console.log(`http://127.0.0.1:${server.address().port}/mcp`));
}

if (kind === 'stdio') {
  console.error('the server has begun');
  await newServer().connect(new StdioServerTransport());
} else {
  serve();
}
