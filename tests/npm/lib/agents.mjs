// The agents under test: what a fresh home has to hold, how to recognise their processes, and which prompt text makes
// each of them do a thing.

import fs from 'node:fs';
import path from 'node:path';
import { fileURLToPath } from 'node:url';

const packageDir = path.dirname(path.dirname(fileURLToPath(import.meta.url)));
const nodeBin = path.join(packageDir, 'node_modules/.bin');
const opencodeBinary = path.join(packageDir, 'node_modules/opencode-linux-x64-baseline/bin/opencode');

/** What the model provider understands; `mock` has words of its own. */
const modelScript = {
  drip: (count, pauseMs) => `DRIP: ${count} ${pauseMs}`,
  createFile: (file) => `RUN: touch ${file}`,
  createFileUnasked: (file) => `TRY: touch ${file}`,
  hang: 'HANG',
};

export const agents = {
  mock: {
    processPattern: /mock/,
    createFile: (file) => `/tool ${file}`,
    drip: (count, pauseMs) => Array.from({ length: count }, (_, index) => `drop${index} \n/sleep ${pauseMs}`).join('\n'),
    hang: '/stream 2\n/stall',
    // What a mock says has no memory behind it, so no test can ask it for history.
    hasModel: false,
  },
  claude: {
    ...modelScript,
    hasModel: true,
    executable: path.join(nodeBin, 'claude-agent-acp'),
    processPattern: /claude-agent-acp/,
    permissiveMode: 'bypassPermissions',
    environment: (provider) => ({
      ANTHROPIC_BASE_URL: provider.url,
      ANTHROPIC_API_KEY: 'any',
      IS_SANDBOX: '1',
      CLAUDE_CODE_DISABLE_NONESSENTIAL_TRAFFIC: '1',
      DISABLE_TELEMETRY: '1',
      DISABLE_AUTOUPDATER: '1',
    }),
    files: () => ({}),
    // Claude Code writes its transcript some time after the turn has ended.
    hasSaved: (home, text) => grepTree(path.join(home, '.claude/projects'), text),
    memory: { directory: '.claude', names: /^projects$/ },
  },
  codex: {
    ...modelScript,
    hasModel: true,
    executable: path.join(nodeBin, 'codex-acp'),
    processPattern: /codex-acp/,
    permissiveMode: 'agent-full-access',
    // In Codex's default mode a reviewing model decides instead of the user.
    environment: () => ({ OPENAI_API_KEY: 'any', INITIAL_AGENT_MODE: 'read-only' }),
    files: (provider) => ({
      '.codex/config.toml': [
        'model = "fake-model"',
        'model_provider = "fake"',
        '[model_providers.fake]',
        'name = "fake"',
        `base_url = "${provider.url}/v1"`,
        'env_key = "OPENAI_API_KEY"',
        'wire_api = "responses"',
        '',
      ].join('\n'),
    }),
    hasSaved: (home, text) => grepTree(path.join(home, '.codex/sessions'), text),
    // Without the sessions alone it says that it resumed one, and then knows none.
    memory: { directory: '.codex', names: /^sessions$|sqlite/ },
  },
  opencode: {
    ...modelScript,
    hasModel: true,
    executable: opencodeBinary,
    processPattern: /opencode acp/,
    permissiveMode: 'free',
    environment: () => ({ OPENCODE_DISABLE_AUTOUPDATE: '1', OPENCODE_DISABLE_MODELS_FETCH: '1', OPENCODE_DISABLE_LSP_DOWNLOAD: '1' }),
    files: (provider) => ({
      '.config/opencode/opencode.json': JSON.stringify({
        model: 'anthropic/claude-sonnet-4-5',
        permission: { bash: 'ask' },
        agent: { free: { mode: 'primary', permission: { bash: 'allow' } } },
        provider: { anthropic: { options: { baseURL: `${provider.url}/v1`, apiKey: 'any' } } },
      }),
    }),
    // A transaction of its database ends each turn.
    hasSaved: () => true,
    memory: { directory: '.local/share', names: /^opencode$/ },
  },
};

/** Makes `server`, not yet started, find the agent `name` and the model `provider`; more than one agent can be there. */
export function equip(server, name, provider) {
  const agent = agents[name];
  if (!agent.hasModel) return;
  if (!fs.existsSync(agent.executable)) {
    const missing = path.relative(packageDir, agent.executable);
    throw new Error(`${name}: ${missing} is missing; run tests/npm/run.sh, which installs it (linux on x64)`);
  }
  for (const [file, text] of Object.entries(agent.files(provider))) {
    fs.mkdirSync(path.dirname(path.join(server.home, file)), { recursive: true });
    fs.writeFileSync(path.join(server.home, file), text);
  }
  const bin = path.join(server.home, 'agent-bin');
  if (!fs.existsSync(bin)) {
    fs.mkdirSync(bin);
    fs.symlinkSync(opencodeBinary, path.join(bin, 'opencode'));
    server.env.PATH = `${bin}:${nodeBin}:${server.env.PATH}`;
  }
  Object.assign(server.env, agent.environment(provider));
}

function grepTree(directory, text) {
  if (!fs.existsSync(directory)) return false;
  const entries = fs.readdirSync(directory, { recursive: true, withFileTypes: true });
  const files = entries.filter((entry) => entry.isFile());
  return files.some((entry) => fs.readFileSync(path.join(entry.parentPath ?? entry.path, entry.name), 'utf8').includes(text));
}
