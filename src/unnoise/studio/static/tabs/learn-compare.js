/** The same noise under two settings, side by side. */

import { h } from "../components/dom.js";
import { field, freshSeed, number, select, setOptions, valueOf } from "../components/fields.js";
import { ImageGrid } from "../components/image-grid.js";
import { jobBar } from "../job-bar.js";
import { chosen, chosenRun, status } from "../store.js";
import { words } from "../words.js";
import { section } from "./layout.js";

const said = words.learn.compare;
const COUNT = 8;

export function comparison() {
  const sides = { a: side("a", "ddim", 4), b: side("b", "ddim", 20) };
  const seed = number(freshSeed(), { min: 0, step: 1 });
  const job = jobBar();
  const show = (images) => Object.keys(sides).forEach((key) => images[key] && sides[key].grid.show(images[key]));
  const start = async () => {
    const body = { run: chosen.value, seed: valueOf(seed), count: COUNT, a: sides.a.settings(), b: sides.b.settings() };
    const result = await job.run("/api/learn/compare", body, show);
    if (result) show(result);
  };
  const controls = h("div", { class: "bar" }, field(said.seed, seed), h("button", { class: "primary", type: "button", onclick: start }, said.start));
  return section(said, h("div", { class: "twins" }, sides.a.element, sides.b.element), controls, job);
}

/** One side: its settings and its images. */
function side(key, preferred, calls) {
  const sampler = select([], preferred);
  const steps = number(calls, { min: 1, max: 1000, step: 1 });
  const guidance = number(null, { min: 0, max: 20, step: 0.5, placeholder: "0" });
  const guided = field(said.guidance, guidance);
  const grid = new ImageGrid({ label: said.side[key], name: said.image });
  status.watch(({ words: { samplers } }) => {
    const first = sampler.options.length === 0;
    setOptions(sampler, samplers.map((name) => [name, words.samplers[name] ?? name]), first ? preferred : sampler.value);
  });
  chosen.watch(() => {
    guided.hidden = !chosenRun()?.classes.length;
    grid.clear();
  });
  const fields = h("div", { class: "fields" }, field(said.sampler, sampler), field(said.steps, steps), guided);
  const element = h("div", { role: "group", "aria-label": said.side[key] }, fields, grid);
  const settings = () => ({
    sampler: sampler.value,
    steps: valueOf(steps),
    ...(guided.hidden || valueOf(guidance) === null ? {} : { guidance: valueOf(guidance) }),
  });
  return { element, grid, settings };
}
