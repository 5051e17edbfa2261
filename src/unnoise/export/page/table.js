/** Runs a sampler that was written down as a table of sums (`unnoise.export.table`). */

/**
 * Yields {step, steps, x, estimate} after each step of the trajectory that begins at x.
 * @param {{lines: Object[], clamp: boolean}} table
 * @param {Float32Array} x a batch of images
 * @param {(x: Float32Array, alpha: number, sigma: number) => Promise<Float32Array>} denoise gives the estimates of the images
 * @param {() => Float32Array} normal gives fresh noise
 */
export async function* follow({ lines, clamp }, x, denoise, normal) {
  const values = new Map([["x0", x]]);
  const ends = lastUses(lines);
  const steps = lines.filter((line) => line.step).length;
  let [step, estimate] = [0, null];
  for (const [k, line] of lines.entries()) {
    if (line.noise) values.set(line.noise, normal());
    else if (line.call) values.set(line.call, (estimate = await denoise(add(line.sum, values, x.length), line.alpha, line.sigma)));
    else {
      const found = add(line.sum, values, x.length);
      values.set(line.step, clamp ? clip(found) : found);
      step += 1;
      yield { step, steps, x: values.get(line.step), estimate };
    }
    for (const name of ends[k]) values.delete(name);
  }
}

/** How often the network is called. */
export const calls = (table) => table.lines.filter((line) => line.call).length;

/** The values clipped to [-1, 1], in place. */
export function clip(values) {
  for (let k = 0; k < values.length; k++) values[k] = Math.max(-1, Math.min(1, values[k]));
  return values;
}

function add(sum, values, length) {
  const total = new Float64Array(length);
  for (const [name, factor] of Object.entries(sum)) {
    const value = values.get(name);
    for (let k = 0; k < length; k++) total[k] += factor * value[k];
  }
  return Float32Array.from(total);
}

/** For each line, the names that no later one needs. */
function lastUses(lines) {
  const seen = new Set();
  const ends = lines.map(() => []);
  for (let k = lines.length - 1; k >= 0; k--) {
    const { sum = {}, noise, call, step } = lines[k];
    for (const name of [...Object.keys(sum), noise ?? call ?? step]) {
      if (!seen.has(name)) ends[k].push(name);
      seen.add(name);
    }
  }
  return ends;
}
