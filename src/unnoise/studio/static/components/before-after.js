/** Two images over each other, and a slider that moves the border between them. */

import { h } from "./dom.js";
import { draw } from "./pixels.js";

/** `new BeforeAfter({label, before, after, text})`; then `show(before, after, overlay)`. `text(percent)` says where the border is. */
export class BeforeAfter extends HTMLElement {
  constructor({ label, before, after, text }) {
    super();
    this.text = text;
    [this.before, this.after, this.overlay] = ["before", "after", "overlay"].map((kind) => h("canvas", { class: kind }));
    this.input = h("input", { type: "range", min: 0, max: 100, step: 1, value: 50, "aria-label": label });
    const handle = h("span", { class: "handle", "aria-hidden": "true" });
    const names = [h("span", { class: "left" }, before), h("span", { class: "right" }, after)];
    this.append(h("div", { class: "stack" }, this.before, this.after, this.overlay, handle, ...names, this.input));
    this.input.addEventListener("input", () => this.#move());
    this.overlay.hidden = true;
    this.#move();
  }

  /** The overlay, e.g. the standard deviation, lies over the second image and is hidden at first. */
  show(before, after, overlay = null) {
    draw(this.before, before);
    draw(this.after, after);
    this.overlay.hidden = true;
    if (overlay) draw(this.overlay, overlay);
    this.style.setProperty("--ratio", `${after.width} / ${after.height}`);
  }

  #move() {
    this.style.setProperty("--split", `${this.input.value}%`);
    this.input.setAttribute("aria-valuetext", this.text(Number(this.input.value)));
  }
}

customElements.define("before-after", BeforeAfter);
