// The desktop, full of the page: the picture by the best way that passes, and what is typed, clicked, touched and copied.

import { keysymOf, keysymOfCharacter } from './keys.js';
import { FramesPlayer, RectanglesPlayer, WebRtcPlayer } from './players.js';
import { DesktopPointer } from './pointer.js';
import { SocketSound } from './sound.js';

const element = (id) => document.getElementById(id);
const [stage, video, canvas, audio] = ['stage', 'video', 'canvas', 'audio'].map(element);
const SIGNALING = new URL('../v1/desktop/stream/signaling', location.href);
const TOKEN = 'sandboxd.token';
const TICKET = 'sandboxd.desktop.ticket';
/** Asked for by tests and by people whose network is special: `#path=websocket`. */
const fragment = new URLSearchParams(location.hash.slice(1));
const wantedPath = fragment.get('path');
if (fragment.has('ticket')) {
  sessionStorage.setItem(TICKET, fragment.get('ticket'));
  fragment.delete('ticket');
  history.replaceState(null, '', `${location.pathname}${location.search}${fragment.size ? `#${fragment}` : ''}`);
}

const desktop = { socket: undefined, player: undefined, channel: undefined, size: [0, 0], mayControl: true, id: undefined, retryMs: 250, reason: undefined, hears: false, sound: undefined };
window.sandboxdDesktop = desktop; // for tests and for the curious

function tell(text) { element('state').textContent = text; }

function send(event, payload) {
  if (desktop.socket?.readyState === WebSocket.OPEN) desktop.socket.send(JSON.stringify({ event, payload }));
}

function connect() {
  const url = new URL(SIGNALING);
  url.protocol = url.protocol.replace('http', 'ws');
  const [ticket, token] = [sessionStorage.getItem(TICKET), sessionStorage.getItem(TOKEN)];
  if (ticket) url.searchParams.set('ticket', ticket);
  else if (token) url.searchParams.set('access_token', token);
  const socket = new WebSocket(url);
  socket.binaryType = 'arraybuffer';
  desktop.socket = socket;
  let hasOpened = false;
  let farewell;
  socket.onopen = () => { hasOpened = true; };
  socket.onmessage = ({ data }) => {
    if (typeof data !== 'string') return takeBinary(data);
    const { event, payload } = JSON.parse(data);
    if (event === 'system/disconnect') farewell = payload?.message;
    else hear[event]?.(payload ?? {});
  };
  socket.onclose = async () => {
    stopPlaying();
    desktop.channel = undefined;
    if (!hasOpened && await isRefused()) return ask();
    tell(farewell ? `Ended: ${farewell}. Trying again…` : 'The connection was lost. Trying again…');
    setTimeout(connect, desktop.retryMs);
    desktop.retryMs = Math.min(desktop.retryMs * 2, 5000);
  };
}

const POINTER = 3, SOUND = 4;
function takeBinary(data) {
  const kind = new DataView(data).getUint8(0);
  if (kind === POINTER) pointer.take(data.slice(4));
  else if (kind === SOUND) desktop.sound?.take(data);
  else desktop.player?.take?.(data);
}

/** A browser doesn't tell why a WebSocket was refused. */
async function isRefused() {
  const token = sessionStorage.getItem(TOKEN);
  const headers = token ? { authorization: `Bearer ${token}` } : {};
  const answer = await fetch(new URL('../v1/desktop/stream/status', location.href), { headers }).catch(() => undefined);
  if (answer?.status === 401) {
    const hadTicket = sessionStorage.getItem(TICKET) !== null;
    sessionStorage.removeItem(TICKET);
    element('ask-reason').textContent = hadTicket ? 'The ticket is over. Ask for another one, or give the token.' : '';
    return true;
  }
  const status = await answer?.json().catch(() => undefined);
  if (status && !status.active) tell('The stream is off: POST /v1/desktop/stream/start switches it on.');
  return false;
}

function ask() {
  const dialog = element('ask');
  tell('A token is needed.');
  dialog.onclose = () => {
    sessionStorage.setItem(TOKEN, element('token').value);
    element('token').value = '';
    connect();
  };
  dialog.showModal();
}

const hear = {
  'system/init': (init) => {
    desktop.retryMs = 250;
    desktop.id = init.session_id;
    desktop.size = [init.screen_size.width, init.screen_size.height];
    const { may_control: mayControl = true, webrtc = true, webrtc_reason: reason, ticket, audio: sound = {} } = init.sandboxd ?? {};
    desktop.mayControl = mayControl;
    if (ticket) sessionStorage.setItem(TICKET, ticket);
    stage.classList.toggle('controls', mayControl);
    showHost(init.control_host);
    showSound(sound);
    if (wantedPath === 'websocket' || wantedPath === 'jpeg') play(wantedPath === 'jpeg' ? 'jpeg' : 'socket', 'asked for');
    else if (!webrtc || typeof RTCPeerConnection !== 'function') play('socket', reason ?? 'this browser has no WebRTC');
    else play('webrtc');
  },
  'signal/provide': (offer) => desktop.player?.provided?.(offer).catch((error) => desktop.player.refused?.(error.message)),
  'signal/close': ({ reason }) => desktop.player?.refused?.(`the WebRTC connection was closed (${reason})`),
  'system/error': ({ message }) => {
    console.warn(message);
    if (desktop.player instanceof WebRtcPlayer && message.startsWith('WebRTC')) desktop.player.refused(message);
  },
  'client/pong': (payload) => desktop.player?.pong?.(payload),
  'stream/pointer': ({ drawn }) => { pointer.isDrawn = drawn; pointer.show(); },
  'stream/audio': (sound) => showSound(sound),
  'screen/updated': ({ width, height }) => { desktop.size = [width, height]; },
  'control/host': (host) => showHost(host),
  'clipboard/updated': ({ text }) => {
    element('clipboard-text').value = text;
    navigator.clipboard?.writeText(text).catch(() => {}); // not allowed: the panel has it
  },
};

function showHost({ has_host: hasHost, host_id: id }) {
  const [mine, other] = ['You control the desktop', 'Somebody else controls the desktop'];
  element('control').textContent = !desktop.mayControl ? 'Watching' : hasHost ? (id === desktop.id ? mine : other) : '';
}

function stopPlaying() {
  desktop.player?.close();
  desktop.player = undefined;
}

function play(way, reason) {
  stopPlaying();
  desktop.channel = undefined;
  desktop.reason = reason;
  const isWebRtc = way === 'webrtc';
  video.hidden = !isWebRtc;
  canvas.hidden = isWebRtc;
  send('client/hello', { reason, pointer: true });
  const options = {
    video, audio, canvas, send, hears: desktop.hears, screen: desktop.size,
    onSize: (width, height) => { element('size').textContent = `${width} × ${height}`; },
    onChannel: (channel) => {
      desktop.channel = channel;
      channel.onmessage = ({ data }) => { if (data instanceof ArrayBuffer && data.byteLength > 6) pointer.take(data); };
    },
  };
  if (isWebRtc) {
    desktop.player = new WebRtcPlayer({ ...options, onEnd: (why) => play('socket', why) });
  } else if (way === 'socket' && FramesPlayer.isPossible()) {
    desktop.player = new FramesPlayer({ ...options, onEnd: (why) => play('jpeg', why) });
  } else {
    desktop.player = new RectanglesPlayer({ ...options, onEnd: (why) => tell(why) });
  }
  tell(isWebRtc ? 'Connected' : `Connected over the WebSocket: ${reason}`);
  if (!isWebRtc) applyHearing();
}

// Sound: none until somebody wants it, and browsers play none before a click.

function showSound({ available = false, reason }) {
  const button = element('sound');
  button.disabled = !available;
  button.title = available ? '' : reason ?? '';
  if (available && desktop.hears) applyHearing();
}

function applyHearing() {
  const { player, hears } = desktop;
  const isWebRtc = player instanceof WebRtcPlayer;
  audio.muted = !hears;
  if (isWebRtc && hears && !player.hasSound) player.request(true);
  else send('signal/audio', { disabled: !hears });
  const isOverSocket = hears && !isWebRtc && SocketSound.isPossible();
  if (!isOverSocket) desktop.sound = desktop.sound?.close();
  else desktop.sound ??= new SocketSound();
}

element('sound').addEventListener('click', () => {
  desktop.hears = !desktop.hears;
  element('sound').setAttribute('aria-pressed', String(desktop.hears));
  applyHearing();
  if (desktop.hears) audio.play().catch(() => {}); // there is none yet
});

// Input

const MOVE = 1, SCROLL = 2, KEY_DOWN = 3, KEY_UP = 4, BUTTON_DOWN = 5, BUTTON_UP = 6;

/** Over the data channel where there is one, else over the WebSocket. */
function input(kind, ...values) {
  if (!desktop.mayControl) return;
  if (desktop.channel?.readyState === 'open') {
    desktop.channel.send(packed(kind, values));
    return;
  }
  const [first, second] = values;
  if (kind === MOVE) send('control/move', { x: first, y: second });
  else if (kind === SCROLL) send('control/scroll', { delta_x: first, delta_y: second, control_key: Boolean(values[2]) });
  else if (kind === KEY_DOWN || kind === KEY_UP) send(kind === KEY_DOWN ? 'control/keydown' : 'control/keyup', { keysym: first });
  else send(kind === BUTTON_DOWN ? 'control/buttondown' : 'control/buttonup', { code: first });
}

function packed(kind, values) {
  const length = { [MOVE]: 4, [SCROLL]: 5 }[kind] ?? 4;
  const view = new DataView(new ArrayBuffer(3 + length));
  view.setUint8(0, kind);
  view.setUint16(1, length);
  if (kind === MOVE) values.forEach((value, index) => view.setUint16(3 + 2 * index, value));
  else if (kind === SCROLL) {
    view.setInt16(3, values[0]);
    view.setInt16(5, values[1]);
    view.setUint8(7, values[2] ? 1 : 0);
  } else view.setUint32(3, values[0]);
  return view.buffer;
}

/** How large the picture is on the stage, and where. */
function fit() {
  const box = stage.getBoundingClientRect();
  const [width, height] = desktop.size;
  const factor = Math.min(box.width / width, box.height / height) || 1;
  return { box, factor, left: (box.width - width * factor) / 2, top: (box.height - height * factor) / 2 };
}

const pointer = new DesktopPointer({
  stage,
  image: element('pointer'),
  place: (x, y) => {
    const { factor, left, top } = fit();
    return { x: left + x * factor, y: top + y * factor, factor };
  },
});

/** A place on the page as one on the screen of the desktop: the picture is as large as fits, in the middle. */
function place({ clientX, clientY }) {
  const { box, factor, left, top } = fit();
  const within = (value, max) => Math.min(Math.max(Math.round(value), 0), max - 1);
  const [width, height] = desktop.size;
  return [within((clientX - box.left - left) / factor, width), within((clientY - box.top - top) / factor, height)];
}

const BUTTONS = [1, 2, 3, 8, 9];
stage.addEventListener('pointermove', (event) => {
  if (event.pointerType === 'touch') return;
  pointer.moved();
  input(MOVE, ...place(event));
});
stage.addEventListener('pointerdown', (event) => {
  stage.focus();
  if (event.pointerType === 'touch') return;
  stage.setPointerCapture(event.pointerId);
  input(MOVE, ...place(event));
  input(BUTTON_DOWN, BUTTONS[event.button]);
  event.preventDefault();
});
stage.addEventListener('pointerup', (event) => {
  if (event.pointerType === 'touch') return;
  input(MOVE, ...place(event));
  input(BUTTON_UP, BUTTONS[event.button]);
});
stage.addEventListener('contextmenu', (event) => event.preventDefault());
stage.addEventListener('wheel', (event) => {
  event.preventDefault();
  const unit = [1, 53 / 3, 800][event.deltaMode];
  const bounded = (value) => Math.max(-32767, Math.min(32767, Math.round(value * unit)));
  input(SCROLL, bounded(event.deltaX), bounded(event.deltaY), event.ctrlKey);
}, { passive: false });

const held = new Map();
stage.addEventListener('keydown', (event) => {
  const isPaste = (event.ctrlKey || event.metaKey) && event.key.toLowerCase() === 'v';
  if (event.isComposing || isPaste) return; // the paste event has the text
  const keysym = keysymOf(event);
  if (keysym === undefined) return;
  event.preventDefault();
  if (!event.repeat) {
    held.set(event.code, keysym);
    input(KEY_DOWN, keysym);
  }
});
stage.addEventListener('keyup', (event) => {
  const keysym = held.get(event.code);
  held.delete(event.code);
  if (keysym !== undefined) input(KEY_UP, keysym);
});
function letGo() {
  held.forEach((keysym) => input(KEY_UP, keysym));
  held.clear();
}
stage.addEventListener('blur', letGo);
window.addEventListener('blur', letGo);

// Touch: a tap clicks, a long one clicks right, one finger drags, two turn the wheel.

const touch = { fingers: 0, timer: undefined, start: undefined, isDragging: false, last: undefined };
const middle = (touches) => ({ clientX: (touches[0].clientX + touches[1].clientX) / 2, clientY: (touches[0].clientY + touches[1].clientY) / 2 });
stage.addEventListener('touchstart', (event) => {
  event.preventDefault();
  touch.fingers = event.touches.length;
  clearTimeout(touch.timer);
  if (touch.fingers === 2) {
    touch.last = middle(event.touches);
    return;
  }
  touch.start = event.touches[0];
  touch.isDragging = false;
  input(MOVE, ...place(touch.start));
  touch.timer = setTimeout(() => { click(3); touch.start = undefined; }, 600);
}, { passive: false });
stage.addEventListener('touchmove', (event) => {
  event.preventDefault();
  if (touch.fingers === 2 && event.touches.length === 2) {
    const now = middle(event.touches);
    input(SCROLL, Math.round(touch.last.clientX - now.clientX), Math.round(touch.last.clientY - now.clientY), false);
    touch.last = now;
    return;
  }
  const now = event.touches[0];
  if (!touch.start) return;
  if (!touch.isDragging && Math.hypot(now.clientX - touch.start.clientX, now.clientY - touch.start.clientY) > 8) {
    clearTimeout(touch.timer);
    touch.isDragging = true;
    input(BUTTON_DOWN, 1);
  }
  if (touch.isDragging) input(MOVE, ...place(now));
}, { passive: false });
stage.addEventListener('touchend', (event) => {
  event.preventDefault();
  clearTimeout(touch.timer);
  if (touch.fingers === 1 && touch.start) {
    if (touch.isDragging) input(BUTTON_UP, 1);
    else click(1);
  }
  touch.start = undefined;
  touch.fingers = event.touches.length;
}, { passive: false });
function click(button) {
  input(BUTTON_DOWN, button);
  input(BUTTON_UP, button);
}

// A keyboard on the screen types into a field; what comes in is typed on.

element('keyboard').addEventListener('click', () => element('typing').focus());
element('typing').addEventListener('input', ({ target }) => {
  for (const character of target.value) tap(keysymOfCharacter(character));
  target.value = '';
});
element('typing').addEventListener('keydown', (event) => {
  const keysym = [...event.key].length > 1 ? keysymOf(event) : undefined;
  if (keysym === undefined) return;
  event.preventDefault();
  tap(keysym);
});
function tap(keysym) {
  if (keysym === undefined) return;
  input(KEY_DOWN, keysym);
  input(KEY_UP, keysym);
}

// Clipboard

window.addEventListener('paste', (event) => {
  if (event.target === element('clipboard-text') || event.target === element('token')) return;
  event.preventDefault();
  const text = event.clipboardData.getData('text/plain');
  // what holds Ctrl here is already down there
  letGo();
  send('control/paste', text ? { text } : {});
});
element('clipboard-send').addEventListener('click', () => send('clipboard/set', { text: element('clipboard-text').value }));
element('clipboard-take').addEventListener('click', () => {
  const field = element('clipboard-text');
  if (navigator.clipboard) navigator.clipboard.writeText(field.value).catch(() => field.select());
  else field.select();
});

// The bar

for (const [button, panel] of [['clipboard', 'clipboard-panel'], ['statistics', 'statistics-panel']]) {
  element(button).addEventListener('click', () => {
    element(panel).hidden = !element(panel).hidden;
    element(button).setAttribute('aria-expanded', String(!element(panel).hidden));
  });
}
element('fullscreen').addEventListener('click', () => stage.requestFullscreen?.().then(() => navigator.keyboard?.lock?.(), () => {}));

setInterval(async () => {
  if (element('statistics-panel').hidden || !desktop.player) return;
  const told = await desktop.player.statistics();
  const number = (value, digits, unit) => (value === undefined ? '–' : `${value.toFixed(digits)}${unit}`);
  element('path').textContent = desktop.reason ? `${told.path ?? '–'} (${desktop.reason})` : told.path ?? '–';
  element('fps').textContent = number(told.fps, 0, '');
  element('bitrate').textContent = number(told.bitsPerSecond / 1000, 0, ' kbit/s');
  element('round-trip').textContent = number(told.roundTripMs, 1, ' ms');
  element('buffer').textContent = number(told.bufferMs, 1, ' ms');
  element('lost').textContent = told.lost === undefined ? '–' : String(told.lost);
}, 1000);

connect();
