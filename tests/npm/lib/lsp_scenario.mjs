// Language servers: projects of more than one file, and asking about them.

import assert from 'node:assert/strict';
import fs from 'node:fs';
import path from 'node:path';
import { fileURLToPath } from 'node:url';

import { ProcessStage, stageScenario } from './process_scenario.mjs';
import { until } from './wait.mjs';

const BIN = path.join(path.dirname(fileURLToPath(import.meta.url)), '../node_modules/.bin');
/** Servers start, and look at whole projects. */
const WAIT_MS = 20_000;

/** Declares a test; `body` gets an LspStage. */
export function lspScenario(title, body, options = {}) {
  stageScenario(LspStage, title, body, { betterThanReference: 'there are no language servers', hangGuardMs: 120_000, ...options });
}

export class LspStage extends ProcessStage {
  constructor({ registries, ...options } = {}) {
    super(options);
    // what is installed comes from where this machine gets it
    if (registries) {
      delete this.server.env.HTTPS_PROXY;
      Object.assign(this.server.env, Object.fromEntries(Object.entries(process.env).filter(([name]) => /^(pip|npm_config|ssl_cert|https?_proxy)/i.test(name))));
    }
    this.server.env.PATH = `${BIN}:${this.server.env.PATH}`;
  }

  /** Writes files of the project, by name; gives their paths. */
  project(files) {
    for (const [name, text] of Object.entries(files)) {
      fs.mkdirSync(path.dirname(this.at(name)), { recursive: true });
      fs.writeFileSync(this.at(name), text);
    }
  }

  at(name) {
    return path.join(this.server.workDir, name);
  }

  read(name) {
    return fs.readFileSync(this.at(name), 'utf8');
  }

  /** Resolves to {status, body}. */
  async call(method, route, body, { signal } = {}) {
    const headers = { 'content-type': 'application/json', ...(this.server.token ? { authorization: `Bearer ${this.server.token}` } : {}) };
    const response = await fetch(`${this.server.url}/v1/${route}`, { method, headers, body: body && JSON.stringify(body), signal });
    const text = await response.text();
    return { status: response.status, body: text ? JSON.parse(text) : undefined };
  }

  /** Resolves to what a question about a file is answered with. */
  async ask(what, name, question = {}) {
    const { status, body } = await this.call('POST', `lsp/${what}`, { path: this.at(name), ...question });
    assert.equal(status, 200, JSON.stringify(body));
    return body;
  }

  /** Resolves to the diagnostics of a file. */
  async diagnostics(name, query = {}) {
    const { status, body } = await this.call('GET', `lsp/diagnostics?${new URLSearchParams({ path: this.at(name), waitMs: WAIT_MS, ...query })}`);
    assert.equal(status, 200, JSON.stringify(body));
    return body.files.length === 1 && body.files[0].path === this.at(name) ? body.files[0] : body.files;
  }

  /** Resolves once a file's diagnostics are these, by their codes; asks each time anew. */
  untilCodes(name, codes) {
    let last;
    return until(async () => {
      last = (await this.diagnostics(name)).diagnostics.map(({ code }) => code);
      return JSON.stringify(last) === JSON.stringify(codes);
    }, `${codes} of ${name}`).catch((error) => assert.fail(`${error.message}; last ${last}`));
  }

  async servers() {
    return (await this.call('GET', 'lsp/servers')).body.servers;
  }

  /** A user's own language server: a script of lib/odd_language_server.mjs, for files that end in `.odd`. */
  odd(mode) {
    const folder = path.join(this.server.home, '.config/sandboxd/language-servers');
    fs.mkdirSync(folder, { recursive: true });
    const script = path.join(path.dirname(fileURLToPath(import.meta.url)), 'odd_language_server.mjs');
    const start = path.join(this.server.home, 'odd-ls');
    fs.writeFileSync(start, `#!/bin/sh\nexec '${process.execPath}' '${script}' ${mode} '${this.at('odd.log')}'\n`, { mode: 0o755 });
    const manifest = `schema = 1\nid = "odd"\nname = "Odd"\nlanguages = [{ id = "odd", globs = ["*.odd"] }]\nlaunch = { path_names = ["${start}"] }\n`;
    fs.writeFileSync(path.join(folder, 'odd.toml'), manifest);
  }

  /** What the odd server was told, one JSON message a line. */
  oddHeard() {
    if (!fs.existsSync(this.at('odd.log'))) return [];
    return fs.readFileSync(this.at('odd.log'), 'utf8').split('\n').filter(Boolean).map((line) => JSON.parse(line));
  }
}
