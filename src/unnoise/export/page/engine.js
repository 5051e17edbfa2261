/** The page's side of the worker. */

const waiting = new Map(); // id -> {frame, done, fail}
const worker = new Worker(new URL("worker.js", import.meta.url), { type: "module" });
let last = 0;

/** The state of the model: {loading} from 0 to 1, with the facts of model.json at first, {ready} or {failed}; `watch(tell)` is told now and whenever it changes. */
export const state = { value: { loading: 0 }, watchers: [], watch(tell) { this.watchers.push(tell); tell(this.value); } };

function change(value) {
  state.value = value;
  for (const tell of state.watchers) tell(value);
}

worker.onerror = (event) => change({ failed: event.message ?? "" });
worker.onmessage = ({ data }) => {
  if (data.id === undefined) return change(data);
  const { frame, done, fail } = waiting.get(data.id);
  if (data.frame) return frame(data.frame);
  waiting.delete(data.id);
  return data.error ? fail(new Error(data.error)) : done(data.cancelled ? null : data.done);
};

/**
 * Runs a task of tasks.js; `frame` is called with each of its frames. Gives what it found, null where `signal` cancelled it.
 * @param {AbortSignal} signal
 */
export function run(task, args, { frame = () => {}, signal = null } = {}) {
  const id = (last += 1);
  signal?.addEventListener("abort", () => waiting.has(id) && worker.postMessage({ cancel: id }));
  worker.postMessage({ id, task, args });
  return new Promise((done, fail) => waiting.set(id, { frame, done, fail }));
}
