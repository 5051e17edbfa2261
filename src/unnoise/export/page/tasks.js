/** What the page asks of the model. Each task yields frames and returns what it found; images are {width, height, rgba}. */

import { toImages, toNumbers } from "./images.js";
import { join, slerp } from "./model.js";
import { Stream } from "./rng.js";
import { clip, follow } from "./table.js";

const HALF_RANGE = 127.5;
const range = (count) => [...Array(count).keys()];

/** New images: those of `unnoise sample` for the same seed. */
async function* sample(model, { seed, count, label, guidance, steps }) {
  const streams = range(count).map((k) => new Stream(seed, "sample", k));
  const labels = model.labels(label, seed, range(count));
  const denoise = (x, alpha, sigma) => model.guided(x, alpha, sigma, labels, guidance);
  const images = yield* frames(model, model.facts.sample[steps], model.begin(streams), denoise, streams);
  return { images, labels: labels.map((each) => model.facts.classes[each] ?? null) };
}

/** Images like one: noised a part of the way, and sampled from there (SDEdit, Meng et al. 2022). */
async function* vary(model, { image, strength, seed, count, label, guidance }) {
  const table = model.facts.vary[strength];
  const clean = toNumbers(image, model.facts.shape[0]);
  const streams = range(count).map((k) => new Stream(seed, "vary", k));
  const labels = model.labels(label, seed, range(count));
  const start = (stream) => stream.normal(model.size).map((noise, k) => table.alpha * clean[k] + table.sigma * noise);
  const denoise = (x, alpha, sigma) => model.guided(x, alpha, sigma, labels, guidance);
  return { images: yield* frames(model, table, join(streams.map(start)), denoise, streams) };
}

/** Images between two samples, through the noises that they come from, by DDIM without guidance. */
async function* morph(model, { a, b, count, label }) {
  const [one, other] = [a, b].map(({ seed, index }) => model.begin([new Stream(seed, "sample", index)], "noise"));
  const x = join(range(count).map((k) => slerp(one, other, k / (count - 1))));
  const labels = range(count).map(() => model.facts.classes.indexOf(label));
  const denoise = (batch, alpha, sigma) => model.estimate(batch, alpha, sigma, labels);
  return { images: yield* frames(model, model.facts.ddim, x, denoise, []) };
}

/** Images that agree with one where it is known (DDNM, Wang et al. 2023, equation 13); `mask` is 1 where it is missing. */
async function* inpaint(model, { image, mask, seed, count, label }) {
  const known = toNumbers(image, model.facts.shape[0]);
  const area = mask.length;
  const streams = range(count).map((k) => new Stream(seed, `restore ${k}`, 0));
  const labels = range(count).map(() => model.facts.classes.indexOf(label));
  const denoise = async (x, alpha, sigma) => {
    const found = await model.estimate(x, alpha, sigma, labels);
    return found.map((value, k) => (mask[k % area] ? value : known[k % model.size]));
  };
  const table = { ...model.facts.restore, clamp: false };
  return { images: yield* frames(model, table, model.begin(streams, "noise"), denoise, streams) };
}

/** The estimate of least squared error of an image under noise of `sigma`, of 255; with `add` that noise is added first. */
// eslint-disable-next-line require-yield
async function* denoise(model, { image, sigma, add, label }) {
  const level = sigma / HALF_RANGE;
  const noise = add === null ? null : new Stream(add, "noise", 0).normal(model.size);
  const y = toNumbers(image, model.facts.shape[0]).map((value, k) => value + (noise ? level * noise[k] : 0));
  const found = await model.estimate(y, 1, level, [model.facts.classes.indexOf(label)]);
  const [before, after] = [y, clip(found)].map((x) => toImages(x, model.facts.shape)[0]);
  return { before, after };
}

async function* frames(model, table, start, denoise, streams) {
  const normal = () => join(streams.map((stream) => stream.normal(model.size)));
  let last = null;
  for await (const { step, steps, x, estimate } of follow(table, start, denoise, normal)) {
    yield { step, total: steps, images: toImages(x, model.facts.shape, true), estimates: toImages(estimate, model.facts.shape) };
    last = x;
  }
  return toImages(last, model.facts.shape);
}

export const TASKS = { sample, vary, morph, inpaint, denoise };
