// Runs in a page: reads the strip of the test card in each frame that is shown.

/** Makes `window.seen`: [when it was shown, when it was drawn] of each frame that shows another time than the one before. */
export function readStrips() {
  const [SQUARES, CHECK, CARD_WIDTH] = [48, 0xa5, 1280];
  const SIDE = 24;
  const row = Object.assign(document.createElement('canvas'), { width: SQUARES * SIDE, height: 1 });
  const context = row.getContext('2d', { willReadFrequently: true });
  const seen = [];
  window.seen = seen;
  let last;
  window.shownFrames.onFrame = (source) => {
    const shownAt = Date.now();
    const factor = (source.videoWidth ?? source.width) / CARD_WIDTH; // a slow network makes smaller pictures
    context.drawImage(source, 0, (SIDE / 2) * factor, row.width * factor, 1, 0, 0, row.width, 1);
    const { data } = context.getImageData(0, 0, row.width, 1);
    const bits = Array.from({ length: SQUARES }, (_, square) => (data[(square * SIDE + SIDE / 2) * 4 + 1] > 127 ? 1 : 0));
    const bytes = Array.from({ length: 6 }, (_, byte) => bits.slice(byte * 8, byte * 8 + 8).reduce((all, bit) => all * 2 + bit, 0));
    // Rectangles come one by one: a part of the strip may be older than the rest.
    if ((bytes.slice(0, 5).reduce((all, byte) => all ^ byte) ^ CHECK) !== bytes[5]) return;
    const low = bytes.slice(0, 5).reduce((all, byte) => all * 256 + byte, 0);
    const drawnAt = low + Math.floor(shownAt / 2 ** 40) * 2 ** 40;
    if (drawnAt !== last) seen.push([shownAt, drawnAt]);
    last = drawnAt;
  };
}
