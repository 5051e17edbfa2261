/** A slider that says its value in words, and what lies at its two ends; for time, stages, strengths. */

import { freshId, h } from "./dom.js";

/**
 * `new TimeSlider({label, min, max, step, value, text, ends})`; dispatches `input` while it is dragged and `change` after.
 * `text(value)` says a value; `ends` are two words.
 */
export class TimeSlider extends HTMLElement {
  constructor({ label, min = 0, max = 1, step = 0.005, value = 0, text = String, ends = null }) {
    super();
    const id = freshId("slider");
    this.text = text;
    this.input = h("input", { type: "range", id, min, max, step });
    this.input.value = value;
    this.output = h("output", { for: id });
    this.append(h("div", { class: "says" }, h("label", { for: id }, label), this.output), this.input);
    if (ends) this.append(h("div", { class: "ends", "aria-hidden": "true" }, ...ends.map((end) => h("span", {}, end))));
    this.input.addEventListener("input", () => this.#say());
    this.#say();
  }

  get value() {
    return Number(this.input.value);
  }

  set value(value) {
    this.input.value = value;
    this.#say();
  }

  /** Another largest value; the slider keeps to its end if it was there. */
  set max(max) {
    const atEnd = this.input.value === this.input.max;
    this.input.max = max;
    if (atEnd) this.input.value = max;
    this.#say();
  }

  #say() {
    const said = this.text(this.value);
    this.output.value = said;
    this.input.setAttribute("aria-valuetext", said);
    const { min, max } = this.input;
    this.style.setProperty("--filled", `${(100 * (this.value - min)) / (max - min || 1)}%`);
  }
}

customElements.define("time-slider", TimeSlider);
