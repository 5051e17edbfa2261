/** The progress of a job of the server's. */

import { runJob } from "./api.js";
import { JobBar } from "./components/job-bar.js";
import { words } from "./words.js";

/** A bar with `run(path, body, frame)`; `step(n, total)` says how far it is. */
export function jobBar(step = words.job.step) {
  const job = (path, body, { signal, ...handlers }) => runJob(path, body, handlers, signal);
  return new JobBar({ words: { ...words.job, step }, job, quiet: true });
}
