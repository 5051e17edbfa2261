/** Learn: what a diffusion model does, by hand. */

import { formula, h } from "../components/dom.js";
import { runPicker, withRun } from "../run-picker.js";
import { words } from "../words.js";
import { heading, section } from "./layout.js";
import { comparison } from "./learn-compare.js";
import { denoising } from "./learn-denoise.js";
import { toy } from "./learn-toy.js";

export function build(panel) {
  const learn = words.learn;
  const withModel = h("div", {}, h("div", { class: "bar" }, runPicker()), denoising(), comparison());
  panel.append(heading(learn.title, learn.lead), ...withRun(withModel), toy(), chapters(learn.chapters));
}

function chapters({ title, text, lines }) {
  const items = lines.map(([name, line]) => h("li", {}, h("span", {}, name), formula(line)));
  return section({ title, text }, h("ol", { class: "chapters" }, ...items));
}
