// What a run of the chaos test has in common: its dice, its violations, its figures.

import { Dice } from '../dice.mjs';

const SHOWN_VIOLATIONS = 40;
const SHOWN_CHARS = 600;

export class Ledger {
  violations = [];
  /** What the server complained of. */
  warnings = [];
  figures = { kills: 0, envelopes: 0, bytes: 0, processes: 0, turns: 0, decisions: 0, typed: 0, neverSent: 0 };

  constructor(seed) {
    this.seed = seed;
  }

  /** Something happened that must not. */
  violate(what) {
    const text = `${new Date().toISOString()} ${what}`;
    if (this.violations.push(text) <= SHOWN_VIOLATIONS) console.log(`violation: ${text.slice(0, SHOWN_CHARS)}`);
  }

  /** True when `holds`; else it is a violation. */
  check(holds, what) {
    if (!holds) this.violate(typeof what === 'function' ? what() : what);
    return Boolean(holds);
  }

  count(figure, by = 1) {
    this.figures[figure] += by;
  }

  /** All violations, as a text to fail with. */
  report() {
    const shown = this.violations.slice(0, SHOWN_VIOLATIONS).map((text) => text.slice(0, SHOWN_CHARS));
    return `${this.violations.length} violations with CHAOS_SEED=${this.seed}:\n${shown.join('\n')}`;
  }

  /** Dice of its own for `name`, so that the course of others doesn't change its throws. */
  dice(name) {
    return new Dice(`${this.seed}/${name}`);
  }
}

/** Where two texts part, for a message. */
export function parting(actual, expected) {
  let at = 0;
  while (at < actual.length && actual[at] === expected[at]) at += 1;
  const around = (text) => JSON.stringify(text.slice(Math.max(0, at - 30), at + 50));
  return `${actual.length} instead of ${expected.length} characters; at ${at}: ${around(actual)} instead of ${around(expected)}`;
}
