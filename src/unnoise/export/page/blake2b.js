/** BLAKE2b with a digest of 16 bytes, of texts of up to 128 bytes (RFC 7693). */

const IV = [
  0x6a09e667f3bcc908n, 0xbb67ae8584caa73bn, 0x3c6ef372fe94f82bn, 0xa54ff53a5f1d36f1n,
  0x510e527fade682d1n, 0x9b05688c2b3e6c1fn, 0x1f83d9abfb41bd6bn, 0x5be0cd19137e2179n,
];
const SIGMA = [
  "0123456789abcdef", "ea489fd61c02b753", "b8c052fdae367194", "7931dcbe265a40f8", "905724afe1bc683d",
  "2c6a0b834d75fe19", "c51fed4a0763928b", "db7ec13950f4862a", "6fe9b308c2d714a5", "a2847615fb9e3cd0",
];
const COLUMNS = [[0, 4, 8, 12], [1, 5, 9, 13], [2, 6, 10, 14], [3, 7, 11, 15], [0, 5, 10, 15], [1, 6, 11, 12], [2, 7, 8, 13], [3, 4, 9, 14]];
const ROUNDS = 12;
const LENGTH = 16;

const low = (value) => BigInt.asUintN(64, value);
const rotate = (value, n) => low((value >> n) | (value << (64n - n)));

/** @returns {[bigint, bigint]} the digest as two little-endian numbers of 64 bits. */
export function blake2b(text) {
  const bytes = new Uint8Array(128);
  const { read, written } = new TextEncoder().encodeInto(text, bytes);
  if (read < text.length) throw new RangeError("a text of more than 128 bytes");
  const words = [...new BigUint64Array(bytes.buffer)]; // every machine that runs browsers is little-endian
  const h = [IV[0] ^ 0x01010000n ^ BigInt(LENGTH), ...IV.slice(1)];
  const v = [...h, ...IV];
  v[12] ^= BigInt(written);
  v[14] = low(~v[14]); // the last block
  for (let round = 0; round < ROUNDS; round++) {
    const order = [...SIGMA[round % 10]].map((digit) => words[parseInt(digit, 16)]);
    COLUMNS.forEach((column, k) => mix(v, column, order[2 * k], order[2 * k + 1]));
  }
  return [h[0] ^ v[0] ^ v[8], h[1] ^ v[1] ^ v[9]];
}

function mix(v, [a, b, c, d], x, y) {
  v[a] = low(v[a] + v[b] + x);
  v[d] = rotate(v[d] ^ v[a], 32n);
  v[c] = low(v[c] + v[d]);
  v[b] = rotate(v[b] ^ v[c], 24n);
  v[a] = low(v[a] + v[b] + y);
  v[d] = rotate(v[d] ^ v[a], 16n);
  v[c] = low(v[c] + v[d]);
  v[b] = rotate(v[b] ^ v[c], 63n);
}
