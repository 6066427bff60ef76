// Which server the tests run against: ours, or with AGAINST=reference the one whose contract we keep.

import fs from 'node:fs';
import net from 'node:net';
import path from 'node:path';
import { fileURLToPath } from 'node:url';

const npmDir = path.resolve(path.dirname(fileURLToPath(import.meta.url)), '..');
const REFERENCE = path.join(npmDir, 'node_modules/@sandbox-agent/cli-linux-x64/bin/sandbox-agent');
const OURS = path.join(npmDir, '../../target/debug/sandboxd');

if (!['reference', 'ours', '', undefined].includes(process.env.AGAINST)) {
  throw new Error(`AGAINST is "${process.env.AGAINST}"; it must be "ours" or "reference"`);
}

export const isReference = process.env.AGAINST === 'reference';

export const binary = isReference ? REFERENCE : path.resolve(process.env.SANDBOXD_BIN ?? OURS);

/** Throws when the binary is missing. The package of the reference ships it without the permission to run. */
export function prepareBinary() {
  if (!fs.existsSync(binary)) throw new Error(`${binary} is missing: run "cargo build", or name a binary in SANDBOXD_BIN`);
  if (isReference) fs.chmodSync(binary, 0o755);
}

/** The reference does not say which port the system chose, so one is looked for before it starts. */
export async function portToAskFor(known) {
  return known || !isReference ? known : freePort();
}

function freePort() {
  return new Promise((resolve, reject) => {
    const probe = net.createServer().once('error', reject);
    probe.listen(0, '127.0.0.1', () => {
      const { port } = probe.address();
      probe.close(() => resolve(port));
    });
  });
}
