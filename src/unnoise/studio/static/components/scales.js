/** Axes: from values to pixels, and where to put ticks. */

/** A linear scale, or a logarithmic one, from [low, high] to [from, to]. */
export function scale(low, high, from, to, log = false) {
  const bend = log ? Math.log10 : (value) => value;
  const [start, end] = [bend(low), bend(high)];
  return (value) => from + ((bend(value) - start) / (end - start || 1)) * (to - from);
}

/** Round numbers within [low, high], about `count` of them. */
export function ticks(low, high, count) {
  const rough = (high - low) / count || 1;
  const power = 10 ** Math.floor(Math.log10(rough));
  const step = [1, 2, 5, 10].find((digit) => digit * power >= rough) * power;
  const found = [];
  for (let k = Math.ceil(low / step - 1e-9); k * step <= high + step * 1e-9; k++) found.push(k * step);
  return found;
}

/** Of a logarithmic scale: 1, 2 and 5 times powers of ten, or the powers alone where they are many. */
export function logTicks(low, high, count) {
  const decades = Math.log10(high / low);
  if (decades < 0.5) return ticks(low, high, count);
  const digits = decades > 3 ? [1] : [1, 2, 5];
  const found = [];
  for (let power = Math.floor(Math.log10(low)); power <= Math.ceil(Math.log10(high)); power++) {
    for (const digit of digits) found.push(digit * 10 ** power);
  }
  return found.filter((value) => value >= low * 0.999 && value <= high * 1.001);
}

/** A number in few letters: 12k, 0.045. */
export function short(value) {
  const size = Math.abs(value);
  if (size >= 1e6) return `${trim(value / 1e6)}M`;
  if (size >= 1e4) return `${trim(value / 1e3)}k`;
  return size === 0 || size >= 1e-3 ? trim(value) : value.toExponential(0);
}

function trim(value) {
  return String(Number(value.toPrecision(3))).replace("-", "−");
}
