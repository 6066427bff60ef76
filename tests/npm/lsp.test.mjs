// Language servers, real ones: diagnostics, questions, and what changes files.

import assert from 'node:assert/strict';
import fs from 'node:fs';

import { lspScenario as scenario } from './lib/lsp_scenario.mjs';
import { until } from './lib/wait.mjs';

const PYTHON = {
  'py/pyproject.toml': '[project]\nname = "x"\nversion = "0"\n',
  'py/shapes.py': [
    'class Shape:', '    """A thing with an area."""', '', '    def area(self) -> float:', '        return 0.0', '', '',
    'class Circle(Shape):', '    def area(self) -> float:', '        return 3.14', '', '',
    'def total(shapes: list[Shape]) -> float:', '    return sum(shape.area() for shape in shapes)', '',
  ].join('\n'),
  'py/main.py': 'from shapes import Circle, total\n\nwert = "ä🦀"; result: float = total([Circle()])\nprint(result, wert)\n',
};
const TYPESCRIPT = {
  'ts/tsconfig.json': JSON.stringify({ compilerOptions: { strict: true, module: 'esnext', target: 'es2022', moduleResolution: 'bundler' }, include: ['src'] }),
  'ts/src/greet.ts': 'export function greet(name: string): string {\n  return `hi ${name}`;\n}\n',
  'ts/src/main.ts': "import { greet } from './greet';\n\nexport const text: string = greet('x');\n",
};
const C = {
  'c/compile_flags.txt': '-Wall\n',
  'c/add.h': 'int add(int a, int b);\n',
  'c/add.c': '#include "add.h"\n\nint add(int a, int b) { return a + b; }\n',
  'c/main.c': '#include "add.h"\n\nint main(void) { return add(1, 2); }\n',
};

scenario('diagnostics come and go with what the disk has, in two languages at once', async (stage) => {
  stage.project({ ...PYTHON, ...TYPESCRIPT });
  const [python, typescript] = await Promise.all([stage.diagnostics('py/main.py'), stage.diagnostics('ts/src/main.ts')]);
  assert.deepEqual([python.diagnostics, typescript.diagnostics, python.current, typescript.current], [[], [], true, true]);

  stage.project({
    'py/main.py': PYTHON['py/main.py'].replace('result: float', 'result: int'),
    'ts/src/main.ts': TYPESCRIPT['ts/src/main.ts'].replace(': string', ': number'),
  });
  await Promise.all([stage.untilCodes('py/main.py', ['reportAssignmentType']), stage.untilCodes('ts/src/main.ts', ['2322'])]);
  const [wrong] = (await stage.diagnostics('py/main.py')).diagnostics;
  assert.equal(wrong.severity, 'error');
  assert.deepEqual(wrong.range.start, { line: 2, character: 'wert = "ä🦀"; result: int = '.length });
  assert.ok(wrong.lineText.startsWith('wert = "ä🦀"'));
  const inBytes = (await stage.diagnostics('py/main.py', { encoding: 'utf-8' })).diagnostics[0];
  assert.equal(inBytes.range.start.character, Buffer.byteLength('wert = "ä🦀"; result: int = '));

  // by the files API, and in another file than the one that is wrong
  await stage.client.writeFsFile({ path: stage.at('py/main.py') }, PYTHON['py/main.py']);
  stage.project({ 'ts/src/greet.ts': TYPESCRIPT['ts/src/greet.ts'].replace(': string {\n  return `hi ${name}`', ': number {\n  return name.length') });
  await Promise.all([stage.untilCodes('py/main.py', []), stage.untilCodes('ts/src/main.ts', [])]);
  const servers = await stage.servers();
  assert.deepEqual(servers.map(({ server, state }) => [server, state]).sort(), [['pyright', 'running'], ['typescript', 'running']]);
});

