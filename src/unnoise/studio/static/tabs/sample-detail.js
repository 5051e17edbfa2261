/** One sample: its trajectory, what it resembles in the data, and images near it or between it and another. */

import { get } from "../api.js";
import { h } from "../components/dom.js";
import { notice } from "../components/fields.js";
import { PixelCanvas } from "../components/pixels.js";
import { TimeSlider } from "../components/time-slider.js";
import { words } from "../words.js";

const said = words.sample;

/** `sample(extra, caption)` begins a new sampling; `closed()` is called when nothing is chosen any more. */
export class SampleDetail {
  #index = null;
  #morphing = false;
  #frames = [];

  constructor({ sample, closed }) {
    this.job = null;
    this.sample = sample;
    this.closed = closed;
    this.title = h("h2", { tabindex: -1 });
    this.canvas = new PixelCanvas();
    this.slider = new TimeSlider({ label: said.trajectory, min: 0, max: 0, step: 1, text: (k) => said.trajectoryStep(k + 1, this.#frames.length), ends: said.ends });
    this.slider.addEventListener("input", () => this.canvas.show(this.#frames[this.slider.value]));
    this.neighbours = h("div", { class: "neighbours" });
    this.notice = notice();
    this.hint = h("p", { role: "status" });
    this.strength = new TimeSlider({ label: said.strength, min: 0.05, max: 0.95, step: 0.05, value: 0.5, text: said.percent, ends: said.strengthEnds });
    this.element = h("section", { class: "sample-detail", hidden: true }, this.#head(), this.#body());
  }

  #head() {
    return h("div", { class: "title" }, this.title, h("button", { type: "button", onclick: () => this.close() }, said.close));
  }

  #body() {
    const vary = () => this.sample({ from: { job: this.job, index: this.#index, strength: this.strength.value } }, said.varied(this.#index));
    const morph = () => {
      this.#morphing = true;
      this.hint.textContent = said.morphChoose;
    };
    const left = h("div", { class: "large" }, this.canvas, this.slider);
    const right = h(
      "div",
      {},
      h("h3", {}, said.nearest),
      h("p", { class: "quiet" }, said.nearestHint),
      this.neighbours,
      this.notice.element,
      this.strength,
      h("div", { class: "buttons" }, h("button", { type: "button", onclick: vary }, said.vary), h("button", { type: "button", onclick: morph }, said.morph)),
      this.hint,
    );
    return h("div", { class: "split even" }, left, right);
  }

  /** Shows image k, or morphs to it where that was asked for. */
  choose(k, image) {
    if (this.#morphing && k !== this.#index) {
      const [a, b] = [this.#index, k];
      this.sample({ morph: { job: this.job, a, b } }, said.morphing(a, b));
      return;
    }
    this.#morphing = false;
    this.#index = k;
    this.hint.textContent = "";
    this.title.textContent = said.detail(k);
    this.canvas.label = said.detail(k);
    this.canvas.show(image);
    this.element.hidden = false;
    this.title.focus({ preventScroll: true });
    this.element.scrollIntoView({ block: "nearest", behavior: matchMedia("(prefers-reduced-motion: reduce)").matches ? "auto" : "smooth" });
    this.#trajectory(k);
    this.#nearest(k);
  }

  close() {
    this.element.hidden = true;
    this.#morphing = false;
    this.closed();
  }

  async #trajectory(k) {
    this.slider.hidden = true;
    const { frames } = await get(`/api/jobs/${this.job}/trajectory/${k}`).catch((error) => (this.notice.say(error), { frames: [] }));
    if (k !== this.#index || !frames.length) return;
    this.#frames = frames;
    this.slider.hidden = false;
    this.slider.max = frames.length - 1;
    this.slider.value = frames.length - 1;
  }

  async #nearest(k) {
    this.neighbours.replaceChildren();
    this.notice.say(null);
    try {
      const { neighbours } = await get(`/api/jobs/${this.job}/nearest/${k}`);
      if (k !== this.#index) return;
      this.neighbours.replaceChildren(...neighbours.map(neighbour));
    } catch (error) {
      this.notice.say(error);
    }
  }
}

function neighbour({ image, distance }, k) {
  const canvas = new PixelCanvas({ label: said.neighbour(k), caption: said.distance(distance) });
  canvas.show(image);
  return canvas;
}
