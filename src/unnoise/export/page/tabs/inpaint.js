/** Inpaint: what could be where the visitor has painted. */

import { h } from "../components/dom.js";
import { notice } from "../components/fields.js";
import { ImageGrid } from "../components/image-grid.js";
import { MaskBrush } from "../components/mask-brush.js";
import { heading, jobBar, results } from "../layout.js";
import { form, labelField, seedField } from "../settings.js";
import { words } from "../words.js";

const said = words.inpaint;
const COUNT = 6;

export function build(panel, { facts, picture }) {
  const brush = new MaskBrush({ label: said.brush.label, words: said.brush });
  const [seed, label, job, problem] = [seedField(), labelField(facts), jobBar(), notice()];
  const grid = new ImageGrid({ label: said.results, name: said.image });
  const shown = results(said.empty, job, problem.element, grid);

  async function start() {
    const mask = painted(brush);
    problem.say(!picture.value ? words.picture.none : mask.includes(1) ? null : said.nothing);
    if (!picture.value || !mask.includes(1)) return;
    shown.begin();
    const args = { image: picture.value, mask, seed: seed.value(), count: COUNT, label: label.value() };
    const found = await job.run("inpaint", args, (frame) => grid.show(frame.images));
    if (found) grid.show(found.images);
  }

  const painting = h("div", { class: "painting", hidden: true }, brush, form(said.start, start, seed.element, label.element));
  picture.watch((image) => {
    painting.hidden = !image;
    if (image) brush.show(image);
  });
  panel.append(heading(said), h("div", { class: "work" }, picture.chooser(), h("div", { class: "split even" }, painting, shown.element)));
  return { show: () => picture.value ?? picture.sample(), hide: () => job.cancel() };
}

/** 1 where the mask is painted, pixel by pixel. */
function painted(brush) {
  const { width, height } = brush.layer;
  const { data } = brush.layer.getContext("2d").getImageData(0, 0, width, height);
  return Uint8Array.from({ length: width * height }, (_, k) => (data[4 * k + 3] ? 1 : 0));
}
