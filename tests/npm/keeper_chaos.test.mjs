// Everything at once on one server with a keeper, which is killed at random: nothing that runs may notice, and no client may
// miss or see twice anything. CHAOS_KILLS says how often, CHAOS_SEED repeats the dice of an earlier run.

import assert from 'node:assert/strict';
import fs from 'node:fs';
import { test } from 'node:test';
import { setTimeout as sleep } from 'node:timers/promises';

import { equip } from './lib/agents.mjs';
import { AllEvents } from './lib/chaos/all_events.mjs';
import { Jobs } from './lib/chaos/jobs.mjs';
import { Ledger } from './lib/chaos/ledger.mjs';
import { Member } from './lib/chaos/members.mjs';
import { Pulse } from './lib/chaos/pulse.mjs';
import { record } from './lib/chaos/recorder.mjs';
import { Terminals } from './lib/chaos/terminals.mjs';
import { startModelProvider } from './lib/model_provider.mjs';
import { Server } from './lib/server.mjs';
import { SessionClient } from './lib/session_client.mjs';
import { binary, isReference } from './lib/target.mjs';
import { guard } from './lib/wait.mjs';

const KILLS = Number(process.env.CHAOS_KILLS ?? 25);
const SEED = process.env.CHAOS_SEED ?? String(Math.floor(Math.random() * 1e9));
const TERMINALS = 20;
const JOBS = 20;
/** Agent, and the door for its prompts. */
const CROWD = [
  ['claude', 'sessions'], ['claude', 'acp'], ['codex', 'sessions'], ['codex', 'acp'], ['opencode', 'sessions'], ['opencode', 'acp'],
  ['mock', 'sessions'], ['mock', 'sessions'], ['mock', 'acp'], ['mock', 'acp'],
];
const GUARD_MS = 120_000 + KILLS * 20_000;

test(`nothing dies with the server, killed ${KILLS} times`, { skip: isReference }, async () => {
  console.log(`CHAOS_SEED=${SEED} CHAOS_KILLS=${KILLS}`);
  const server = new Server({ kept: true });
  const provider = await startModelProvider();
  const ledger = new Ledger(SEED);
  let failure;
  try {
    await guard(chaos(server, provider, ledger), 'the end of the chaos', GUARD_MS);
  } catch (error) {
    failure = error;
  }
  await server.close().catch((error) => { failure ??= error; });
  await provider.stop();
  console.log(JSON.stringify(ledger.figures));
  for (const line of ledger.warnings.slice(0, 50)) console.log(line);
  if (ledger.violations.length) failure = new Error(`${ledger.report()}\n${failure?.stack ?? ''}`);
  if (failure) throw failure;
});

async function chaos(server, provider, ledger) {
  Object.assign(server.env, { SANDBOXD_KEEPER_CRASHES_MAX: '1000000', SANDBOXD_PROCESS_LOG_MAX_BYTES: String(2 ** 30), RUST_LOG: 'warn' });
  const names = [...new Set(CROWD.map(([agent]) => agent))];
  for (const name of names) equip(server, name, provider);
  const records = names.map((name) => record(server, name, binary)).at(-1);
  server.onStderr = listenTo(ledger);
  await server.start();
  const client = new SessionClient(server.url, { patient: true });
  const stage = { server, client, ledger, records };
  const all = new AllEvents(server.url, ledger);
  const members = await gather(stage);
  const terminals = await Terminals.open(stage, TERMINALS);
  const jobs = new Jobs(stage, JOBS);
  const pulse = new Pulse(server.url);
  for (const member of members) member.begin();
  await sleep(2000);

  await killAgainAndAgain(stage, { members, terminals, jobs, pulse });

  ledger.figures.clientCutMs = Math.round(terminals.ticking.longestSilenceMs);
  ledger.figures.longestGapMs = Math.round(pulse.longestGapMs);
  ledger.check(pulse.refusals.length === 0, () => `health said ${pulse.refusals}`);
  ledger.check(pulse.refusedConnects === 0, () => `${pulse.refusedConnects} connects were refused`);
  await Promise.all([...members.map((member) => member.end().catch((error) => ledger.violate(`${member.name}: ${error.stack}`))), jobs.end(), terminals.end()]);
  await pulse.stop();
  await all.end(client);
  assertNothingStrange(stage, members);
}

