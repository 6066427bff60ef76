// A language server that misbehaves, in each way: callers are told, nothing hangs, nothing else suffers.

import assert from 'node:assert/strict';

import { lspScenario as scenario } from './lib/lsp_scenario.mjs';
import { until } from './lib/wait.mjs';

const FILE = { 'a.odd': 'old text\n' };
const HOVER = { line: 0, character: 0 };

/** A question that can't be answered; resolves to the problem. */
async function fails(stage, question = {}) {
  const { status, body } = await stage.call('POST', 'lsp/hover', { path: stage.at('a.odd'), ...HOVER, ...question });
  assert.notEqual(status, 200, JSON.stringify(body));
  return { status, ...body };
}

scenario('one that is silent: the question ends in time, and the server is told so', async (stage) => {
  stage.odd('silent');
  stage.project(FILE);
  assert.deepEqual([(await fails(stage, { timeoutMs: 300 })).status, (await fails(stage, { timeoutMs: 300 })).code], [504, 'timeout']);
  await until(() => stage.oddHeard().filter(({ method }) => method === '$/cancelRequest').length === 2, 'two cancellations');

  const abort = new AbortController();
  const asking = stage.call('POST', 'lsp/hover', { path: stage.at('a.odd'), ...HOVER }, { signal: abort.signal }).catch(({ name }) => name);
  await until(() => stage.oddHeard().filter(({ method }) => method === 'textDocument/hover').length === 3, 'the question');
  abort.abort();
  assert.equal(await asking, 'AbortError');
  await until(() => stage.oddHeard().filter(({ method }) => method === '$/cancelRequest').length === 3, 'the cancellation of one that left');
  const { diagnostics, current } = await stage.diagnostics('a.odd', { waitMs: 200 });
  assert.deepEqual([diagnostics, current], [[], false]);
});

for (const [mode, why] of [['crash', /exit code 7|code 7|7/], ['rubbish', /Listening on port 7/], ['oversize', /9999999999/]]) {
  scenario(`one that ends by ${mode} is started again, and then left alone`, async (stage) => {
    stage.odd(mode);
    stage.project(FILE);
    const first = await fails(stage, { timeoutMs: 5_000 });
    assert.equal(first.status, 502, JSON.stringify(first));
    const again = await until(async () => (await stage.servers()).find(({ state, restarts }) => state === 'running' && restarts === 1), 'another start');
    const heard = stage.oddHeard();
    assert.equal(heard.filter(({ method }) => method === 'initialize').length, 2);
    await until(() => stage.oddHeard().filter(({ method }) => method === 'textDocument/didOpen').length === 2, 'the file, again');
    let told;
    await until(async () => {
      told = JSON.stringify((await stage.call('GET', 'events?stream=lsp')).body);
      return why.test(told);
    }, `why it ended`, 5_000).catch((error) => assert.fail(`${error.message}: ${told}`));
    assert.equal(again.server, 'odd');
  });
}

scenario('one that ends at each start fails, says why, and is tried again when asked to', async (stage) => {
  stage.odd('no-such-mode; exit 3;');
  stage.project(FILE);
  const failed = await until(async () => {
    await stage.call('POST', 'lsp/hover', { path: stage.at('a.odd'), ...HOVER, timeoutMs: 100 });
    return (await stage.servers()).find(({ state }) => state === 'failed');
  }, 'no further start', 100_000);
  assert.match(failed.why, /ended/);
  stage.odd('stale');
  const { body } = await stage.call('POST', `lsp/servers/${failed.id}/restart`);
  assert.equal(body.state, 'running', JSON.stringify(body));
});

scenario('one that gives up because a text changed is asked again', async (stage) => {
  stage.odd('stale');
  stage.project(FILE);
  assert.equal((await stage.ask('hover', 'a.odd', HOVER)).result.contents, 'at last');
});

scenario('one that floods is read to the end, and answered', async (stage) => {
  stage.odd('flood');
  stage.project(FILE);
  assert.equal((await stage.ask('hover', 'a.odd', HOVER)).result.contents, 'done');
  await until(() => stage.oddHeard().filter(({ id, result }) => String(id).startsWith('ask-') && Array.isArray(result)).length === 100, 'all answers');
  const { diagnostics } = await stage.diagnostics('a.odd');
  assert.deepEqual(diagnostics.map(({ message }) => message), ['flood 19999']);
});

scenario('one that wants an edit gets it made, and it is in the history', async (stage) => {
  stage.odd('edits');
  stage.project(FILE);
  const { result } = await stage.ask('hover', 'a.odd', HOVER);
  assert.equal(JSON.parse(result.contents).applied, true);
  assert.equal(stage.read('a.odd'), 'new text\n');
  const { body } = await stage.call('GET', 'fs/edits');
  assert.equal(body.edits[0].path, stage.at('a.odd'));
});
