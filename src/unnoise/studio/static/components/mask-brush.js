/** A brush that paints a mask over an image by mouse, touch, pen or keyboard, with undo; the mask has the image's own pixels. */

import { freshId, h } from "./dom.js";
import { draw, imageData } from "./pixels.js";
import { TimeSlider } from "./time-slider.js";

const MOVES = { ArrowLeft: [-1, 0], ArrowRight: [1, 0], ArrowUp: [0, -1], ArrowDown: [0, 1] };

/**
 * `new MaskBrush({label, words})` with `words` = {size, pixels(n), erase, undo, clear, keys}; then `show(image)`.
 * Dispatches `change` after each stroke.
 */
export class MaskBrush extends HTMLElement {
  #strokes = []; // {radius, erase, points}; drawn anew for an undo
  #base = null; // a mask that was given
  #cursor = { x: 0, y: 0 };

  constructor({ label, words }) {
    super();
    const help = freshId("keys");
    this.image = h("canvas", { "aria-hidden": "true" });
    this.layer = h("canvas", {
      class: "layer", tabindex: 0, role: "application", "aria-label": label, "aria-describedby": help,
      onpointerdown: (event) => this.#begin(event), onpointermove: (event) => this.#move(event),
      onpointerleave: () => this.#ring(null), onkeydown: (event) => this.#key(event),
    });
    this.context = this.layer.getContext("2d", { willReadFrequently: true });
    this.ring = h("span", { class: "ring", "aria-hidden": "true" });
    this.size = new TimeSlider({ label: words.size, min: 0, max: 8, step: 1, value: 1, text: (r) => words.pixels(2 * r + 1) });
    this.erase = h("input", { type: "checkbox" });
    this.undoButton = h("button", { type: "button", onclick: () => this.undo() }, words.undo);
    this.clearButton = h("button", { type: "button", onclick: () => this.clear() }, words.clear);
    this.append(
      h("div", { class: "stack" }, this.image, this.layer, this.ring),
      this.size,
      h("div", { class: "tools" }, h("label", {}, this.erase, words.erase), this.undoButton, this.clearButton),
      h("p", { class: "keys", id: help }, words.keys),
    );
  }

  show(image) {
    draw(this.image, image);
    this.layer.width = image.width;
    this.layer.height = image.height;
    this.style.setProperty("--ratio", `${image.width} / ${image.height}`);
    const largest = Math.max(2, Math.round(Math.min(image.width, image.height) / 6));
    this.size.max = largest;
    this.size.value = Math.round(largest / 2);
    this.#cursor = { x: image.width >> 1, y: image.height >> 1 };
    this.clear();
  }

  /** Lays a mask of the image's size under the strokes: what is white in it is painted. */
  set mask(image) {
    const data = image instanceof ImageData ? image : imageData(image);
    const [r, g, b] = this.#colour();
    for (let k = 0; k < data.data.length; k += 4) {
      const painted = data.data[k] > 127 && data.data[k + 3] > 127;
      data.data.set([r, g, b, painted ? 255 : 0], k);
    }
    this.#base = data;
    this.#strokes = [];
    this.#redraw();
  }

  /** Whether nothing is painted. */
  get empty() {
    return !this.#pixels().data.some((value, k) => k % 4 === 3 && value > 0);
  }

  /** The mask as a PNG in base64: white where it is painted, black elsewhere. */
  png() {
    const mask = this.#pixels();
    for (let k = 0; k < mask.data.length; k += 4) mask.data.fill(mask.data[k + 3] && 255, k, k + 3).fill(255, k + 3, k + 4);
    const canvas = h("canvas");
    draw(canvas, mask);
    return canvas.toDataURL("image/png").split(",")[1];
  }

  undo() {
    if (this.#strokes.length) this.#strokes.pop();
    else this.#base = null;
    this.#redraw();
  }

  clear() {
    this.#strokes = [];
    this.#base = null;
    this.#redraw();
  }

  #pixels() {
    return this.context.getImageData(0, 0, this.layer.width, this.layer.height);
  }

