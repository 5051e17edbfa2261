/** The image that is inpainted and denoised: a file of the visitor's, or a sample. */

import { h } from "./components/dom.js";
import { freshSeed, notice } from "./components/fields.js";
import { FileDrop } from "./components/file-drop.js";
import { run } from "./engine.js";
import { toGrey } from "./images.js";
import { words } from "./words.js";

const said = words.picture;

/** `value` is the image or null; `watch(tell)` calls `tell` with it now and whenever it changes. */
export class Picture {
  value = null;
  #watchers = [];
  #asked = 0; // how often an image was asked for: of these the last one counts, whichever is ready first

  constructor(facts) {
    this.facts = facts;
  }

  watch(tell) {
    this.#watchers.push(tell);
    tell(this.value);
  }

  set(image) {
    this.#asked += 1;
    this.value = image;
    for (const tell of this.#watchers) tell(image);
  }

  async #take(making) {
    const mine = (this.#asked += 1);
    const image = await making;
    if (mine === this.#asked) this.set(image);
  }

  sample() {
    const { steps, guidance } = this.facts;
    const making = run("sample", { seed: freshSeed(), count: 1, label: null, guidance: guidance?.scale ?? 1, steps });
    return this.#take(making.then(({ images }) => images[0]));
  }

  /** A place to drop an image, and a button for a sample. */
  chooser() {
    const problem = notice();
    const drop = new FileDrop({ title: said.drop, hint: said.hint(this.facts.shape), button: said.button, accept: "image/*" });
    drop.addEventListener("files", async ({ detail: [{ file }] }) => {
      problem.say(null);
      try {
        await this.#take(fitted(file, this.facts.shape));
      } catch {
        problem.say(said.unreadable);
      }
    });
    const sample = () => this.sample().catch(problem.say);
    return h("div", { class: "chooser" }, drop, problem.element, h("button", { type: "button", onclick: sample }, said.sample));
  }
}

/** An image file, its middle cut out and scaled to the model's size. */
async function fitted(file, [channels, height, width]) {
  const bitmap = await createImageBitmap(file);
  const scale = Math.max(width / bitmap.width, height / bitmap.height);
  const [w, h] = [width / scale, height / scale];
  const canvas = new OffscreenCanvas(width, height);
  const context = canvas.getContext("2d");
  context.fillStyle = "#fff"; // under what is transparent
  context.fillRect(0, 0, width, height);
  context.imageSmoothingQuality = "high";
  context.drawImage(bitmap, (bitmap.width - w) / 2, (bitmap.height - h) / 2, w, h, 0, 0, width, height);
  const { data } = context.getImageData(0, 0, width, height);
  return { width, height, rgba: channels === 1 ? toGrey(data) : data };
}
