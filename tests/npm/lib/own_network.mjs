// Imported first, this runs the test file again in a network of its own, where packets can be dropped without harm to others.

import { execFileSync, spawnSync } from 'node:child_process';
import fs from 'node:fs';

const OUTSIDE = 'TEST_NETWORK_OUTSIDE';
const here = fs.readlinkSync('/proc/self/ns/net');

// Packets as long as those of most networks: longer ones would not get through a narrow one at all.
// A browser doesn't look for peers where there is nothing but 127.0.0.1.
const SETUP = `set -e
ip link set lo mtu 1500 up
ip link add test0 type veth peer name test1
ip address add 10.99.0.1/24 dev test0
ip link set test0 up
ip link set test1 up
ip route add default via 10.99.0.2
exec "$0" "$@"`;

// Its results are this file's own: it writes to the same stdout, and this process writes nothing.
if ((process.env[OUTSIDE] ?? here) === here) {
  const isRoot = process.getuid() === 0;
  const command = ['--net', ...(isRoot ? [] : ['--map-root-user']), 'sh', '-c', SETUP, process.execPath, ...process.execArgv, ...process.argv.slice(1)];
  const { status, error } = spawnSync('unshare', command, { stdio: 'inherit', env: { ...process.env, [OUTSIDE]: here } });
  if (error) throw error;
  process.exit(status ?? 1);
}

/** What nft's words match is dropped as it arrives, until it is healed. */
export function drop(...matches) {
  nft(`table inet faults { chain arriving { type filter hook input priority 0; ${matches.map((match) => `${match} drop;`).join(' ')} }; }`);
}

/** What nft's words match has so much room, as tc says it, and waits for at most `packets` others. */
export function narrow(match, rate, packets) {
  run('tc', 'qdisc add dev lo root handle 1: htb default 1');
  run('tc', 'class add dev lo parent 1: classid 1:1 htb rate 10gbit quantum 60000');
  run('tc', `class add dev lo parent 1: classid 1:2 htb rate ${rate} burst 3k`);
  run('tc', `qdisc add dev lo parent 1:2 pfifo limit ${packets}`);
  nft(`table inet faults { chain leaving { type route hook output priority 0; ${match} meta priority set 0x10002; }; }`);
}

/** The network is as good as before. */
export function heal() {
  nft('table inet faults\ndelete table inet faults');
  if (execFileSync('tc', ['qdisc', 'show', 'dev', 'lo'], { encoding: 'utf8' }).includes('htb')) run('tc', 'qdisc del dev lo root');
}

function nft(text) {
  execFileSync('nft', ['-f', '-'], { input: text });
}

function run(program, words) {
  execFileSync(program, words.split(' '));
}
