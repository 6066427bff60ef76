// Sound that comes over the WebSocket: packets of Opus, decoded by WebCodecs and played one after the other.

/** Sound waits so long before it is played, in seconds: what comes unevenly sounds even. */
const AHEAD = 0.06;
/** What waits longer is late: it begins anew. */
const LATE = 0.4;
const SAMPLE_RATE = 48000;

export class SocketSound {
  static isPossible() { return typeof AudioDecoder === 'function'; }
  #context = new AudioContext({ sampleRate: SAMPLE_RATE, latencyHint: 'interactive' });
  #next = 0; #decoder;

  constructor() {
    this.#decoder = new AudioDecoder({ output: (data) => this.#play(data), error: (error) => console.warn(error.message) });
    this.#decoder.configure({ codec: 'opus', sampleRate: SAMPLE_RATE, numberOfChannels: 2 });
    this.#context.resume();
  }

  /** For tests and the curious. */
  get context() { return this.#context; }

  take(message) {
    if (this.#decoder.state !== 'configured') return;
    const timestamp = Number(new DataView(message).getBigUint64(4)) * 1e6 / SAMPLE_RATE;
    this.#decoder.decode(new EncodedAudioChunk({ type: 'key', timestamp, data: new Uint8Array(message, 12) }));
  }

  #play(data) {
    const buffer = this.#context.createBuffer(data.numberOfChannels, data.numberOfFrames, data.sampleRate);
    for (let channel = 0; channel < data.numberOfChannels; channel += 1) {
      const samples = new Float32Array(data.numberOfFrames);
      data.copyTo(samples, { planeIndex: channel, format: 'f32-planar' });
      buffer.copyToChannel(samples, channel);
    }
    data.close();
    const now = this.#context.currentTime;
    if (this.#next < now || this.#next > now + LATE) this.#next = now + AHEAD;
    const source = new AudioBufferSourceNode(this.#context, { buffer });
    source.connect(this.output ?? this.#context.destination);
    source.start(this.#next);
    this.#next += buffer.duration;
  }

  close() {
    if (this.#decoder.state !== 'closed') this.#decoder.close();
    this.#context.close();
  }
}
