// What strangers and broken clients of the desktop's stream send. All of it comes of dice.

const HUGE = ['0', '-1', '65536', '4294967295', '4294967296', '18446744073709551616', '9'.repeat(400), '1e9', '0x10', ''];
const ODD = ['\0', '\u{10ffff}', '\r', '\n\n', ' ', '=', ':', 'ä', '%n%s', '\x7f', '"'];
/** As JSON, a longer one makes a message that is refused before anything looks at it. */
const SDP_MAX_CHARS = 500_000;

/** Ways to spoil an SDP, given as lines; each gives lines, or a text. */
const SPOILERS = {
  drop: (dice, lines) => lines.toSpliced(dice.between(0, lines.length - 1), dice.between(1, 5)),
  double: (dice, lines) => lines.toSpliced(dice.between(0, lines.length), 0, ...Array(dice.pick([1, 2, 500])).fill(dice.pick(lines))),
  swap: (dice, lines) => {
    const at = dice.between(0, lines.length - 1);
    return [lines[at], ...lines.toSpliced(at, 1)];
  },
  cut: (dice, lines) => lines.join('\r\n').slice(0, dice.between(0, lines.join('\r\n').length)),
  cutLine: (dice, lines) => changed(dice, lines, (line) => line.slice(0, dice.between(0, line.length))),
  number: (dice, lines) => changed(dice, lines.filter((line) => /\d/.test(line)), (line) => line.replace(/\d+/, dice.pick(HUGE)), lines),
  numbers: (dice, lines) => lines.map((line) => (dice.throw() < 0.3 ? line.replaceAll(/\d+/g, () => dice.pick(HUGE)) : line)),
  odd: (dice, lines) => changed(dice, lines, (line) => {
    const at = dice.between(0, line.length);
    return line.slice(0, at) + dice.pick(ODD) + line.slice(at);
  }),
  value: (dice, lines) => changed(dice, lines, (line) => `${line.split(/[:=]/, 1)[0]}:${'x'.repeat(dice.pick([0, 1, 300, 70_000]))}`),
  secrets: (dice, lines) => lines.map((line) => {
    const name = /^a=(?:ice-ufrag:|ice-pwd:|fingerprint:sha-256 |mid:|setup:)/.exec(line)?.[0];
    return name && dice.throw() < 0.5 ? name + dice.pick(['', 'a', 'zz:zz', 'active', 'passive', 'holdconn', '0'.repeat(256)]) : line;
  }),
  sections: (dice, lines) => {
    const first = lines.findIndex((line) => line.startsWith('m='));
    return dice.pick([lines.slice(0, first), [...lines, ...Array(200).fill(lines.slice(first)).flat()], [...lines.slice(0, first), ...lines.slice(first).reverse()]]);
  },
  garbage: (dice) => dice.pick([
    '', 'v=0', '\r\n'.repeat(1000), dice.bytes(300).toString('latin1'), 'a=x\r\n'.repeat(SDP_MAX_CHARS / 5), 'm'.repeat(SDP_MAX_CHARS),
  ]),
};

/** The SDP with one or more of its lines spoiled. */
export function spoiledSdp(dice, sdp) {
  let lines = sdp.split('\r\n');
  for (let times = dice.between(1, 3); times > 0; times -= 1) {
    const spoiled = SPOILERS[dice.pick(Object.keys(SPOILERS))](dice, lines);
    if (typeof spoiled === 'string') return spoiled.slice(0, SDP_MAX_CHARS);
    lines = spoiled;
    if (lines.length === 0) break;
  }
  return lines.join(dice.pick(['\r\n', '\r\n', '\r\n', '\n'])).slice(0, SDP_MAX_CHARS);
}

/** `lines`, or `all` lines, with one of them changed. */
function changed(dice, lines, change, all = lines) {
  const chosen = dice.pick(lines);
  return all.map((line) => (line === chosen ? change(line) : line));
}

