/** What the tabs have in common. */

import { h } from "./components/dom.js";
import { JobBar } from "./components/job-bar.js";
import { run } from "./engine.js";
import { words } from "./words.js";

/** A tab's heading and its sentence. */
export function heading({ title, lead }) {
  return h("div", { class: "heading" }, h("h1", {}, title), h("p", { class: "lead" }, lead));
}

/** Progress of tasks: `run(task, args, frame)` with those of tasks.js. */
export const jobBar = () => new JobBar({ words: words.job, job: run });

/** Where results appear: the sentence stands there until there are some. */
export function results(text, ...children) {
  const empty = h("p", { class: "empty" }, text);
  const element = h("div", { class: "results" }, ...children, empty);
  return { element, begin: () => (empty.hidden = true) };
}
