// Keys of a browser as keysyms of X11.

const NAMED = {
  Backspace: 0xff08, Tab: 0xff09, Enter: 0xff0d, Escape: 0xff1b, Delete: 0xffff, Home: 0xff50, ArrowLeft: 0xff51, ArrowUp: 0xff52,
  ArrowRight: 0xff53, ArrowDown: 0xff54, PageUp: 0xff55, PageDown: 0xff56, End: 0xff57, Insert: 0xff63, Pause: 0xff13,
  PrintScreen: 0xff61, ContextMenu: 0xff67, NumLock: 0xff7f, ScrollLock: 0xff14, CapsLock: 0xffe5, AltGraph: 0xfe03,
  MediaPlayPause: 0x1008ff14, AudioVolumeUp: 0x1008ff13, AudioVolumeDown: 0x1008ff11, AudioVolumeMute: 0x1008ff12,
};
const SIDED = { Shift: [0xffe1, 0xffe2], Control: [0xffe3, 0xffe4], Alt: [0xffe9, 0xffea], Meta: [0xffeb, 0xffec] };

export function keysymOf(event) {
  const { key, location } = event;
  if (SIDED[key]) return SIDED[key][location === KeyboardEvent.DOM_KEY_LOCATION_RIGHT ? 1 : 0];
  if (NAMED[key]) return NAMED[key];
  const functionKey = /^F([1-9]|[12]\d|3[0-5])$/.exec(key);
  if (functionKey) return 0xffbd + Number(functionKey[1]);
  const characters = [...key];
  return characters.length === 1 ? keysymOfCharacter(characters[0]) : undefined;
}

export function keysymOfCharacter(character) {
  if (character === '\n' || character === '\r') return NAMED.Enter;
  if (character === '\t') return NAMED.Tab;
  const code = character.codePointAt(0);
  if (code < 0x20 || (code >= 0x7f && code < 0xa0)) return undefined;
  return code <= 0xff ? code : 0x1000000 | code;
}

