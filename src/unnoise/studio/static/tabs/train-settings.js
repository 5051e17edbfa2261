/** What was found in a folder, and how to train on it. */

import { h } from "../components/dom.js";
import { checkbox, field, notice, number, segments, valueOf } from "../components/fields.js";
import { PixelCanvas } from "../components/pixels.js";
import { words } from "../words.js";
import { section } from "./layout.js";

const said = words.train;

/** `show(found, data)` says what an inspection found; `start(body)` is called to train. */
export function settings({ start }) {
  const element = h("div", { hidden: true });
  const show = (found, data) => {
    element.replaceChildren(section({ title: said.found(found.images) }, inspection(found)), form(found, data, start));
    element.hidden = false;
  };
  return { element, show, hide: () => (element.hidden = true) };
}

function inspection({ sheet, sizes, classes, notes, short_side, unreadable }) {
  const facts = h("div", { class: "found" });
  if (classes.length) facts.append(h("p", {}, said.classes(classes)));
  if (!short_side) facts.append(h("p", {}, words.colon(said.sizes, sizes.map(({ size, count }) => said.sizeCount(size, count)).join(", "))));
  for (const note of [...notes, short_side && words.colon(said.shortSide, short_side)].filter(Boolean)) facts.append(h("p", { class: "quiet" }, note));
  if (unreadable.length) facts.append(refused(unreadable));
  if (!sheet) return facts;
  const canvas = new PixelCanvas({ label: said.sheet });
  canvas.show(sheet);
  return h("div", { class: "split even" }, facts, h("div", { class: "sheet" }, canvas));
}

function refused(files) {
  const items = files.map(({ name, why }) => h("li", {}, h("code", {}, name), ` ${why}`));
  return h("details", {}, h("summary", {}, said.unreadable(files.length)), h("ul", {}, ...items));
}

function form(found, data, start) {
  let open = false;
  const problem = notice();
  const name = h("input", { type: "text", value: found.name ?? "", spellcheck: "false", autocomplete: "off" });
  const size = number(Math.max(...found.suggested_size), { min: 8, max: 512, step: 1 });
  const labels = checkbox(said.labels);
  labels.element.hidden = found.labels !== "folder";
  const minutes = number(2, { min: 0.05, step: "any", required: true });
  const minutesField = field(said.minutes, minutes);
  const time = segments(said.time, Object.entries(said.until), "minutes", (key) => {
    open = key === "open";
    minutesField.hidden = minutes.disabled = open;
  });
  const button = h("button", { class: "primary", type: "submit" }, said.start);
  const submit = async (event) => {
    event.preventDefault();
    problem.say(null);
    button.disabled = true;
    const body = { data, name: name.value.trim() || null, size: valueOf(size), minutes: open ? null : valueOf(minutes), labels: labels.input.checked };
    await start(body).catch(problem.say);
    button.disabled = false;
  };
  const fields = h("div", { class: "bar" }, field(said.name, name), field(said.size, size, said.sizeHint), time, minutesField);
  return section({ title: said.settings }, h("form", { onsubmit: submit }, fields, labels.element, h("div", { class: "buttons" }, button), problem.element));
}
