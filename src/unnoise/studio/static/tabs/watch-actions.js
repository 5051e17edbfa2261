/** What can be done with a run: stop it, go on with it, sample from it, read its report. */

import { post, remove, runPath } from "../api.js";
import { h } from "../components/dom.js";
import { field, notice, number, valueOf } from "../components/fields.js";
import { words } from "../words.js";

const said = words.watch;

export class Actions {
  #state = null;
  #error = null;

  constructor(name) {
    this.path = runPath(name);
    this.notice = notice();
    this.doing = h("p", { class: "quiet doing", role: "status" });
    this.stop = h("button", { type: "button", onclick: () => this.#stop() }, said.stop);
    this.remove = h("button", { type: "button", onclick: () => this.#ask(() => remove(this.path)) }, said.remove);
    this.minutes = number(null, { min: 0.05, step: "any" });
    const resume = h("button", { type: "button", onclick: () => this.#resume() }, said.resume);
    this.resume = h("span", { class: "inline" }, resume, field(said.minutes, this.minutes));
    const to = (tab) => `#${tab}/${encodeURIComponent(name)}`;
    this.links = [h("a", { class: "button", href: to("sample") }, said.toSample), h("a", { class: "button", href: to("report") }, said.toReport)];
    const buttons = h("div", { class: "buttons" }, this.stop, this.remove, this.resume, ...this.links);
    this.element = h("div", {}, buttons, this.doing, this.notice.element);
  }

  /** What can be done now. */
  show(run) {
    if (run.state !== this.#state || run.error !== this.#error) this.#changed(run);
    this.stop.hidden = run.state !== "training";
    this.remove.hidden = run.state !== "failed";
    this.resume.hidden = run.state !== "stopped" && run.state !== "finished";
    for (const link of this.links) link.hidden = run.step === 0 || run.state === "damaged";
  }

  #changed(run) {
    this.#state = run.state;
    this.#error = run.error;
    this.doing.textContent = "";
    this.stop.textContent = said.stop;
    this.notice.say(run.error);
  }

  /** The first time it ends with a short decay of the learning rate, the second time at once. */
  async #stop() {
    if (!(await this.#ask(() => post(`${this.path}/stop`, {})))) return;
    this.doing.textContent = said.stopping;
    this.stop.textContent = said.stopNow;
  }

  async #resume() {
    const minutes = valueOf(this.minutes);
    if (this.#state === "finished" && minutes === null) this.notice.say(said.minutesFirst);
    else if (await this.#ask(() => post(`${this.path}/resume`, { minutes }))) this.doing.textContent = said.resuming;
  }

  /** Whether the server did as asked; what it refused is said. */
  async #ask(request) {
    this.notice.say(null);
    try {
      await request();
      return true;
    } catch (error) {
      this.notice.say(error);
      return false;
    }
  }
}
