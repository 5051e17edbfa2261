/** A job's progress, its button to cancel, and what went wrong. */

import { runJob } from "./api.js";
import { h } from "./components/dom.js";
import { notice } from "./components/fields.js";
import { words } from "./words.js";

/** `new JobBar()`; then `await run(path, body, frame)`, one job at a time: a new one cancels the one before. */
export class JobBar extends HTMLElement {
  #abort = null;

  constructor() {
    super();
    this.bar = h("progress", { max: 1, "aria-label": words.job.progress });
    this.text = h("span", { role: "status", class: "visually-hidden" });
    this.steps = h("span", { class: "steps" });
    this.row = h("div", { class: "row", hidden: true }, this.bar, this.steps, h("button", { type: "button", onclick: () => this.cancel() }, words.job.cancel));
    this.notice = notice();
    this.append(this.row, this.text, this.notice.element);
  }

  /** @returns {Promise<Object|null>} what the job gave; null where it was cancelled or failed, which is said. */
  async run(path, body, frame = () => {}) {
    this.cancel();
    const abort = (this.#abort = new AbortController());
    this.#begin();
    try {
      const handlers = { queued: (event) => this.#queued(event), frame: (event) => this.#frame(event, frame) };
      const result = await runJob(path, body, handlers, abort.signal);
      if (this.#abort === abort) this.#say(result ? words.job.done : words.job.cancelled);
      return result;
    } catch (error) {
      if (this.#abort === abort) this.fail(error);
      return null;
    } finally {
      if (this.#abort === abort) this.row.hidden = true;
    }
  }

  cancel() {
    this.#abort?.abort();
  }

  fail(error) {
    this.#say("");
    this.notice.say(error);
  }

  /** Seen only where it is not clear from the images. */
  #say(text) {
    this.text.textContent = text;
    this.text.classList.toggle("visually-hidden", text !== words.job.cancelled);
  }

  #begin() {
    this.notice.say(null);
    this.row.hidden = false;
    this.bar.removeAttribute("value");
    this.steps.textContent = "";
    this.#say(words.job.started);
  }

  #queued({ position }) {
    this.steps.textContent = position > 0 ? words.job.queued(position) : "";
  }

  #frame(event, frame) {
    this.bar.value = event.total ? event.step / event.total : 0;
    this.steps.textContent = words.job.step(event.step, event.total);
    frame(event);
  }
}

customElements.define("job-bar", JobBar);
