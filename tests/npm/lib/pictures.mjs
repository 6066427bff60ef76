// What pictures hold: their kind and size, and the pixels of a PNG.

import assert from 'node:assert/strict';
import zlib from 'node:zlib';

const PNG_SIGNATURE = Buffer.from('\x89PNG\r\n\x1a\n', 'latin1');
/** Samples a pixel, by colour type (PNG, section 11.2.2). */
const CHANNELS = { 0: 1, 2: 3, 3: 1, 4: 2, 6: 4 };

/** {kind: 'png' | 'jpeg' | 'webp', width, height} of a file's bytes. */
export function describePicture(data) {
  const bytes = Buffer.from(data);
  if (bytes.subarray(0, 8).equals(PNG_SIGNATURE)) return { kind: 'png', width: bytes.readUInt32BE(16), height: bytes.readUInt32BE(20) };
  if (bytes.readUInt16BE(0) === 0xffd8) return { kind: 'jpeg', ...jpegSize(bytes) };
  if (bytes.toString('latin1', 0, 4) === 'RIFF' && bytes.toString('latin1', 8, 12) === 'WEBP') return { kind: 'webp', ...webpSize(bytes) };
  return assert.fail(`no picture: ${bytes.subarray(0, 16).toString('hex')}`);
}

/** Looks for the frame header (JPEG, T.81, B.2.2). */
function jpegSize(bytes) {
  for (let at = 2; at < bytes.length; at += 2 + bytes.readUInt16BE(at + 2)) {
    const marker = bytes[at + 1];
    if (marker >= 0xc0 && marker <= 0xc3) return { width: bytes.readUInt16BE(at + 7), height: bytes.readUInt16BE(at + 5) };
  }
  return assert.fail('a JPEG without a frame header');
}

/** RFC 9649, sections 2.5 to 2.7. */
function webpSize(bytes) {
  const chunk = bytes.toString('latin1', 12, 16);
  if (chunk === 'VP8 ') return { width: bytes.readUInt16LE(26) & 0x3fff, height: bytes.readUInt16LE(28) & 0x3fff };
  if (chunk === 'VP8X') return { width: bytes.readUIntLE(24, 3) + 1, height: bytes.readUIntLE(27, 3) + 1 };
  assert.equal(chunk, 'VP8L');
  const bits = bytes.readUInt32LE(21);
  return { width: (bits & 0x3fff) + 1, height: ((bits >> 14) & 0x3fff) + 1 };
}

/** Reads a PNG that isn't interlaced and has no more than 8 bits a sample; `at(x, y)` is [red, green, blue]. */
export function decodePng(data) {
  const chunks = pngChunks(Buffer.from(data));
  const header = chunks.find(({ type }) => type === 'IHDR').body;
  const [width, height, depth, colour] = [header.readUInt32BE(0), header.readUInt32BE(4), header[8], header[9]];
  assert.ok(depth <= 8 && header[12] === 0, `${depth} bits a sample, interlace ${header[12]}`);
  const raw = zlib.inflateSync(Buffer.concat(chunks.filter(({ type }) => type === 'IDAT').map(({ body }) => body)));
  const bits = depth * CHANNELS[colour];
  const rows = unfilter(raw, Math.ceil((width * bits) / 8), height, Math.max(1, bits >> 3));
  const palette = chunks.find(({ type }) => type === 'PLTE')?.body;
  const at = (x, y) => {
    assert.ok(x >= 0 && y >= 0 && x < width && y < height, `${x},${y} is not in ${width}x${height}`);
    if (colour === 2 || colour === 6) return [...rows[y].subarray(x * CHANNELS[colour]).subarray(0, 3)];
    if (colour === 4) return Array(3).fill(rows[y][2 * x]);
    const sample = (rows[y][(x * depth) >> 3] >> (8 - depth - ((x * depth) & 7))) & ((1 << depth) - 1);
    return colour === 3 ? [...palette.subarray(3 * sample, 3 * sample + 3)] : Array(3).fill((sample * 255) / ((1 << depth) - 1));
  };
  return { width, height, at };
}

function pngChunks(bytes) {
  assert.ok(bytes.subarray(0, 8).equals(PNG_SIGNATURE), 'not a PNG');
  const chunks = [];
  for (let at = 8; at < bytes.length;) {
    const length = bytes.readUInt32BE(at);
    chunks.push({ type: bytes.toString('latin1', at + 4, at + 8), body: bytes.subarray(at + 8, at + 8 + length) });
    at += 12 + length;
  }
  assert.equal(chunks.at(-1).type, 'IEND', 'a PNG that is cut off');
  return chunks;
}

/** Undoes the filters of each row (PNG, section 9). */
function unfilter(raw, stride, height, step) {
  let above = Buffer.alloc(stride);
  return Array.from({ length: height }, (_, y) => {
    const filter = raw[y * (stride + 1)];
    const row = Buffer.from(raw.subarray(y * (stride + 1) + 1, (y + 1) * (stride + 1)));
    for (let i = 0; i < stride; i += 1) {
      const [left, corner] = i < step ? [0, 0] : [row[i - step], above[i - step]];
      row[i] += predicted(filter, left, above[i], corner);
    }
    above = row;
    return row;
  });
}

function predicted(filter, left, up, corner) {
  if (filter === 0) return 0;
  if (filter === 1) return left;
  if (filter === 2) return up;
  if (filter === 3) return (left + up) >> 1;
  const guess = left + up - corner;
  const [a, b, c] = [left, up, corner].map((value) => Math.abs(guess - value));
  if (a <= b && a <= c) return left;
  return b <= c ? up : corner;
}
