/**
 * The random numbers of unnoise (`unnoise.utils.rng`), the same to the bit: NumPy's Philox generator, keyed by a hash of what the
 * numbers are for, and its normal numbers in float32 by the ziggurat method (Salmon et al. 2011; Marsaglia & Tsang 2000).
 */

import { blake2b } from "./blake2b.js";

const MULTIPLIERS = [0xd2e7470ee14c6c93n, 0xca5a826395121157n];
const WEYL = [0x9e3779b97f4a7c15n, 0xbb67ae8584caa73bn];
const ROUNDS = 10;

/** A generator that belongs to one (seed, purpose, number); `seed` is a whole number or its text. */
export class Stream {
  #counter = 0n;
  #words = new Uint32Array(8); // a block of 4 x 64 bits, read from the lowest half
  #place = 8;

  constructor(seed, purpose, number) {
    this.key = blake2b(`(${seed}, '${purpose}', (${number},))`);
  }

  #block() {
    this.#counter += 1n;
    let [c0, c1, c2, c3] = [this.#counter, 0n, 0n, 0n];
    let [k0, k1] = this.key;
    for (let round = 0; round < ROUNDS; round++) {
      const [p, q] = [MULTIPLIERS[0] * c0, MULTIPLIERS[1] * c2];
      [c0, c1, c2, c3] = [(q >> 64n) ^ c1 ^ k0, low(q), (p >> 64n) ^ c3 ^ k1, low(p)];
      [k0, k1] = [low(k0 + WEYL[0]), low(k1 + WEYL[1])];
    }
    this.#words = new Uint32Array(new BigUint64Array([c0, c1, c2, c3]).buffer);
    this.#place = 0;
  }

  /** 32 random bits. */
  bits() {
    if (this.#place === 8) this.#block();
    return this.#words[this.#place++];
  }

  /** Uniform in [0, 1), of 24 bits. */
  uniform() {
    return (this.bits() >>> 8) / 2 ** 24;
  }

  /** A whole number in [0, n) (Lemire 2019). */
  below(n) {
    if (n === 1) return 0;
    for (;;) {
      const product = this.bits() * n; // exact below 2^53
      if (product % 2 ** 32 >= 2 ** 32 % n) return Math.floor(product / 2 ** 32);
    }
  }

  /** @returns {Float32Array} standard normal numbers. */
  normal(count) {
    const out = new Float32Array(count);
    for (let k = 0; k < count; k++) out[k] = this.#one();
    return out;
  }

  #one() {
    for (;;) {
      const bits = this.bits();
      const layer = bits & 0xff;
      const size = bits >>> 9;
      const x = (bits & 0x100 ? -1 : 1) * round(size * WIDTHS[layer]);
      if (size < INSIDE[layer]) return x;
      if (layer === 0) return this.#tail(size);
      const y = round(round(round(HEIGHTS[layer - 1] - HEIGHTS[layer]) * this.uniform()) + HEIGHTS[layer]);
      if (y < Math.exp(-0.5 * x * x)) return x;
    }
  }

  #tail(size) {
    for (;;) {
      const x = round(-round(1 / EDGE) * round(Math.log1p(-this.uniform())));
      const y = -round(Math.log1p(-this.uniform()));
      if (round(y + y) > round(x * x)) return ((size >>> 8) & 1 ? -1 : 1) * round(round(EDGE) + x);
    }
  }
}

const low = (value) => BigInt.asUintN(64, value);
const round = Math.fround;

// 256 layers of equal area under exp(-x^2 / 2): where each ends, in units of 2^-23, and how high it lies.
const EDGE = 3.6541528853610088;
const AREA = 0.004928673233974658;
const [WIDTHS, HEIGHTS, INSIDE] = layers();

function layers() {
  const height = (x) => Math.exp((-x * x) / 2);
  const ends = new Float64Array(256);
  ends[255] = EDGE;
  for (let k = 254; k > 0; k--) ends[k] = Math.sqrt(-2 * Math.log(AREA / ends[k + 1] + height(ends[k + 1])));
  const base = AREA / height(EDGE);
  const inside = Uint32Array.from(ends, (end, k) => Math.round(2 ** 23 * (k === 0 ? EDGE / base : ends[k - 1] / end)));
  inside[1] = 0;
  const widths = Float32Array.from(ends, (end, k) => (k === 0 ? base : end) / 2 ** 23);
  return [widths, Float32Array.from(ends, height), inside];
}