/** What the server says beside its deaths belongs to the report. */
function listenTo(ledger) {
  let rest = '';
  return (text) => {
    const lines = (rest + text).split('\n');
    rest = lines.pop();
    const isUsual = (line) => line.startsWith('sandboxd keeper: ') || line.includes('ended unexpectedly');
    ledger.warnings.push(...lines.filter((line) => line && !isUsual(line)));
  };
}

/** One agent of a kind after the other: Codex processes that create their database at the same time fail each other. */
async function gather(stage) {
  const members = await Promise.all([...new Set(CROWD.map(([agent]) => agent))].map(async (agent) => {
    const joined = [];
    for (const [number, [, door]] of CROWD.filter(([name]) => name === agent).entries()) joined.push(await Member.join(stage, { agent, door, number }));
    return joined;
  }));
  return members.flat();
}

async function killAgainAndAgain(stage, { members, terminals, jobs, pulse }) {
  const { server, ledger } = stage;
  const dice = ledger.dice('kills');
  const times = [];
  const steady = [...members, ...terminals.all].map(({ name, pid, id }) => ({ name, pid, id, since: startOf(pid) }));
  for (let kill = 0; kill < KILLS; kill += 1) {
    // Every fourth comes while the server is just starting.
    await sleep(dice.throw() < 0.25 ? dice.between(0, 150) : dice.between(300, 4000));
    await server.crash();
    const killed = performance.now();
    ledger.count('kills');
    if (kill % 50 === 49) console.log(`${kill + 1} kills, ${ledger.violations.length} violations, ${JSON.stringify(ledger.figures)}`);
    if (dice.throw() < 0.15) continue; // the next one comes before it answers
    times.push(await pulse.next() - killed);
    await assertLives(stage, steady, jobs);
    for (const { audit } of members) audit.compare();
    if (ledger.violations.length > 100) break;
  }
  times.sort((one, other) => one - other);
  Object.assign(ledger.figures, { healthyMedianMs: Math.round(times[times.length >> 1]), healthyMaxMs: Math.round(times.at(-1)) });
}

/** What ran is still the same process, and the server knows it as such. */
async function assertLives({ client, ledger }, steady, jobs) {
  for (const { name, pid, since } of steady) ledger.check(startOf(pid) === since, () => `${name} (pid ${pid}) died`);
  const { processes } = await client.call('GET', '/v1/processes?owner=all');
  const known = new Map(processes.map((process) => [process.pid, process]));
  for (const { name, pid } of steady) {
    ledger.check(known.get(pid)?.status === 'running', () => `${name} (pid ${pid}) is ${JSON.stringify(known.get(pid))}`);
  }
  const byId = new Map(processes.map((process) => [process.id, process]));
  for (const { id, pid, serial } of jobs.alive.values()) {
    const told = byId.get(id);
    ledger.check(told?.status !== 'running' || told.pid === pid, () => `process ${serial} (${id}) has pid ${told.pid} instead of ${pid}`);
  }
}

/** When a process was started, in ticks; none when it is gone. */
function startOf(pid) {
  try {
    const stat = fs.readFileSync(`/proc/${pid}/stat`, 'utf8');
    const fields = stat.slice(stat.lastIndexOf(')') + 2).split(' ');
    return fields[0] === 'Z' ? undefined : fields[19];
  } catch {
    return undefined;
  }
}

/** What still runs belongs to the agents. */
function assertNothingStrange({ server, ledger }, members) {
  const entries = server.processes();
  const parents = new Map(entries.map(({ pid, parentPid }) => [pid, parentPid]));
  const pids = new Set(members.map(({ pid }) => pid));
  const isOurs = (pid) => pid !== undefined && (pids.has(pid) || isOurs(parents.get(pid)));
  const strangers = entries.filter(({ pid }) => !isOurs(pid));
  ledger.check(strangers.length === 0, () => `nobody knows ${JSON.stringify(strangers)}`);
  assert.ok(ledger.figures.turns > 0 && ledger.figures.processes > 0);
}
