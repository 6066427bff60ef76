// The picture, however it comes: over WebRTC, or over the WebSocket as H.264 or as rectangles of JPEG. Each player has
// `close()` and `statistics()`, and calls `onSize(width, height)` for each other size and `onEnd(reason)` once.

const CONNECT_MS = 6000;

/** WebRTC. The server offers. */
export class WebRtcPlayer {
  #pc; #frames = 0; #last; #timer; #ended = false;

  constructor({ video, audio, hears, send, onSize, onEnd, onChannel }) {
    Object.assign(this, { video, audio, send, onSize, onEnd, onChannel, name: 'WebRTC', hasSound: false });
    this.#timer = setTimeout(() => this.#end('WebRTC did not connect: neither UDP nor TCP passes to the media port'), CONNECT_MS);
    this.onResize = () => onSize(video.videoWidth, video.videoHeight);
    video.addEventListener('resize', this.onResize);
    this.request(hears);
  }

  /** Asks for a connection, another one if there is one. */
  request(hears) { this.send('signal/request', { video: {}, audio: { disabled: !hears } }); }

  async provided({ sdp, iceservers }) {
    this.#pc?.close();
    const pc = new RTCPeerConnection({ iceServers: iceservers ?? [] });
    this.#pc = pc;
    pc.ontrack = ({ streams: [stream], track, receiver }) => {
      if (track.kind === 'audio') {
        this.hasSound = true;
        this.audio.srcObject = stream;
        return;
      }
      receiver.playoutDelayHint = 0;
      if ('jitterBufferTarget' in receiver) receiver.jitterBufferTarget = 0;
      this.video.srcObject = stream ?? new MediaStream([track]);
      this.video.play().catch(() => {}); // it begins with the first click then
    };
    pc.ondatachannel = ({ channel }) => {
      channel.binaryType = 'arraybuffer';
      this.onChannel(channel);
    };
    pc.onconnectionstatechange = () => {
      if (pc.connectionState === 'connected') clearTimeout(this.#timer);
      if (pc.connectionState === 'failed') this.#end('the WebRTC connection failed');
    };
    await pc.setRemoteDescription({ type: 'offer', sdp });
    await pc.setLocalDescription(await pc.createAnswer());
    this.send('signal/answer', { sdp: pc.localDescription.sdp });
  }

  refused(reason) { this.#end(reason); }

  #end(reason) {
    if (this.#ended) return;
    this.#ended = true;
    this.close();
    this.onEnd(reason);
  }

  close() {
    this.#ended = true;
    clearTimeout(this.#timer);
    this.video.removeEventListener('resize', this.onResize);
    this.#pc?.close();
    this.video.srcObject = this.audio.srcObject = null;
  }

  async statistics() {
    const report = await this.#pc?.getStats();
    const all = [...(report?.values() ?? [])];
    const inbound = all.find(({ type, kind }) => type === 'inbound-rtp' && kind === 'video');
    const pair = all.find(({ type, nominated, state }) => type === 'candidate-pair' && nominated && state === 'succeeded');
    if (!inbound) return {};
    const last = this.#last ?? inbound;
    this.#last = inbound;
    const seconds = (inbound.timestamp - last.timestamp) / 1000 || 1;
    const emitted = inbound.jitterBufferEmittedCount - last.jitterBufferEmittedCount;
    const local = pair && report.get(pair.localCandidateId);
    return {
      path: `WebRTC over ${(local?.protocol ?? 'udp').toUpperCase()}`,
      fps: (inbound.framesDecoded - last.framesDecoded) / seconds,
      bitsPerSecond: ((inbound.bytesReceived - last.bytesReceived) * 8) / seconds,
      roundTripMs: pair?.currentRoundTripTime === undefined ? undefined : pair.currentRoundTripTime * 1000,
      bufferMs: emitted > 0 ? ((inbound.jitterBufferDelay - last.jitterBufferDelay) / emitted) * 1000 : undefined,
      lost: inbound.packetsLost,
    };
  }
}

/** What comes over the WebSocket, drawn on a canvas. */
class SocketPlayer {
  frames = 0; bytes = 0; #at = performance.now(); #roundTripMs;

  constructor({ canvas, send, onSize, onEnd }) {
    Object.assign(this, { canvas, send, onSize, onEnd, context: canvas.getContext('2d', { alpha: false, desynchronized: true }) });
  }

  resize(width, height) {
    if (this.canvas.width === width && this.canvas.height === height) return;
    Object.assign(this.canvas, { width, height });
    this.onSize(width, height);
  }

  shown(number) {
    this.frames += 1;
    this.send('stream/shown', { number });
  }

  /** What the server sends back of what `statistics` sent. */
  pong({ at }) { this.#roundTripMs = performance.now() - at; }

  async statistics() {
    const now = performance.now();
    this.send('client/ping', { at: now });
    const seconds = (now - this.#at) / 1000;
    const told = { path: this.name, fps: this.frames / seconds, bitsPerSecond: (this.bytes * 8) / seconds, roundTripMs: this.#roundTripMs };
    this.#at = now;
    this.frames = this.bytes = 0;
    return told;
  }
}

/** H.264 by WebCodecs, which browsers have in secure contexts only. */
export class FramesPlayer extends SocketPlayer {
  static isPossible() { return typeof VideoDecoder === 'function'; }
  #decoder; #hasKeyframe = false; #numbers = new Map();
  name = 'WebSocket, H.264';

  constructor(options) {
    super(options);
    this.#begin();
    this.send('stream/request', { media: 'h264' });
  }

  #begin() {
    this.#hasKeyframe = false;
    this.#decoder = new VideoDecoder({
      output: (frame) => {
        this.resize(frame.displayWidth, frame.displayHeight);
        this.context.drawImage(frame, 0, 0);
        const number = this.#numbers.get(frame.timestamp);
        this.#numbers.delete(frame.timestamp);
        frame.close();
        this.shown(number ?? 0);
      },
      error: (error) => this.onEnd(`the browser can't decode the video: ${error.message}`),
    });
    this.#decoder.configure({ codec: 'avc1.42e034', optimizeForLatency: true });
  }

  take(message) {
    const view = new DataView(message);
    if (view.getUint8(0) !== 1) return;
    this.bytes += message.byteLength;
    const isKeyframe = (view.getUint8(1) & 1) === 1;
    const [number, timestamp] = [Number(view.getBigUint64(4)), Number(view.getBigUint64(12))];
    if (!isKeyframe && !this.#hasKeyframe) return this.shown(number);
    this.#hasKeyframe = true;
    this.#numbers.set(timestamp, number);
    this.#decoder.decode(new EncodedVideoChunk({ type: isKeyframe ? 'key' : 'delta', timestamp, data: new Uint8Array(message, 28) }));
  }

  close() { if (this.#decoder.state !== 'closed') this.#decoder.close(); }
}

/** Rectangles: works everywhere. */
export class RectanglesPlayer extends SocketPlayer {
  name = 'WebSocket, JPEG';
  #last = Promise.resolve(); #parts = []; #isClosed = false;

  constructor(options) {
    super(options);
    this.screen = options.screen;
    this.resize(...this.screen);
    this.send('stream/request', { media: 'jpeg' });
  }

  take(message) {
    const view = new DataView(message);
    if (view.getUint8(0) !== 2) return;
    this.bytes += message.byteLength;
    const isLast = (view.getUint8(1) & 1) === 1;
    const number = Number(view.getBigUint64(4));
    const [x, y, width, height] = [20, 22, 24, 26].map((at) => view.getUint16(at));
    const decoded = createImageBitmap(new Blob([new Uint8Array(message, 28)], { type: 'image/jpeg' }));
    // All of a picture at once: half of it would be a picture that never was.
    this.#last = this.#last.then(async () => {
      this.#parts.push({ bitmap: await decoded, x, y });
      if (this.#isClosed || !isLast) return;
      if (x === 0 && y === 0 && (width > this.canvas.width || height > this.canvas.height)) this.resize(width, height);
      for (const part of this.#parts.splice(0)) {
        this.context.drawImage(part.bitmap, part.x, part.y);
        part.bitmap.close();
      }
      this.shown(number);
    }).catch((error) => this.onEnd(`a picture can't be shown: ${error.message}`));
  }

  close() { this.#isClosed = true; }
}
