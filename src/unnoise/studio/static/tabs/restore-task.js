/** What happened to the image: the task, its options, and the mask. */

import { freshId, h } from "../components/dom.js";
import { checkbox, field, notice, number, segments, select, valueOf } from "../components/fields.js";
import { MaskBrush } from "../components/mask-brush.js";
import { pixelsOf } from "../components/pixels.js";
import { status } from "../store.js";
import { words } from "../words.js";

const said = words.restore;
const ONLY_FOR = { width: "gaussian", length: "motion", degrees: "motion" }; // options of one kind of blur
const WITHOUT_SIGMA = ["salt-and-pepper", "dejpeg"]; // they know their noise themselves

/** `start(body)` is called with task, options, sigma, mask and samples. `image(pixels)` says which image it is about. */
export function taskForm({ start }) {
  let task = "denoise";
  let options = [];
  let pixels = null;
  const mask = maskEditor();
  const sigma = number(null, { min: 0, max: 255, step: "any" });
  const samples = number(8, { min: 1, max: 16, step: 1 });
  const degrade = checkbox(said.degrade);
  const sigmaField = field(said.sigma, sigma, said.sigmaHint);
  const optionFields = h("div", { class: "pair" });
  const taskPlace = h("div", { id: freshId("task") });

  const choose = (name) => {
    task = name;
    const found = status.value.words.tasks.find((each) => each.name === name);
    options = (found?.options ?? []).map(option);
    optionFields.replaceChildren(...options.map(({ element }) => element));
    fitOptions();
    sigmaField.hidden = WITHOUT_SIGMA.includes(name);
    mask.element.hidden = name !== "inpaint" || !pixels;
  };
  const fitOptions = () => {
    const kind = options.find(({ name }) => name === "kind")?.value();
    for (const { name, element } of options) element.hidden = name in ONLY_FOR && ONLY_FOR[name] !== kind;
  };
  optionFields.addEventListener("change", fitOptions);
  const image = (found) => {
    pixels = found;
    if (found) mask.brush.show(found);
    mask.element.hidden = task !== "inpaint" || !found;
  };

  let names = "";
  status.watch(({ words: { tasks } }) => {
    if (names === tasks.map(({ name }) => name).join()) return;
    names = tasks.map(({ name }) => name).join();
    taskPlace.replaceChildren(segments(said.task, tasks.map(({ name }) => [name, said.tasks[name] ?? name]), task, choose));
    choose(task);
  });

  const submit = (event) => {
    event.preventDefault();
    mask.notice.say(null);
    const painted = task === "inpaint" && pixels;
    if (painted && mask.brush.empty) return mask.notice.say(said.maskEmpty);
    const known = options.map(({ name, value }) => [name, value()]).filter(([, value]) => value !== null && value !== "");
    return start({
      task,
      options: Object.fromEntries(known),
      samples: valueOf(samples) ?? 1,
      degrade: degrade.input.checked,
      ...(!sigmaField.hidden && valueOf(sigma) !== null && { sigma: valueOf(sigma) }),
      ...(painted && { mask: { width: pixels.width, height: pixels.height, png: mask.brush.png() } }),
    });
  };
  const element = h(
    "form",
    { id: freshId("form"), onsubmit: submit },
    taskPlace,
    optionFields,
    h("div", { class: "pair" }, sigmaField, field(said.samples, samples, said.samplesHint)),
    degrade.element,
  );
  return { element, brush: mask.element, image };
}

/** A field for one option of a task. */
function option({ name, kind, default: initial, min, max, choices }) {
  const label = said.options[name] ?? name;
  if (kind === "choice") {
    const input = select(choices.map((each) => [each, said.choices[each] ?? each]), initial);
    return { name, element: field(label, input), value: () => input.value };
  }
  const input = number(initial, { min, max, step: kind === "integer" ? 1 : "any" });
  return { name, element: field(label, input), value: () => valueOf(input) };
}

/** The brush, and masks from files. */
function maskEditor() {
  const brush = new MaskBrush({ label: said.brush.label, words: said.brush });
  const problem = notice();
  const load = async () => {
    const mask = await pixelsOf(input.files[0]);
    const { width, height } = brush.image;
    const same = mask.width === width && mask.height === height;
    problem.say(same ? null : said.maskSize(`${mask.width}×${mask.height}`, `${width}×${height}`));
    if (same) brush.mask = mask;
    input.value = "";
  };
  const input = h("input", { type: "file", accept: "image/*", hidden: true, onchange: () => load().catch(problem.say) });
  const button = h("button", { type: "button", onclick: () => input.click() }, said.maskFile);
  const element = h("div", { class: "mask", hidden: true }, h("h2", {}, said.brush.label), brush, input, button, problem.element);
  return { element, brush, notice: problem };
}
