/** One sample, large: how it came about, and what can be made of it. */

import { formula, h } from "../components/dom.js";
import { PixelCanvas } from "../components/pixels.js";
import { TimeSlider } from "../components/time-slider.js";
import { words } from "../words.js";

const said = words.sample;
const DEFAULT_STRENGTH = 0.5;

/** `vary(image, strength, k)` begins variations; `closed()` is called when nothing is chosen any more. */
export class Detail {
  #index = null;
  #frames = [];
  images = [];

  constructor({ facts, picture, go, vary, closed }) {
    Object.assign(this, { facts, picture, go, vary, closed });
    this.title = h("h2", { tabindex: -1 });
    this.noisy = new PixelCanvas({ label: said.noisy, caption: formula(said.noisy) });
    this.estimate = new PixelCanvas({ label: said.estimate, caption: formula(said.estimate) });
    this.slider = new TimeSlider({ label: said.time, min: 0, max: 0, step: 1, text: (k) => said.timeText(k + 1, this.#frames.length), ends: said.ends });
    this.slider.addEventListener("input", () => this.#show());
    this.element = h("section", { class: "sample-detail", hidden: true }, this.#head(), h("div", { class: "split" }, this.#left(), this.#right()));
  }

  #head() {
    return h("div", { class: "title" }, this.title, h("button", { type: "button", onclick: () => this.close() }, said.close));
  }

  #left() {
    return h("div", {}, h("div", { class: "twins" }, this.noisy, this.estimate), this.slider);
  }

  #right() {
    const strengths = Object.keys(this.facts.vary).sort((a, b) => a - b);
    const strength = new TimeSlider({
      label: said.strength, min: 0, max: strengths.length - 1, step: 1, value: strengths.indexOf(String(DEFAULT_STRENGTH)),
      text: (k) => words.settings.percent(strengths[k]), ends: said.strengthEnds,
    });
    const button = (text, onclick) => h("button", { type: "button", onclick }, text);
    const take = (tab) => () => {
      this.picture.set(this.images[this.#index]);
      this.go(tab);
    };
    const vary = button(said.vary, () => this.vary(this.images[this.#index], strengths[strength.value], this.#index));
    return h("div", {}, strength, h("div", { class: "buttons" }, vary, button(said.inpaint, take("inpaint")), button(said.denoise, take("denoise")), button(said.save, () => this.#save())));
  }

  choose(k, frames, title) {
    [this.#index, this.#frames] = [k, frames];
    this.title.textContent = title;
    this.element.hidden = false;
    this.slider.max = frames.length - 1;
    this.slider.value = frames.length - 1;
    this.#show();
    this.title.focus({ preventScroll: true });
    this.element.scrollIntoView({ block: "nearest", behavior: matchMedia("(prefers-reduced-motion: reduce)").matches ? "auto" : "smooth" });
  }

  close() {
    this.element.hidden = true;
    this.closed();
  }

  #show() {
    const { images, estimates } = this.#frames[this.slider.value];
    this.noisy.show(images[this.#index]);
    this.estimate.show(estimates[this.#index]);
  }

  #save() {
    const canvas = new PixelCanvas();
    canvas.show(this.images[this.#index]);
    const link = h("a", { href: canvas.canvas.toDataURL("image/png"), download: said.file(this.facts.name, this.#index) });
    link.click();
  }
}