scenario('a folder is looked at as a whole, and what is known is told at once', async (stage) => {
  stage.project({ ...C, 'c/wrong.c': '#include "add.h"\n\nint wrong(void) { int unused; return add("x", 1); }\n', 'c/notes.txt': 'no language' });
  const files = await stage.diagnostics('c');
  const counts = files.map(({ path: file, diagnostics }) => [file.split('/').at(-1), diagnostics.length]);
  assert.deepEqual(counts, [['add.c', 0], ['add.h', 0], ['main.c', 0], ['wrong.c', 2]]);
  const known = await stage.diagnostics('c', { known: true });
  assert.deepEqual(known.filter(({ diagnostics }) => diagnostics.length).map(({ path: file }) => file.split('/').at(-1)), ['wrong.c']);
});

scenario('questions about a place are answered over files', async (stage) => {
  stage.project({ ...PYTHON, ...TYPESCRIPT });
  const at = { line: 2, atText: 'total' };
  const hover = await stage.ask('hover', 'py/main.py', at);
  assert.equal(hover.server, 'pyright');
  assert.match(hover.result.contents, /def total\(shapes: list\[Shape\]\) -> float/);
  const { result: { locations: [definition] } } = await stage.ask('definition', 'py/main.py', at);
  assert.deepEqual([definition.path, definition.range.start, definition.lineText], [stage.at('py/shapes.py'), { line: 12, character: 4 }, 'def total(shapes: list[Shape]) -> float:']);
  const { result: { locations: references } } = await stage.ask('references', 'py/shapes.py', { line: 12, character: 5 });
  assert.deepEqual(references.map(({ path: file, range }) => [file.split('/').at(-1), range.start.line]).sort(), [['main.py', 0], ['main.py', 2], ['shapes.py', 12]]);
  const { result: symbols } = await stage.ask('document-symbols', 'py/shapes.py');
  assert.deepEqual(symbols.map(({ name, kind }) => [name, kind]), [['Shape', 'class'], ['Circle', 'class'], ['total', 'function']]);
  assert.equal(symbols[0].children[0].name, 'area');
  const { result: named } = await stage.ask('workspace-symbols', 'py/main.py', { query: 'Circ' });
  assert.deepEqual(named.symbols.map(({ name, path: file }) => [name, file]), [['Circle', stage.at('py/shapes.py')]]);
  const { result: calls } = await stage.ask('call-hierarchy', 'py/shapes.py', { line: 12, atText: 'total', direction: 'incoming' });
  assert.equal(calls.items[0].calls[0].path, stage.at('py/main.py'));

  const { result: { items } } = await stage.ask('completion', 'ts/src/main.ts', { line: 2, character: 30, limit: 1000 });
  const item = items.find(({ label }) => label === 'greet');
  const { result: more } = await stage.ask('completion/resolve', 'ts/src/main.ts', { item: item.item });
  assert.match(more.detail, /greet/);
  const { result: signature } = await stage.ask('signature-help', 'ts/src/main.ts', { line: 2, character: "export const text: string = greet(".length });
  assert.match(signature.signatures[0].label, /greet\(name: string\)/);
  const { result: { tokens } } = await stage.ask('semantic-tokens', 'ts/src/main.ts');
  assert.ok(tokens.some(({ line, type }) => line === 2 && type === 'function'), JSON.stringify(tokens));
  const { result: folds } = await stage.ask('folding-ranges', 'ts/src/greet.ts');
  assert.equal(folds[0].startLine, 0);
  const { result: none } = await stage.ask('definition', 'ts/src/main.ts', { line: 1, character: 0 });
  assert.deepEqual(none.locations, []);
});

