/** A grid of images that clear while they are sampled, and can be chosen by mouse, touch or keyboard. */

import { h } from "./dom.js";
import { PixelCanvas } from "./pixels.js";

/**
 * `new ImageGrid({label, name})`: `name(k)` is what image k is called. Dispatches `choose` with `detail` = the image's number.
 * Arrow keys move between images, Enter or Space chooses one.
 */
export class ImageGrid extends HTMLElement {
  constructor({ label, name }) {
    super();
    this.name = name;
    this.cells = [];
    this.setAttribute("role", "group");
    this.setAttribute("aria-label", label);
    this.addEventListener("keydown", (event) => this.#move(event));
  }

  /** Shows images, which can be chosen from the moment `ready` is set. */
  show(images) {
    while (this.cells.length > images.length) this.cells.pop().remove();
    while (this.cells.length < images.length) this.#add(this.cells.length);
    images.forEach((image, k) => this.cells[k].firstChild.show(image));
    this.#columns(images.length);
  }

  /** Whether images can be chosen. */
  set ready(ready) {
    this.classList.toggle("ready", ready);
    for (const cell of this.cells) cell.disabled = !ready;
  }

  /** Marks image k as the chosen one; none where k is null. */
  set chosen(k) {
    this.cells.forEach((cell, number) => cell.setAttribute("aria-pressed", number === k));
  }

  clear() {
    this.show([]);
  }

  #add(k) {
    const canvas = new PixelCanvas({ label: this.name(k) });
    const choose = () => this.dispatchEvent(new CustomEvent("choose", { detail: k }));
    const cell = h("button", { type: "button", "aria-pressed": "false", disabled: true, onclick: choose }, canvas);
    cell.tabIndex = k === 0 ? 0 : -1;
    this.cells.push(cell);
    this.append(cell);
  }

  /** As many columns as make full rows, about as high as wide. */
  #columns(count) {
    const least = Math.ceil(Math.sqrt(count));
    const full = Array.from({ length: least }, (_, k) => least + k).find((columns) => count % columns === 0);
    this.style.setProperty("--columns", full ?? Math.ceil(Math.sqrt(1.5 * count)));
  }

  #move(event) {
    const from = this.cells.indexOf(document.activeElement);
    const columns = getComputedStyle(this).gridTemplateColumns.split(" ").length;
    const step = { ArrowRight: 1, ArrowLeft: -1, ArrowDown: columns, ArrowUp: -columns }[event.key];
    const next = this.cells[from + step];
    if (from < 0 || !next) return;
    event.preventDefault();
    this.cells[from].tabIndex = -1;
    next.tabIndex = 0;
    next.focus();
  }
}

customElements.define("image-grid", ImageGrid);