  #colour() {
    const pixel = h("canvas", { width: 1, height: 1 }).getContext("2d");
    pixel.fillStyle = getComputedStyle(this).getPropertyValue("--mask") || "#c00";
    pixel.fillRect(0, 0, 1, 1);
    return pixel.getImageData(0, 0, 1, 1).data;
  }

  #at(event) {
    const box = this.layer.getBoundingClientRect();
    const scale = this.layer.width / box.width;
    return { x: Math.floor((event.clientX - box.left) * scale), y: Math.floor((event.clientY - box.top) * scale) };
  }

  #begin(event) {
    if (event.button !== 0) return;
    event.preventDefault();
    this.layer.focus();
    this.layer.setPointerCapture(event.pointerId);
    this.#cursor = this.#at(event);
    this.#start();
    this.#stroke(this.#cursor);
    this.#ring(this.#cursor);
    this.layer.addEventListener("lostpointercapture", () => this.#changed(), { once: true });
  }

  #move(event) {
    const events = event.getCoalescedEvents?.() ?? [];
    this.#cursor = this.#at(event);
    this.#ring(this.#cursor);
    if (!this.layer.hasPointerCapture(event.pointerId)) return;
    for (const each of events.length ? events : [event]) this.#stroke(this.#at(each));
  }

  #key(event) {
    if (event.key === "z" && (event.ctrlKey || event.metaKey)) return this.undo();
    const move = MOVES[event.key];
    if (!move && event.key !== " " && event.key !== "Enter") return undefined;
    event.preventDefault();
    const far = event.shiftKey ? 1 + 2 * this.size.value : 1;
    const inside = (value, end) => Math.max(0, Math.min(end - 1, value));
    if (move) {
      this.#cursor.x = inside(this.#cursor.x + far * move[0], this.layer.width);
      this.#cursor.y = inside(this.#cursor.y + far * move[1], this.layer.height);
    } else {
      this.#start();
      this.#stroke(this.#cursor);
      this.#changed();
    }
    return this.#ring(this.#cursor);
  }

  #start() {
    this.#strokes.push({ radius: this.size.value, erase: this.erase.checked, points: [] });
  }

  #stroke(point) {
    const stroke = this.#strokes.at(-1);
    const from = stroke.points.at(-1) ?? point;
    stroke.points.push({ ...point });
    line(this.context, stroke, from, point, getComputedStyle(this).getPropertyValue("--mask"));
  }

  #redraw() {
    const { context } = this;
    const colour = getComputedStyle(this).getPropertyValue("--mask");
    context.clearRect(0, 0, this.layer.width, this.layer.height);
    if (this.#base) context.putImageData(this.#base, 0, 0);
    for (const stroke of this.#strokes) {
      stroke.points.forEach((point, k) => line(context, stroke, stroke.points[Math.max(0, k - 1)], point, colour));
    }
    this.#changed();
  }

  #changed() {
    this.undoButton.disabled = this.clearButton.disabled = !this.#strokes.length && !this.#base;
    this.dispatchEvent(new Event("change"));
  }

  #ring(point) {
    this.ring.hidden = point === null;
    if (!point) return;
    const unit = 100 / this.layer.width;
    this.style.setProperty("--x", `${(point.x + 0.5) * unit}%`);
    this.style.setProperty("--y", `${((point.y + 0.5) * 100) / this.layer.height}%`);
    this.style.setProperty("--diameter", `${(2 * this.size.value + 1) * unit}%`);
  }
}

/** Discs of whole pixels from one point to another. */
function line(context, { radius, erase }, from, to, colour) {
  const steps = Math.max(Math.abs(to.x - from.x), Math.abs(to.y - from.y), 1);
  context.fillStyle = colour;
  for (let k = 0; k <= steps; k++) {
    const x = Math.round(from.x + ((to.x - from.x) * k) / steps);
    const y = Math.round(from.y + ((to.y - from.y) * k) / steps);
    for (let dy = -radius; dy <= radius; dy++) {
      const half = Math.floor(Math.sqrt((radius + 0.3) ** 2 - dy ** 2));
      const row = [x - half, y + dy, 2 * half + 1, 1];
      if (erase) context.clearRect(...row);
      else context.fillRect(...row);
    }
  }
}

customElements.define("mask-brush", MaskBrush);
