/** The model in a thread of its own: loads it, and runs one task after the other, each until it is cancelled. */

import * as ort from "./runtime/ort.js";
import { Model } from "./model.js";
import { TASKS } from "./tasks.js";

const here = (path) => new URL(path, import.meta.url);
const loaded = load();
const cancelled = new Set();
let before = Promise.resolve();

loaded.catch((error) => postMessage({ failed: String(error?.message ?? error) }));

onmessage = ({ data }) => {
  if (data.cancel) cancelled.add(data.cancel);
  else before = before.then(() => run(data));
};

async function load() {
  const facts = await (await get("model.json")).json();
  postMessage({ loading: 0, facts });
  let done = 0;
  const total = Object.values(facts.sizes).reduce((a, b) => a + b);
  const fetched = (name) => fetchBytes(name, (bytes) => postMessage({ loading: Math.min(1, (done += bytes) / total) }));
  const names = Object.keys(facts.sizes);
  const files = Object.fromEntries(await Promise.all(names.map(async (name) => [name, await fetched(name)])));
  Object.assign(ort.env.wasm, { wasmBinary: files["runtime/ort.wasm"].buffer, numThreads: threads() });
  const start = files["start.bin"] ? new Float32Array(files["start.bin"].buffer) : null;
  const model = await Model.load(facts, files["denoiser.onnx"], start);
  postMessage({ ready: true });
  return model;
}

/** Only pages that are isolated from others may use several. */
const threads = () => (self.crossOriginIsolated ? Math.min(4, navigator.hardwareConcurrency) : 1);

async function get(path) {
  const response = await fetch(here(path));
  if (!response.ok) throw new Error(`${path}: ${response.status} ${response.statusText}`);
  return response;
}

async function fetchBytes(path, progress) {
  const reader = (await get(path)).body.getReader();
  const parts = [];
  for (let part = await reader.read(); !part.done; part = await reader.read()) {
    parts.push(part.value);
    progress(part.value.length);
  }
  return new Uint8Array(await new Blob(parts).arrayBuffer());
}

async function run({ id, task, args }) {
  try {
    const model = await loaded;
    const begun = performance.now();
    const steps = TASKS[task](model, args);
    for (;;) {
      await turn();
      if (cancelled.delete(id)) return postMessage({ id, cancelled: true });
      const { done, value } = await steps.next();
      if (done) return postMessage({ id, done: { ...value, seconds: (performance.now() - begun) / 1000 } });
      postMessage({ id, frame: value });
    }
  } catch (error) {
    return postMessage({ id, error: String(error?.message ?? error) });
  }
}

/** Lets messages in, such as one that cancels. */
const turn = () => new Promise((done) => setTimeout(done));