scenario('a rename is planned, applied over files, and taken back by the history', async (stage) => {
  stage.project(TYPESCRIPT);
  const question = { line: 0, atText: 'greet', newName: 'welcome' };
  const plan = await stage.ask('rename', 'ts/src/greet.ts', question);
  assert.equal(plan.applied, false);
  assert.deepEqual(plan.files.map(({ path: file, edits }) => [file.split('/').at(-1), edits.map(({ oldText, newText }) => [oldText, newText])]), [
    ['greet.ts', [['greet', 'welcome']]],
    ['main.ts', [['greet', 'welcome'], ['greet', 'welcome']]],
  ]);
  assert.equal(stage.read('ts/src/main.ts'), TYPESCRIPT['ts/src/main.ts']);

  const made = await stage.ask('rename', 'ts/src/greet.ts', { ...question, apply: true });
  assert.equal(made.applied, true);
  assert.equal(stage.read('ts/src/main.ts'), "import { welcome } from './greet';\n\nexport const text: string = welcome('x');\n");
  await stage.untilCodes('ts/src/main.ts', []);
  for (const { editId } of made.files.reverse()) {
    const { status, body } = await stage.call('POST', `fs/edits/${editId}/rollback`);
    assert.equal(status, 200, JSON.stringify(body));
  }
  assert.equal(stage.read('ts/src/main.ts'), TYPESCRIPT['ts/src/main.ts']);
  assert.equal(stage.read('ts/src/greet.ts'), TYPESCRIPT['ts/src/greet.ts']);
});

scenario('a server is installed, its proposals are made, and files are formatted', async (stage) => {
  stage.project({ ...PYTHON, 'py/untidy.py': 'import os\nimport sys\n\nprint( sys.argv )\n' });
  const before = (await stage.call('GET', 'lsp/catalogue')).body.servers.find(({ server }) => server === 'ruff');
  assert.ok(before.help.includes('/v1/lsp/install') || before.installed);
  const { status, body } = await stage.call('POST', 'lsp/install', { server: 'ruff' });
  assert.equal(status, 200, JSON.stringify(body));
  const { diagnostics } = await stage.diagnostics('py/untidy.py');
  const unused = diagnostics.find(({ server, code }) => server === 'ruff' && code === 'F401');
  assert.ok(unused, JSON.stringify(diagnostics));
  const { actions } = await stage.ask('code-actions', 'py/untidy.py', { range: unused.range, only: ['quickfix'] });
  const remove = actions.find(({ server, title }) => server === 'ruff' && /Remove unused import/.test(title));
  assert.ok(remove, JSON.stringify(actions.map(({ title }) => title)));
  const made = await stage.ask('code-actions/apply', 'py/untidy.py', { server: 'ruff', action: remove.action });
  assert.equal(made.applied, true);
  assert.equal(stage.read('py/untidy.py'), 'import sys\n\nprint( sys.argv )\n');
  const formatted = await stage.ask('format', 'py/untidy.py', { apply: true });
  assert.equal(formatted.server, 'ruff');
  assert.equal(stage.read('py/untidy.py'), 'import sys\n\nprint(sys.argv)\n');
  await until(async () => (await stage.diagnostics('py/untidy.py')).diagnostics.every(({ server }) => server !== 'ruff'), 'nothing to say');
}, { registries: true });

scenario('what would be is told, and nothing is written', async (stage) => {
  stage.project(TYPESCRIPT);
  await stage.untilCodes('ts/src/main.ts', []);
  const text = TYPESCRIPT['ts/src/main.ts'].replace(': string', ': boolean');
  const check = await stage.ask('check', 'ts/src/main.ts', { text, waitMs: 20_000 });
  assert.deepEqual(check.diagnostics.map(({ code }) => code), ['2322']);
  const hover = await stage.ask('hover', 'ts/src/main.ts', { text, line: 2, atText: 'text' });
  assert.match(hover.result.contents, /boolean/);
  assert.equal(stage.read('ts/src/main.ts'), TYPESCRIPT['ts/src/main.ts']);
  await stage.untilCodes('ts/src/main.ts', []);
});

