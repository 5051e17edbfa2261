/** What restoring gave: the image before and after, where it is in doubt, and by how much it is nearer to the truth. */

import { BeforeAfter } from "../components/before-after.js";
import { h } from "../components/dom.js";
import { checkbox } from "../components/fields.js";
import { PixelCanvas } from "../components/pixels.js";
import { words } from "../words.js";

const said = words.restore;

export class Result {
  constructor() {
    this.preview = new PixelCanvas({ label: said.image });
    this.compare = new BeforeAfter({ label: said.slider, before: said.before, after: said.after, text: said.border });
    this.figures = h("p", { class: "figures", role: "status" });
    this.doubt = checkbox(said.doubt, { onchange: () => (this.compare.overlay.hidden = !this.doubt.input.checked) });
    const save = h("button", { type: "button", onclick: () => this.#save() }, said.save);
    this.done = h("div", {}, h("h2", {}, said.result), this.compare, this.figures, h("div", { class: "buttons" }, this.doubt.element, save));
    this.empty = h("p", { class: "empty" }, said.empty);
    this.element = h("div", { class: "result" }, this.empty, this.preview, this.done);
    this.clear();
  }

  clear() {
    this.#only(this.empty);
    this.figures.textContent = "";
  }

  /** The image that is to be restored. */
  input(image) {
    this.preview.label = said.image;
    this.preview.show(image);
    this.#only(this.preview);
  }

  /** The estimate while it is made. */
  frame(image) {
    if (!image) return;
    this.preview.label = said.progress;
    this.preview.show(image);
    this.#only(this.preview);
  }

  show({ before, after, doubt, sigma, psnr }) {
    this.compare.show(before, after, doubt);
    this.doubt.element.hidden = !doubt;
    this.doubt.input.checked = false;
    const parts = [psnr && said.psnr(psnr), sigma !== null && sigma !== undefined && said.sigmaSaid(sigma)];
    this.figures.textContent = parts.filter(Boolean).join(" · ");
    this.#only(this.done);
  }

  #only(part) {
    for (const each of [this.empty, this.preview, this.done]) each.hidden = each !== part;
  }

  #save() {
    const link = h("a", { href: this.compare.after.toDataURL("image/png"), download: said.fileName });
    link.click();
  }
}
