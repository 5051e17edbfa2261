/** Morph: the images on the way from one noise to another. */

import { h } from "../components/dom.js";
import { ImageGrid } from "../components/image-grid.js";
import { PixelCanvas } from "../components/pixels.js";
import { TimeSlider } from "../components/time-slider.js";
import { heading, jobBar, results } from "../layout.js";
import { form, labelField, seedField } from "../settings.js";
import { words } from "../words.js";

const said = words.morph;
const COUNT = 15;
const MILLISECONDS = 160; // of each image, when they are played

export function build(panel, { facts }) {
  const [a, b] = [seedField(said.from), seedField(said.to)];
  const label = labelField(facts);
  const job = jobBar();
  const canvas = new PixelCanvas({ label: said.frame });
  const percent = (k) => words.settings.percent(k / (COUNT - 1));
  const slider = new TimeSlider({ label: said.frame, min: 0, max: COUNT - 1, step: 1, text: percent, ends: said.ends });
  const grid = new ImageGrid({ label: said.frames, name: said.image });
  const play = h("button", { type: "button", onclick: () => (timer ? pause() : begin()) }, said.play);
  const large = h("div", { class: "large", hidden: true }, canvas, slider, h("div", { class: "buttons" }, play));
  const shown = results(said.empty, job, h("div", { class: "split" }, large, grid));
  let [images, timer, way] = [[], null, 1];

  function show(k) {
    slider.value = k;
    canvas.show(images[k]);
    grid.chosen = k;
  }

  /** Back and forth. */
  function begin() {
    timer = setInterval(() => {
      if (slider.value + way < 0 || slider.value + way >= COUNT) way = -way;
      show(slider.value + way);
    }, MILLISECONDS);
    play.textContent = said.pause;
  }

  function pause() {
    clearInterval(timer);
    timer = null;
    play.textContent = said.play;
  }

  async function start() {
    pause();
    shown.begin();
    grid.ready = false;
    const ends = { a: { seed: a.value(), index: 0 }, b: { seed: b.value(), index: 0 } };
    const view = (found) => {
      images = found;
      large.hidden = false;
      grid.show(found);
      show(slider.value);
    };
    const found = await job.run("morph", { ...ends, count: COUNT, label: label.value() }, (frame) => view(frame.images));
    if (!found) return;
    view(found.images);
    grid.ready = true;
  }

  slider.addEventListener("input", () => show(slider.value));
  grid.addEventListener("choose", ({ detail: k }) => show(k));
  panel.append(heading(said), h("div", { class: "work" }, form(said.start, start, a.element, b.element, label.element), shown.element));
  return { show: () => images.length || start(), hide: pause };
}
