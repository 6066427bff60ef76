// Runs in a page, before its own scripts: notes each frame that the page shows, in a video or on a canvas, and its connections.

/**
 * Makes `window.shownFrames`: how many there were (`count`), when the latest were (`times`, of performance.now()), and a function
 * of yours that gets the element of each (`onFrame`). `window.connections` has each RTCPeerConnection.
 */
export function watchFrames() {
  const TIMES_MAX = 20_000;
  const frames = { count: 0, times: [], onFrame: undefined };
  window.shownFrames = frames;
  const note = (source) => {
    frames.count += 1;
    frames.times.push(performance.now());
    if (frames.times.length > TIMES_MAX) frames.times.splice(0, TIMES_MAX / 2);
    frames.onFrame?.(source);
  };

  const watched = new WeakSet();
  const follow = (video) => {
    if (watched.has(video)) return;
    watched.add(video);
    const next = () => {
      note(video);
      video.requestVideoFrameCallback(next);
    };
    video.requestVideoFrameCallback(next);
  };
  const source = Object.getOwnPropertyDescriptor(HTMLMediaElement.prototype, 'srcObject');
  Object.defineProperty(HTMLMediaElement.prototype, 'srcObject', {
    ...source,
    set(stream) {
      if (this instanceof HTMLVideoElement) follow(this);
      source.set.call(this, stream);
    },
  });

  // What is drawn between two frames of the browser is shown as one.
  const drawn = new Set();
  const draw = CanvasRenderingContext2D.prototype.drawImage;
  CanvasRenderingContext2D.prototype.drawImage = function drawImage(...values) {
    draw.apply(this, values);
    if (!this.canvas.isConnected || drawn.has(this.canvas)) return;
    drawn.add(this.canvas);
    requestAnimationFrame(() => {
      drawn.delete(this.canvas);
      note(this.canvas);
    });
  };
  const connections = [];
  window.connections = connections;
  window.RTCPeerConnection = class extends RTCPeerConnection {
    constructor(...values) {
      super(...values);
      connections.push(this);
    }
  };
}
