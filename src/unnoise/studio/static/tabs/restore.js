/** Restore: an image, what happened to it, and what it was before. */

import { get, runPath, upload } from "../api.js";
import { h } from "../components/dom.js";
import { notice } from "../components/fields.js";
import { FileDrop } from "../components/file-drop.js";
import { imageData } from "../components/pixels.js";
import { jobBar } from "../job-bar.js";
import { classPicker, runPicker, withRun } from "../run-picker.js";
import { chosen } from "../store.js";
import { words } from "../words.js";
import { heading } from "./layout.js";
import { Result } from "./restore-result.js";
import { taskForm } from "./restore-task.js";

const said = words.restore;

export function build(panel) {
  let source = null; // {upload: id} or {data: index}
  const problem = notice();
  const job = jobBar();
  const result = new Result();
  const form = taskForm({ start });
  const label = classPicker();

  const use = (found, image) => {
    source = found;
    problem.say(null);
    result.clear();
    result.input(image);
    form.image(image);
  };

  async function start(body) {
    if (!source) return problem.say(said.imageFirst);
    problem.say(null);
    const asked = { run: chosen.value, image: source, label: label.value, ...body };
    const found = await job.run("/api/restore", asked, (frame) => result.frame(frame.images[0]));
    if (found) result.show(found);
    return undefined;
  }

  chosen.watch(() => {
    source = null;
    job.cancel();
    result.clear();
    form.image(null);
  });
  const go = h("div", { class: "go" }, h("button", { class: "primary", type: "submit", form: form.element.id }, said.start), job);
  const inputs = h("div", { class: "controls" }, runPicker(), ...images(use, problem.say), problem.element, label.element, form.element);
  const results = h("div", { class: "restoring" }, form.brush, go, result.element);
  panel.append(heading(said.title, said.lead), ...withRun(h("div", { class: "work" }, inputs, results)));
  return { hide: () => job.cancel() };
}

/** Where the image comes from: a file, or the run's data. */
function images(use, say) {
  let next = 0;
  const drop = new FileDrop({ title: said.drop, button: said.button, hint: said.hint, accept: "image/*" });
  const send = async ({ file }) => {
    const { id, image } = await upload("/api/uploads", file);
    use({ upload: id }, imageData(image));
  };
  const example = async () => {
    const { image, index } = await get(`${runPath(chosen.value)}/data/${next}`);
    next = index + 1;
    use({ data: index }, imageData(image));
  };
  drop.addEventListener("files", ({ detail }) => send(detail[0]).catch(say));
  return [drop, h("button", { type: "button", onclick: () => example().catch(say) }, said.example)];
}
