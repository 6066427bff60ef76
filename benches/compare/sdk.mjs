// Times the published TypeScript SDK against two servers, taking turns, and prints one JSON line.
//
// usage: SDK_DIR=<directory with node_modules/sandbox-agent> node sdk.mjs OURS_URL REFERENCE_URL ROUNDS
//
// Each round: connect, wait for health (not timed), createSession({agent: "mock"}), dispose().
//   firstEventMs  from the call of createSession to the first event whose sender is the agent
//   createMs      from the call of createSession until it resolves
//   disposeMs     from the call of dispose until it resolves
// The event listener is put on a session id of our choice before the session exists. No prompt is sent: the mock
// agent of the reference gives no session id to prompt with.
import { dirname, join, resolve } from "node:path";
import { fileURLToPath, pathToFileURL } from "node:url";

const here = dirname(fileURLToPath(import.meta.url));
const sdkDir = resolve(process.env.SDK_DIR ?? join(here, "../../tests/npm"));
const entry = join(sdkDir, "node_modules/sandbox-agent/dist/index.js");
const { SandboxAgent } = await import(pathToFileURL(entry).href);

const STEP_LIMIT_MS = 10_000;
// Node compiles while it runs: the first rounds time the compiler.
const WARM_UP_ROUNDS = 3;
const [oursUrl, referenceUrl, rounds] = process.argv.slice(2);
const sides = { ours: oursUrl, reference: referenceUrl };

/** Rejects when the promise takes longer than the limit. */
function bounded(promise, what) {
  let timer;
  const late = new Promise((_, reject) => {
    timer = setTimeout(() => reject(new Error(`${what}: not within ${STEP_LIMIT_MS} ms`)), STEP_LIMIT_MS);
  });
  return Promise.race([promise, late]).finally(() => clearTimeout(timer));
}

async function round(baseUrl) {
  const sdk = await SandboxAgent.connect({ baseUrl });
  await bounded(sdk.getHealth(), "getHealth");
  const id = `bench-${crypto.randomUUID()}`;
  const firstEvent = withResolvers();
  sdk.onSessionEvent(id, (event) => {
    if (event.sender === "agent") firstEvent.resolve(performance.now());
  });
  const begin = performance.now();
  const create = sdk.createSession({ id, agent: "mock" }).then(() => performance.now());
  const created = await bounded(create, "createSession");
  const seen = await bounded(firstEvent.promise, "first event");
  const closing = performance.now();
  await bounded(sdk.dispose(), "dispose");
  return { firstEventMs: seen - begin, createMs: created - begin, disposeMs: performance.now() - closing };
}

function withResolvers() {
  let resolvePromise;
  const promise = new Promise((done) => {
    resolvePromise = done;
  });
  return { promise, resolve: resolvePromise };
}

const result = {};
for (const side of Object.keys(sides)) result[side] = { firstEventMs: [], createMs: [], disposeMs: [] };
for (let n = -WARM_UP_ROUNDS; n < Number(rounds); n += 1) {
  const order = Object.entries(sides);
  if (n % 2 !== 0) order.reverse();
  for (const [side, url] of order) {
    const times = await round(url);
    if (n < 0) continue;
    for (const [name, value] of Object.entries(times)) result[side][name].push(value);
  }
}
console.log(JSON.stringify(result));
process.exit(0);
