/** A job's progress, its button to cancel, and what went wrong. */

import { h } from "./dom.js";
import { notice } from "./fields.js";

/**
 * `new JobBar({words, job, quiet})`; then `await run(what, args, frame)`, one job at a time: a new one cancels the one before.
 *
 * `job(what, args, {frame, queued, signal})` does the work, calls `frame` with {step, total} and more, or `queued` with {position},
 * and gives its result, null where `signal` aborted it. `words` are {progress, cancel, started, step(n, total), queued(n),
 * done(result), cancelled}. With `quiet` the end of a job is told to screen readers alone.
 */
export class JobBar extends HTMLElement {
  #abort = null;

  constructor({ words, job, quiet = false }) {
    super();
    Object.assign(this, { words, job, quiet });
    this.bar = h("progress", { max: 1, "aria-label": words.progress });
    this.text = h("span", { role: "status", class: "visually-hidden" });
    this.steps = h("span", { class: "steps" });
    this.row = h("div", { class: "row", hidden: true }, this.bar, this.steps, h("button", { type: "button", onclick: () => this.cancel() }, words.cancel));
    this.notice = notice();
    this.append(this.row, this.text, this.notice.element);
  }

  /** @returns {Promise<Object|null>} what the job gave; null where it was cancelled or failed, which is said. */
  async run(what, args, frame = () => {}) {
    this.cancel();
    const abort = (this.#abort = new AbortController());
    this.#begin();
    const handlers = { queued: (event) => this.#queued(event), frame: (event) => abort.signal.aborted || this.#frame(event, frame) };
    try {
      const result = await this.job(what, args, { ...handlers, signal: abort.signal });
      if (this.#abort === abort) this.#say(result ? this.words.done(result) : this.words.cancelled, !result || !this.quiet);
      return abort.signal.aborted ? null : result;
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

  #say(text, seen = false) {
    this.text.textContent = text;
    this.text.classList.toggle("visually-hidden", !seen);
  }

  #begin() {
    this.notice.say(null);
    this.row.hidden = false;
    this.bar.removeAttribute("value");
    this.steps.textContent = "";
    this.#say(this.words.started);
  }

  #queued({ position }) {
    this.steps.textContent = position > 0 ? this.words.queued(position) : "";
  }

  #frame(event, frame) {
    this.bar.value = event.total ? event.step / event.total : 0;
    this.steps.textContent = this.words.step(event.step, event.total);
    frame(event);
  }
}

customElements.define("job-bar", JobBar);
