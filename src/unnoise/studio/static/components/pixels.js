/**
 * Images as pixels, scaled up without smoothing.
 *
 * An image is `{width, height, rgba}`, where rgba is 4 bytes a pixel from the top left, as base64 or as a Uint8ClampedArray.
 */

import { h } from "./dom.js";

/** @returns {ImageData} */
export function imageData({ width, height, rgba }) {
  return new ImageData(typeof rgba === "string" ? bytes(rgba) : rgba, width, height);
}

function bytes(base64) {
  const text = atob(base64);
  const found = new Uint8ClampedArray(text.length);
  for (let k = 0; k < text.length; k++) found[k] = text.charCodeAt(k);
  return found;
}

/** Draws an image on a canvas of just its size. */
export function draw(canvas, image) {
  const data = image instanceof ImageData ? image : imageData(image);
  if (canvas.width !== data.width || canvas.height !== data.height) {
    canvas.width = data.width;
    canvas.height = data.height;
  }
  canvas.getContext("2d").putImageData(data, 0, 0);
}

/** An image file of the user's as pixels, for a browser that can decode it. */
export async function pixelsOf(file) {
  const bitmap = await createImageBitmap(file);
  const canvas = h("canvas", { width: bitmap.width, height: bitmap.height });
  const context = canvas.getContext("2d");
  context.drawImage(bitmap, 0, 0);
  return context.getImageData(0, 0, bitmap.width, bitmap.height);
}

/** A canvas with a caption below it: `new PixelCanvas({label, caption})`, then `show(image)`. */
export class PixelCanvas extends HTMLElement {
  constructor({ label = "", caption = null } = {}) {
    super();
    this.canvas = h("canvas", { width: 1, height: 1, role: "img", "aria-label": label });
    this.append(this.canvas);
    if (caption) this.append(h("span", { class: "caption" }, caption));
  }

  /** What a screen reader calls it. */
  set label(text) {
    this.canvas.setAttribute("aria-label", text);
  }

  show(image) {
    draw(this.canvas, image);
    this.classList.add("filled");
  }
}

customElements.define("pixel-canvas", PixelCanvas);
