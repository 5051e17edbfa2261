/** The trained model: its network in onnxruntime, guidance, and where trajectories start. Batches are Float32Arrays. */

import * as ort from "./runtime/ort.js";
import { Stream } from "./rng.js";
import { clip } from "./table.js";

const MOST_RATIO = 1e9; // of sigma to alpha, where alpha is 0

export class Model {
  /** @param facts model.json @param {Uint8Array} graph the ONNX file @param {Float32Array} start the file of moments, or null */
  static async load(facts, graph, start) {
    const session = await ort.InferenceSession.create(graph, { executionProviders: ["wasm"] });
    return Object.assign(new Model(), { facts, session, start, size: facts.shape.reduce((a, b) => a * b) });
  }

  /** The class of each image: the one named, each in turn for "all", or drawn where it is null, as the command does. */
  labels(label, seed, indices) {
    const { classes } = this.facts;
    if (!classes.length) return indices.map(() => -1);
    if (label === null) return indices.map((k) => new Stream(seed, "label", k).below(classes.length));
    if (label === "all" && !classes.includes("all")) return indices.map((k) => k % classes.length);
    return indices.map(() => classes.indexOf(label));
  }

  /** x at the most noise: noise alone, or noise added to an image from the Gaussian of the training images. */
  begin(streams, from = this.facts.start.from) {
    const { alpha, sigma } = this.facts.start;
    return join(streams.map((stream) => {
      const image = from === "data" ? this.#gaussian(stream) : null;
      const scale = image ? sigma : Math.hypot(alpha, sigma);
      return stream.normal(this.size).map((noise, k) => scale * noise + (image ? alpha * image[k] : 0));
    }));
  }

  #gaussian(stream) {
    const [residual, mean] = [this.start[0], this.start.subarray(1, 1 + this.size)];
    const noise = stream.normal(this.size);
    const image = Float64Array.from(mean, (value, k) => value + residual * noise[k]);
    stream.normal(this.start.length / this.size - 1 | 0).forEach((coordinate, row) => {
      const basis = this.start.subarray(1 + (row + 1) * this.size);
      for (let k = 0; k < this.size; k++) image[k] += coordinate * basis[k];
    });
    return image;
  }

  /** The estimates of the images behind x, guided by `scale`, clamped as the run's recipe says. */
  async guided(x, alpha, sigma, labels, scale) {
    const { guidance, clamp, dynamic } = this.facts;
    const ratio = Math.min(sigma / alpha, MOST_RATIO);
    const plain = scale === 1 || !guidance || ratio <= guidance.low || ratio > guidance.high;
    const found = plain ? await this.estimate(x, alpha, sigma, labels) : await this.#both(x, alpha, sigma, labels, scale);
    return clamp ? this.#each(found, (image) => limit(image, dynamic)) : found;
  }

  async #both(x, alpha, sigma, labels, scale) {
    const both = await this.estimate(join([x, x]), alpha, sigma, [...labels, ...labels.map(() => -1)]);
    const [good, bad] = [both.subarray(0, x.length), both.subarray(x.length)];
    const guided = good.map((value, k) => bad[k] + scale * (value - bad[k]));
    const { rescale } = this.facts.guidance;
    if (!rescale) return guided;
    return this.#each(guided, (image, k) => {
      const factor = 1 + rescale * (deviation(good.subarray(k * this.size, (k + 1) * this.size)) / deviation(image) - 1);
      return image.map((value) => factor * value);
    });
  }

  #each(x, change) {
    return join(Array.from({ length: x.length / this.size }, (_, k) => change(x.subarray(k * this.size, (k + 1) * this.size), k)));
  }

  /** The network's estimates of the images behind x = alpha image + sigma noise; the label -1 is none. */
  async estimate(x, alpha, sigma, labels) {
    const most = this.facts.dynamic_batch ? labels.length : 1;
    const found = [];
    for (let k = 0; k < labels.length; k += most) {
      const part = labels.slice(k, k + most);
      found.push(await this.#call(x.subarray(k * this.size, (k + part.length) * this.size), alpha, sigma, part));
    }
    return join(found);
  }

  async #call(x, alpha, sigma, labels) {
    const scale = (value) => new ort.Tensor("float32", new Float32Array(labels.length).fill(value), [labels.length]);
    const feeds = { x: new ort.Tensor("float32", x, [labels.length, ...this.facts.shape]), alpha: scale(alpha), sigma: scale(sigma) };
    if (this.facts.classes.length) feeds.label = new ort.Tensor("int64", BigInt64Array.from(labels, BigInt), [labels.length]);
    const { x_hat } = await this.session.run(feeds);
    return x_hat.data;
  }
}

/** Batches, one after the other. */
export function join(parts) {
  const out = new Float32Array(parts.reduce((sum, part) => sum + part.length, 0));
  parts.reduce((place, part) => (out.set(part, place), place + part.length), 0);
  return out;
}

/** An estimate within [-1, 1], divided first by a quantile of its absolute values, if that is larger (Saharia et al. 2022). */
function limit(image, quantile) {
  if (!quantile) return clip(image);
  const sorted = image.map(Math.abs).sort();
  const place = quantile * (sorted.length - 1);
  const [low, high] = [sorted[Math.floor(place)], sorted[Math.ceil(place)]];
  const most = Math.max(1, low + (place % 1) * (high - low));
  return image.map((value) => Math.max(-1, Math.min(1, value / most)));
}

function deviation(values) {
  const mean = values.reduce((sum, value) => sum + value, 0) / values.length;
  return Math.sqrt(values.reduce((sum, value) => sum + (value - mean) ** 2, 0) / (values.length - 1));
}

/** Between two noises on the sphere, so that the noise level stays (Shoemake 1985); lengths are interpolated linearly. */
export function slerp(a, b, fraction) {
  const dot = (x, y) => x.reduce((sum, value, k) => sum + value * y[k], 0);
  const lengths = [Math.sqrt(dot(a, a)), Math.sqrt(dot(b, b))];
  const angle = Math.acos(Math.max(-1, Math.min(1, dot(a, b) / (lengths[0] * lengths[1]))));
  if (angle < 1e-4) return a.map((value, k) => value + fraction * (b[k] - value));
  const length = (lengths[0] + fraction * (lengths[1] - lengths[0])) / Math.sin(angle);
  const [one, other] = [Math.sin((1 - fraction) * angle) / lengths[0], Math.sin(fraction * angle) / lengths[1]];
  return a.map((value, k) => length * (one * value + other * b[k]));
}
