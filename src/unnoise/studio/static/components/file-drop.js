/** A place to drop an image, or a folder of them, that is also a button to choose one. */

import { h } from "./dom.js";

/**
 * `new FileDrop({title, hint, button, folder, accept})`. Dispatches `files` with `detail` = [{file, path}, ...] in the order they
 * were found; a folder's files have their paths in it.
 */
export class FileDrop extends HTMLElement {
  constructor({ title, hint, button, folder = false, accept = "" }) {
    super();
    this.input = h("input", { type: "file", hidden: true, accept, onchange: () => this.#chosen() });
    if (folder) this.input.webkitdirectory = true;
    this.append(
      this.input,
      h("p", { class: "call" }, title),
      h("button", { type: "button", onclick: () => this.input.click() }, button),
      h("p", { class: "hint" }, hint),
    );
    this.addEventListener("dragover", (event) => this.#over(event, true));
    this.addEventListener("dragleave", (event) => this.#over(event, false));
    this.addEventListener("drop", (event) => this.#drop(event));
  }

  #over(event, over) {
    event.preventDefault();
    this.classList.toggle("over", over);
  }

  async #drop(event) {
    this.#over(event, false);
    const entries = [...event.dataTransfer.items].map((item) => item.webkitGetAsEntry?.()).filter(Boolean);
    const found = (await Promise.all(entries.map(walk))).flat();
    this.#give(found);
  }

  #chosen() {
    this.#give([...this.input.files].map((file) => ({ file, path: file.webkitRelativePath || file.name })));
    this.input.value = "";
  }

  #give(files) {
    if (files.length) this.dispatchEvent(new CustomEvent("files", { detail: files }));
  }
}

/** All files below an entry of a drop. */
async function walk(entry) {
  const path = entry.fullPath.replace(/^\//, "");
  if (entry.isFile) return [{ file: await new Promise((done, fail) => entry.file(done, fail)), path }];
  const reader = entry.createReader();
  const children = [];
  for (let batch = null; batch === null || batch.length; children.push(...batch)) {
    batch = await new Promise((done, fail) => reader.readEntries(done, fail));
  }
  return (await Promise.all(children.map(walk))).flat();
}

customElements.define("file-drop", FileDrop);
