/** The time slider: an image, noise on it, and the network's estimate, moving while it is dragged. */

import { get, post, upload } from "../api.js";
import { CurvePlot } from "../components/curve-plot.js";
import { formula, h } from "../components/dom.js";
import { freshSeed, notice } from "../components/fields.js";
import { PixelCanvas } from "../components/pixels.js";
import { TimeSlider } from "../components/time-slider.js";
import { classPicker } from "../run-picker.js";
import { chosen, chosenRun, usable } from "../store.js";
import { words } from "../words.js";
import { section } from "./layout.js";

const said = words.learn.denoise;
const PLACES = 200; // of the slider

export function denoising() {
  const asked = { image: { data: 0 }, seed: 0 };
  const view = new View();
  const label = classPicker();
  const update = latestOnly(async () => {
    const run = chosenRun();
    if (run && usable(run) && view.times.length) view.show(await post("/api/learn/denoise", { run: run.name, t: view.time, label: label.value, ...asked }));
  }, view.notice.say);
  const change = (changes) => {
    Object.assign(asked, changes);
    update();
  };

  label.element.addEventListener("change", update);
  view.slider.addEventListener("input", () => {
    view.plot.marker = view.slider.value;
    update();
  });
  chosen.watch(async (name) => {
    const run = chosenRun();
    if (!run || !usable(run)) return;
    const schedule = await get(`/api/learn/${encodeURIComponent(name)}/schedule`).catch(view.notice.say);
    if (!schedule || name !== chosen.value) return;
    view.schedule(schedule);
    change({ image: { data: 0 } });
  });

  const buttons = h(
    "div",
    { class: "buttons" },
    label.element,
    h("button", { type: "button", onclick: () => change({ image: { data: (asked.image.data ?? -1) + 1 } }) }, said.another),
    h("button", { type: "button", onclick: () => change({ seed: freshSeed() }) }, said.noise),
    ownImage((id) => change({ image: { upload: id } }), view.notice.say),
  );
  return section(said, view.element, buttons, view.notice.element);
}

class View {
  constructor() {
    const canvas = (text) => new PixelCanvas({ label: text, caption: formula(text) });
    this.canvases = { x: canvas(said.clean), x_t: canvas(said.noisy), estimate: canvas(said.estimate), difference: canvas(said.difference) };
    this.times = []; // of the slider's places, spaced evenly in log(sigma / alpha)
    this.slider = new TimeSlider({ label: said.time, max: PLACES - 1, step: 1, value: PLACES / 2, text: () => said.said(this.time), ends: said.ends });
    this.plot = new CurvePlot({ label: said.schedule, x: said.axis, height: 190, text: (k) => String(Number((this.times[k] ?? 0).toPrecision(2))) });
    this.values = h("p", { class: "values" });
    this.notice = notice();
    const left = h("div", {}, h("div", { class: "quartet" }, ...Object.values(this.canvases)), this.slider);
    this.element = h("div", { class: "split" }, left, h("div", { class: "schedule" }, this.plot, this.values));
  }

  get time() {
    return this.times[this.slider?.value] ?? 0;
  }

  show(found) {
    this.notice.say(null);
    for (const [name, canvas] of Object.entries(this.canvases)) canvas.show(found[name]);
    this.values.replaceChildren(formula("x_t"), " = ", formula(said.values(found.alpha, found.sigma)));
  }

  schedule({ t, alpha, sigma }) {
    const points = (values) => values.map((value, k) => [k, value]);
    this.times = t;
    this.slider.max = t.length - 1;
    this.plot.show([
      { name: "α(t)", points: points(alpha) },
      { name: "σ(t)", points: points(sigma) },
    ]);
    this.plot.marker = this.slider.value;
  }
}

/** Runs one at a time; what is asked for meanwhile is done once, after it. */
function latestOnly(action, say) {
  let running = false;
  let again = false;
  return async function update() {
    again = true;
    if (running) return;
    running = true;
    while (again) {
      again = false;
      await action().catch(say);
    }
    running = false;
  };
}

function ownImage(use, say) {
  const send = async () => {
    const { id } = await upload("/api/uploads", input.files[0]);
    input.value = "";
    use(id);
  };
  const input = h("input", { type: "file", accept: "image/*", hidden: true, onchange: () => send().catch(say) });
  return h("span", {}, input, h("button", { type: "button", onclick: () => input.click() }, said.own));
}
