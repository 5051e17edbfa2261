/** Images as pixels, {width, height, rgba}, and as the numbers on [-1, 1] that the network sees, channel by channel. */

const HALF_RANGE = 127.5;

/** A batch of numbers as images; those that exceed [-1, 1] are scaled to their own range with `fit`, else clipped. */
export function toImages(x, [channels, height, width], fit = false) {
  const size = channels * height * width;
  return Array.from({ length: x.length / size }, (_, k) => toImage(x.subarray(k * size, (k + 1) * size), channels, height, width, fit));
}

function toImage(x, channels, height, width, fit) {
  const area = height * width;
  const range = fit ? x.reduce((most, value) => Math.max(most, Math.abs(value)), 1) : 1;
  const rgba = new Uint8ClampedArray(4 * area).fill(255); // rounds and clips by itself
  for (let k = 0; k < area; k++) {
    for (let c = 0; c < 3; c++) rgba[4 * k + c] = (x[(channels === 1 ? 0 : c) * area + k] / range + 1) * HALF_RANGE;
  }
  return { width, height, rgba };
}

/** An image as numbers; of a grey one the first channel counts. @returns {Float32Array} */
export function toNumbers({ width, height, rgba }, channels) {
  const area = width * height;
  return Float32Array.from({ length: channels * area }, (_, k) => rgba[4 * (k % area) + Math.floor(k / area)] / HALF_RANGE - 1);
}

/** The peak signal-to-noise ratio of two images, in dB. */
export function psnr(a, b) {
  const [one, other] = [toNumbers(a, 3), toNumbers(b, 3)];
  const error = one.reduce((sum, value, k) => sum + (value - other[k]) ** 2, 0) / one.length;
  return 10 * Math.log10(4 / error);
}

/** Pixels as Pillow makes them grey. */
export function toGrey(rgba) {
  for (let k = 0; k < rgba.length; k += 4) {
    rgba.fill((rgba[k] * 19595 + rgba[k + 1] * 38470 + rgba[k + 2] * 7471 + 0x8000) >> 16, k, k + 3);
  }
  return rgba;
}
