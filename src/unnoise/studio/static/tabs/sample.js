/** Sample: images that clear while they are made, and what can be done with one of them. */

import { get, runPath } from "../api.js";
import { h } from "../components/dom.js";
import { field, freshSeed, number, select, setOptions, valueOf } from "../components/fields.js";
import { ImageGrid } from "../components/image-grid.js";
import { jobBar } from "../job-bar.js";
import { classPicker, runPicker, withRun } from "../run-picker.js";
import { chosen, chosenRun, status } from "../store.js";
import { words } from "../words.js";
import { heading } from "./layout.js";
import { SampleDetail } from "./sample-detail.js";

const said = words.sample;

export function build(panel) {
  const job = jobBar();
  const grid = new ImageGrid({ label: said.images, name: said.image });
  const caption = h("p", { class: "quiet", role: "status" }, said.empty);
  const downloads = h("div", { class: "buttons", hidden: true });
  const detail = new SampleDetail({ sample: (extra, text) => start(extra, text), closed: () => (grid.chosen = null) });
  const form = settings(() => start({}, said.choose));
  let images = [];

  /** Samples with the form's settings and what a variation or a morph adds. */
  async function start(extra, text) {
    const body = { ...form.body(), ...extra };
    detail.close();
    grid.ready = downloads.hidden = false;
    downloads.hidden = true;
    caption.textContent = "";
    const result = await job.run("/api/sample", body, (frame) => grid.show(frame.images));
    if (!result) return;
    images = result.images;
    grid.show(images);
    grid.ready = true;
    grid.chosen = null;
    caption.textContent = text;
    offer(result.job);
    detail.job = result.job;
  }

  function offer(id) {
    const links = Object.entries(said.downloads).map(([file, name]) => h("a", { class: "button", href: `/api/jobs/${id}/${file}`, download: file }, name));
    downloads.replaceChildren(h("span", { class: "quiet" }, said.save), ...links);
    downloads.hidden = false;
  }

  grid.addEventListener("choose", ({ detail: k }) => {
    grid.chosen = k;
    detail.choose(k, images[k]);
  });
  chosen.watch(() => {
    job.cancel();
    grid.clear();
    detail.close();
    downloads.hidden = true;
    caption.textContent = said.empty;
  });
  const results = h("div", { class: "results" }, h("div", { class: "slot" }, job, caption), grid, downloads, detail.element);
  panel.append(heading(said.title, said.lead), ...withRun(h("div", { class: "work" }, form.element, results)));
  return { hide: () => job.cancel() };
}

/** The settings of sampling; `body()` is what is asked for. */
function settings(start) {
  const fields = {
    count: number(16, { min: 1, max: 64, step: 1, required: true }),
    seed: number(freshSeed(), { min: 0, step: 1, required: true }),
    sampler: select([], ""),
    steps: number(20, { min: 1, max: 1000, step: 1 }),
    guidance: number(null, { min: 0, max: 20, step: 0.5, placeholder: "0" }),
  };
  const label = classPicker();
  const guidance = field(said.guidance, fields.guidance);
  const seedButton = h("button", { type: "button", onclick: () => (fields.seed.value = freshSeed()) }, said.newSeed);
  const element = h(
    "form",
    { class: "controls", onsubmit: (event) => (event.preventDefault(), start()) },
    runPicker(),
    h("div", { class: "pair" }, field(said.count, fields.count), field(said.steps, fields.steps)),
    h("div", { class: "pair seed" }, field(said.seed, fields.seed), seedButton),
    field(said.sampler, fields.sampler),
    h("div", { class: "pair" }, label.element, guidance),
    h("button", { class: "primary", type: "submit" }, said.start),
  );
  let own = "";
  let changed = false; // by hand
  element.addEventListener("input", () => (changed = true));
  const samplers = () => {
    const title = words.samplers[own] ?? own;
    const pairs = status.value.words.samplers.map((name) => [name, words.samplers[name] ?? name]);
    setOptions(fields.sampler, [["", title ? said.own(title) : "…"], ...pairs]);
  };
  status.watch(samplers);
  chosen.watch(async (name) => {
    changed = false;
    guidance.hidden = !chosenRun()?.classes.length;
    const run = name ? await get(runPath(name)).catch(() => null) : null;
    if (!run?.sampling || name !== chosen.value) return;
    own = run.sampling.sampler;
    samplers();
    if (changed) return;
    fields.steps.value = run.sampling.steps;
    fields.guidance.value = run.sampling.guidance ?? "";
  });
  const body = () => ({
    run: chosen.value,
    count: valueOf(fields.count),
    seed: valueOf(fields.seed),
    ...(fields.sampler.value && { sampler: fields.sampler.value }),
    ...(fields.steps.value && { steps: valueOf(fields.steps) }),
    label: label.value,
    ...(fields.guidance.value && { guidance: valueOf(fields.guidance) }),
  });
  return { element, body };
}
