// How late, how smooth and how costly the desktop's live stream is, as one table.
//
// usage: node main.mjs --ours SERVER [--card TEST_CARD] [--seconds N]
//
// A test card (crates/x-desktop/examples/test_card.rs) draws the clock into a screen of 1280×720, thirty times a second; Debian's
// Chromium, headless, shows our page, and a script in it reads the clock of each frame that is shown. Server, X server, card and
// browser share this machine: what they cost each other is in the figures.

import path from 'node:path';
import { fileURLToPath } from 'node:url';
import { parseArgs } from 'node:util';

const root = path.resolve(path.dirname(fileURLToPath(import.meta.url)), '../..');
const { values } = parseArgs({
  options: {
    ours: { type: 'string' },
    card: { type: 'string', default: path.join(root, 'target/release/examples/test_card') },
    seconds: { type: 'string', default: '10' },
  },
});
if (!values.ours) throw new Error('--ours SERVER is missing');
process.env.SANDBOXD_BIN = path.resolve(values.ours); // before it is read: an import reads it

const { Bench } = await import('./bench.mjs');
const { table } = await import('./report.mjs');

const bench = await Bench.start({ card: path.resolve(values.card), seconds: Number(values.seconds) });
try {
  console.log(table(await bench.run()));
} finally {
  await bench.close();
}
