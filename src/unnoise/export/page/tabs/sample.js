/** Sample: images that clear while they are made, and what can be done with one of them. */

import { h } from "../components/dom.js";
import { ImageGrid } from "../components/image-grid.js";
import { heading, jobBar, results } from "../layout.js";
import { countField, form, guidanceSlider, labelField, seedField, stepsSlider } from "../settings.js";
import { words } from "../words.js";
import { Detail } from "./detail.js";

const said = words.sample;
const MOST = 36;
const FEW = 2e5; // numbers in a batch at the beginning, at most

export function build(panel, { facts, picture, go }) {
  const fields = {
    seed: seedField(), count: countField(firstCount(facts), MOST), label: labelField(facts, true),
    guidance: guidanceSlider(facts), steps: stepsSlider(facts),
  };
  const job = jobBar();
  const grid = new ImageGrid({ label: said.images, name: (k) => said.image(k, labels[k]) });
  const caption = h("p", { class: "quiet", role: "status" });
  const shown = results(said.empty, job, caption, grid);
  const detail = new Detail({ facts, picture, go, vary, closed: () => (grid.chosen = null) });
  let [frames, labels] = [[], []];

  const asked = () => ({ seed: fields.seed.value(), count: fields.count.value(), label: fields.label.value(), guidance: fields.guidance.value });
  const sample = () => start("sample", { ...asked(), steps: fields.steps.value() }, said.choose);

  /** Variations of an image, by the form's settings. */
  function vary(image, strength, k) {
    start("vary", { ...asked(), image, strength }, said.varied(k));
  }

  async function start(task, args, text) {
    detail.close();
    shown.begin();
    grid.ready = false;
    [frames, labels, caption.textContent] = [[], [], ""];
    const found = await job.run(task, args, (frame) => {
      frames.push(frame);
      grid.show(frame.images);
    });
    if (!found) return;
    labels = found.labels ?? [];
    grid.show(found.images);
    grid.cells.forEach((cell, k) => (cell.firstChild.label = said.image(k, labels[k])));
    grid.ready = true;
    caption.textContent = text;
    detail.images = found.images;
  }

  grid.addEventListener("choose", ({ detail: k }) => {
    grid.chosen = k;
    detail.choose(k, frames, said.image(k, labels[k]));
  });
  const controls = form(said.start, sample, fields.seed.element, h("div", { class: "pair" }, fields.count.element, fields.label.element), fields.guidance, fields.steps.element);
  panel.append(heading(said), h("div", { class: "work" }, controls, h("div", {}, shown.element, detail.element)));
  sample();
}

/** So many that the first images are there soon. */
function firstCount({ shape }) {
  const most = FEW / shape.reduce((a, b) => a * b);
  return [24, 15, 6].find((count) => count <= most) ?? 2;
}