const EVENTS = [
  'control/request', 'control/release', 'control/move', 'control/scroll', 'control/buttondown', 'control/buttonup', 'control/buttonpress', 'control/keydown',
  'control/keyup', 'control/keypress', 'control/copy', 'control/paste', 'clipboard/set', 'screen/set', 'signal/answer', 'signal/candidate', 'signal/restart',
  'signal/video', 'signal/offer', 'client/hello', 'client/heartbeat', 'stream/request', 'stream/shown', 'system/init', 'keyboard/map', 'keyboard/modifiers',
  'send/unicast', '', 'x'.repeat(1000), 'control', 'control/', '__proto__', '\0',
];
const FIELDS = [
  'sdp', 'candidate', 'sdpMid', 'sdpMLineIndex', 'x', 'y', 'delta_x', 'delta_y', 'control_key', 'code', 'keysym', 'text', 'media', 'number', 'reason',
  'width', 'height',
];
/** No size of a screen is among them, and no button or key that closes a window. */
const NUMBERS = [0, -1, 65_536, 2_147_483_647, -2_147_483_648, 4_294_967_295, 4_294_967_296, 1e300, -1e300, 0.5, 9_007_199_254_740_993];

function value(dice, depth = 0) {
  const kind = dice.between(0, depth > 3 ? 4 : 6);
  if (kind === 0) return dice.pick([null, true, false]);
  if (kind < 3) return dice.pick(NUMBERS);
  if (kind < 5) return dice.pick(['', 'x', ...ODD, 'y'.repeat(dice.between(0, 3000)), 'candidate:1 1 udp 1 127.0.0.1 9 typ host', 'h264', '1']);
  if (kind === 5) return Array.from({ length: dice.between(0, 5) }, () => value(dice, depth + 1));
  return fields(dice, depth + 1);
}

function fields(dice, depth) {
  return Object.fromEntries(Array.from({ length: dice.between(0, 6) }, () => [dice.pick(FIELDS), value(dice, depth)]));
}

/** A text message: mostly JSON with what is expected in it, of wrong kinds. */
export function rubbishMessage(dice) {
  const event = dice.pick(EVENTS);
  const whole = JSON.stringify({ event, payload: dice.throw() < 0.7 ? fields(dice, 0) : value(dice) });
  const kind = dice.between(0, 19);
  if (kind === 0) return whole.slice(0, dice.between(0, whole.length));
  if (kind === 1) return dice.bytes(dice.between(0, 200)).toString('latin1');
  if (kind === 2) return `${'['.repeat(dice.pick([100, 200_000]))}`;
  if (kind === 3) return `${'{"event":'.repeat(50_000)}1${'}'.repeat(50_000)}`;
  if (kind === 4) return `{"event":"${event.replaceAll(/[\0"]/g, '')}","payload":{"sdp":"\\ud800","sdp":1,"x":1e999}}`;
  if (kind === 5) return JSON.stringify(dice.pick([1, null, [], 'signal/request', { event: 1 }, { payload: {} }, { event: ['signal/request'] }]));
  return whole;
}

/** Each number at each of its bounds, for what is turned, moved and pressed. */
export function extremes() {
  const sides = [2_147_483_647, -2_147_483_648, 0];
  const pairs = sides.flatMap((x) => sides.map((y) => [x, y]));
  return [
    ...pairs.flatMap(([x, y]) => [['control/scroll', { delta_x: x, delta_y: y }], ['control/scroll', { x, y, control_key: true }], ['control/move', { x, y }]]),
    ...[0, 4, 7, 255, 4_294_967_295].map((code) => ['control/buttonpress', { code }]),
    ...[0, 1, 0xffffff, 0x1000000, 0x1110000, 0xffffffff].map((keysym) => ['control/keypress', { keysym }]),
    ...[[0, 0], [65_536, 65_536], [4_294_967_295, 1]].map(([width, height]) => ['screen/set', { width, height }]),
    ['stream/shown', { number: Number.MAX_SAFE_INTEGER }],
  ];
}
