/** Denoise: one call of the network, at the noise level that the slider says. */

import { BeforeAfter } from "../components/before-after.js";
import { h } from "../components/dom.js";
import { checkbox, freshSeed, notice } from "../components/fields.js";
import { TimeSlider } from "../components/time-slider.js";
import { run } from "../engine.js";
import { psnr } from "../images.js";
import { heading, results } from "../layout.js";
import { labelField } from "../settings.js";
import { words } from "../words.js";

const said = words.denoise;
const LEVELS = 100;
const [LEAST, MOST, FIRST] = [2, 255, 50]; // sigma, of 255; the slider is logarithmic
const HALF_RANGE = 127.5;

export function build(panel, { facts, picture }) {
  const most = Math.min(MOST, facts.highest * HALF_RANGE);
  const sigmaAt = (k) => LEAST * (most / LEAST) ** (k / LEVELS);
  const first = Math.round((LEVELS * Math.log(FIRST / LEAST)) / Math.log(most / LEAST));
  const slider = new TimeSlider({ label: said.sigma, min: 0, max: LEVELS, step: 1, value: Math.min(first, LEVELS), text: (k) => said.sigmaText(sigmaAt(k)), ends: said.ends });
  const [add, label, problem] = [checkbox(said.add, { checked: true }), labelField(facts), notice()];
  const compared = new BeforeAfter({ label: said.slider, before: said.before, after: said.after, text: said.border });
  const figure = h("p", { class: "figures", role: "status" });
  const shown = results(said.empty, problem.element, compared, figure);
  const seed = freshSeed();
  let [busy, again] = [false, false];

  /** As often as the model can, while the slider moves. */
  async function update() {
    again = busy;
    if (busy || !picture.value) return;
    busy = true;
    shown.begin();
    try {
      const clean = picture.value;
      const { before, after } = await run("denoise", { image: clean, sigma: sigmaAt(slider.value), add: add.input.checked ? seed : null, label: label.value() });
      compared.show(before, after);
      compared.hidden = false;
      figure.textContent = add.input.checked ? said.psnr(psnr(clean, before), psnr(clean, after)) : "";
      problem.say(null);
    } catch (error) {
      problem.say(error);
    }
    busy = false;
    if (again) update();
  }

  compared.hidden = true;
  slider.addEventListener("input", update);
  for (const input of [add.input, label.input]) input.addEventListener("change", update);
  picture.watch(update);
  const controls = h("div", { class: "controls" }, picture.chooser(), slider, add.element, label.element);
  panel.append(heading(said), h("div", { class: "work" }, controls, shown.element));
  return { show: () => (picture.value ? update() : picture.sample()) };
}
