// A real PulseAudio server with a sink that plays to nobody, and tones to play there.

import { spawn } from 'node:child_process';
import { once } from 'node:events';
import fs from 'node:fs';
import path from 'node:path';

const RATE = 48000;

export class SoundServer {
  #child;

  constructor(dir) {
    this.dir = dir;
    this.socket = path.join(dir, 'pulse.socket');
  }

  /** For programs that are to play there, and for who is to hear them. */
  get env() { return { PULSE_SERVER: `unix:${this.socket}` }; }

  start() {
    const modules = ['module-null-sink sink_name=out', `module-native-protocol-unix auth-anonymous=1 socket=${this.socket}`];
    const args = ['-n', '--daemonize=no', '--exit-idle-time=-1', '--use-pid-file=no', '--log-level=error', ...modules.flatMap((module) => ['-L', module])];
    this.#child = spawn('pulseaudio', args, { env: { ...process.env, HOME: this.dir, XDG_RUNTIME_DIR: this.dir }, stdio: 'inherit' });
  }

  async close() {
    if (!this.#child || this.#child.exitCode !== null) return;
    const ended = once(this.#child, 'exit');
    this.#child.kill('SIGKILL');
    await ended;
  }

  /** A file of samples, and the program that plays it. */
  tone(hertz, seconds) {
    const file = path.join(this.dir, `tone-${hertz}`);
    const samples = new Int16Array(RATE * seconds * 2);
    for (let at = 0; at < samples.length; at += 1) samples[at] = 12000 * Math.sin(((at >> 1) / RATE) * hertz * 2 * Math.PI);
    fs.writeFileSync(file, Buffer.from(samples.buffer));
    return { app: 'pacat', args: ['--raw', '--format=s16le', `--rate=${RATE}`, '--channels=2', file] };
  }
}