scenario('a server that is killed comes back with what it had open, and can be stopped', async (stage) => {
  stage.project({ ...C, 'c/wrong.c': 'int wrong(void) { int unused; return 1; }\n' });
  await stage.untilCodes('c/wrong.c', ['-Wunused-variable']);
  const [{ id, pid }] = await stage.servers();
  process.kill(pid, 'SIGKILL');
  await until(async () => {
    const [server] = await stage.servers();
    return server.restarts === 1 && server.state === 'running' && server.pid !== pid && server.openFiles === 1;
  }, 'another process');
  await stage.untilCodes('c/wrong.c', ['-Wunused-variable']);
  const { body: again } = await stage.call('POST', `lsp/servers/${id}/restart`);
  assert.equal(again.state, 'running');
  await until(async () => { // it looks at the project first
    const { body: raw } = await stage.call('POST', `lsp/servers/${id}/request`, { method: 'workspace/symbol', params: { query: 'wrong' } });
    return raw.result[0]?.name === 'wrong';
  }, 'a name');
  assert.equal((await stage.call('POST', `lsp/servers/${id}/request`, { method: 'shutdown' })).status, 400);
  assert.ok((await stage.call('GET', `lsp/servers/${id}/capabilities`)).body.capabilities.hoverProvider);
  assert.match((await stage.call('GET', `lsp/servers/${id}/logs`)).body.stderr, /initialize/);
  assert.equal((await stage.call('DELETE', `lsp/servers/${id}`)).status, 204);
  assert.deepEqual(await stage.servers(), []);
  assert.ok(!fs.existsSync(`/proc/${again.pid}`));
});

scenario('what an agent breaks is told in its session, without anybody asking', async (stage) => {
  stage.project({ ...TYPESCRIPT, ...PYTHON });
  await Promise.all([stage.untilCodes('ts/src/main.ts', []), stage.untilCodes('py/main.py', [])]); // they run
  const { body: { id } } = await stage.call('POST', 'sessions', { agent: 'mock', cwd: stage.server.workDir });
  for (const [file, text, code] of [
    ['ts/src/new.ts', "export const wrong: number = 'text';\n", '2322'],
    ['py/new.py', 'wrong: int = "text"\n', 'reportAssignmentType'],
  ]) {
    fs.writeFileSync(stage.at(file), text); // as a shell of the agent does
    const found = await until(async () => {
      const { body } = await stage.call('GET', `sessions/${id}/events?limit=200`);
      return body.events.map(({ payload, data, ...event }) => ({ ...event, ...(payload?.data ?? payload ?? data) }))
        .find((event) => JSON.stringify(event).includes('lsp.diagnostics') && JSON.stringify(event).includes(file));
    }, `an event about ${file}`);
    assert.ok(JSON.stringify(found).includes(code), JSON.stringify(found));
  }
});

scenario('what is wrong with a question is said', async (stage) => {
  stage.project({ ...C, 'x.unknown': '', 'x.go': 'package x\n', 'binary.c': Buffer.from([0xff, 0xfe, 0, 1]) });
  const problem = async (what, body) => (await stage.call('POST', `lsp/${what}`, body));
  const code = async (what, body) => {
    const { status, body: { code: said } } = await problem(what, body);
    return [status, said];
  };
  assert.deepEqual(await code('hover', { path: stage.at('x.unknown'), line: 0, character: 0 }), [400, 'no_language_server']);
  assert.deepEqual(await code('hover', { path: stage.at('x.go'), line: 0, character: 0 }), [404, 'language_server_not_installed']);
  assert.deepEqual(await code('hover', { path: stage.at('binary.c'), line: 0, character: 0 }), [400, 'not_text']);
  assert.equal((await problem('hover', { path: stage.at('missing.c'), line: 0, character: 0 })).status, 400);
  assert.match((await problem('hover', { path: stage.at('c/main.c') })).body.detail, /`line`/);
  assert.match((await problem('hover', { path: stage.at('c/main.c'), line: 99, character: 0 })).body.detail, /line 99/);
  assert.match((await problem('hover', { path: stage.at('c/main.c'), line: 0, atText: 'nowhere' })).body.detail, /nowhere/);
  assert.deepEqual(await code('hover', { path: stage.at('c/main.c'), line: 0, character: 0, server: 'none' }), [404, 'not_found']);
  assert.equal((await stage.call('GET', 'lsp/servers/lsp_99')).status, 404);
});
