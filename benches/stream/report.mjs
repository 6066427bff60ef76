// The figures as a table.

import { MODES } from './bench.mjs';

const part = (sorted, share) => (sorted.length ? String(sorted[Math.min(sorted.length - 1, Math.floor(sorted.length * share))]) : '–');
const bits = (bps) => (bps < 999_500 ? `${(bps / 1000).toFixed(bps < 10_000 ? 1 : 0)} kbit/s` : `${(bps / 1e6).toFixed(1)} Mbit/s`);

/** Of `run` of the bench, in Markdown. */
export function table(ways) {
  const rows = [];
  const row = (name, cell) => rows.push([name, ...ways.map((way) => cell(way) ?? '')]);
  row('first frame after the page began, ms', ({ modes }) => modes.clock.firstMs.toFixed(0));
  for (const mode of MODES.filter((name) => name !== 'still')) {
    const of = (show) => ({ modes }) => show(modes[mode]);
    row(`${mode}: seen after, ms (half, 95 %)`, of(({ latencies }) => `${part(latencies, 0.5)}, ${part(latencies, 0.95)}`));
    row(`${mode}: frames shown a second`, of(({ fps }) => fps.toFixed(1)));
  }
  for (const mode of MODES) row(`${mode}: sent`, ({ modes }) => bits(modes[mode].bps));
  const cost = (name) => ({ cpu }) => cpu[name] && `${cpu[name].percent.toFixed(1)} %${cpu[name].fps ? ` (${cpu[name].fps.toFixed(0)} frames/s)` : ''}`;
  for (const count of Object.keys(ways[0].cpu)) {
    row(count === 'still' ? 'CPU, one viewer, still' : `CPU, ${count} viewers, clock`, cost(count));
  }
  const head = ['1280×720, 30 frames/s', ...ways.map(({ name, path }) => `${name} (${path})`)];
  return [head, head.map(() => '---'), ...rows].map((cells) => `| ${cells.join(' | ')} |`).join('\n');
}
