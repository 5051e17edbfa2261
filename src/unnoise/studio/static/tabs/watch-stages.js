/** The grids of a run, all from the same noise, and the slider that goes through them. */

import { h } from "../components/dom.js";
import { TimeSlider } from "../components/time-slider.js";
import { words } from "../words.js";

const said = words.watch;
const PAUSE = 350; // milliseconds between stages that play

export class Stages {
  #samples = [];
  #timer = null;

  constructor() {
    this.image = h("img", { class: "grid", alt: "" });
    this.empty = h("p", { class: "empty" }, said.noGrid);
    this.slider = new TimeSlider({ label: said.slider, min: 0, max: 0, step: 1, text: (k) => (this.#samples[k] ? said.stage(this.#samples[k].step) : "") });
    this.play = h("button", { type: "button", onclick: () => (this.#timer ? this.#pause() : this.#play()) }, said.play);
    this.content = h("div", { hidden: true }, this.image, this.slider, h("div", { class: "buttons" }, this.play));
    this.element = h("div", {}, h("h3", {}, said.grid), this.empty, this.content);
    this.slider.addEventListener("input", () => {
      this.#pause();
      this.#show();
    });
  }

  /** New grids; those at hand already are left out. The last one is shown unless another has been chosen. */
  add(samples) {
    const all = new Map([...this.#samples, ...samples].map((sample) => [sample.step, sample]));
    if (all.size === this.#samples.length) return;
    this.#samples = [...all.values()].sort((a, b) => a.step - b.step);
    this.slider.max = this.#samples.length - 1;
    this.empty.hidden = true;
    this.content.hidden = false;
    this.play.hidden = this.slider.hidden = this.#samples.length < 2;
    this.#show();
  }

  #show() {
    const { step, url } = this.#samples[this.slider.value];
    if (this.image.getAttribute("src") === url) return;
    this.image.src = url;
    this.image.alt = said.gridAlt(step);
  }

  #play() {
    const last = this.#samples.length - 1;
    if (this.slider.value === last) this.slider.value = 0;
    this.play.textContent = said.pause;
    this.#timer = setInterval(() => {
      if (this.slider.value >= this.#samples.length - 1 || !this.element.isConnected) return this.#pause();
      this.slider.value += 1;
      return this.#show();
    }, PAUSE);
    this.#show();
  }

  #pause() {
    clearInterval(this.#timer);
    this.#timer = null;
    this.play.textContent = said.play;
  }
}
