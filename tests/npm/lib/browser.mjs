// A bundled page on a port of this machine, and Debian's Chromium to look at it.

import http from 'node:http';
import path from 'node:path';
import { fileURLToPath } from 'node:url';

import { build } from 'esbuild';
import { chromium } from 'playwright-core';

const npmDir = path.resolve(path.dirname(fileURLToPath(import.meta.url)), '..');
const HTML = '<!doctype html><meta charset="utf-8"><title>test</title><link rel="icon" href="data:,"><div id="root"></div><script type="module" src="/page.js"></script>';

/** Bundles `entry` (below tests/npm) and serves it; resolves to {origin, close}. */
export async function servePage(entry) {
  const script = await bundle(path.join(npmDir, entry));
  const server = http.createServer((request, response) => {
    const { pathname } = new URL(request.url, 'http://page');
    const [type, body] = { '/': ['text/html', HTML], '/page.js': ['text/javascript', script] }[pathname] ?? [];
    response.writeHead(body ? 200 : 404, { 'content-type': `${type ?? 'text/plain'}; charset=utf-8` }).end(body);
  });
  await new Promise((resolve, reject) => server.once('error', reject).listen(0, '127.0.0.1', resolve));
  const close = () => {
    server.closeAllConnections();
    return new Promise((resolve) => server.close(resolve));
  };
  return { origin: `http://127.0.0.1:${server.address().port}`, close };
}

async function bundle(entryPoint) {
  const { outputFiles } = await build({
    entryPoints: [entryPoint],
    bundle: true,
    format: 'esm',
    jsx: 'automatic',
    platform: 'browser',
    // The SDK loads these only to start a server of its own.
    external: ['node:*'],
    define: { 'process.env.NODE_ENV': '"production"' },
    logLevel: 'error',
    write: false,
  });
  return outputFiles[0].text;
}

export function launchBrowser() {
  return chromium.launch({
    executablePath: process.env.CHROMIUM ?? '/usr/bin/chromium',
    // Root has no other choice than no sandbox; and nothing but this machine is looked up.
    args: ['--no-sandbox', '--host-resolver-rules=MAP * ~NOTFOUND, EXCLUDE 127.0.0.1'],
  });
}
