/** Form fields with labels, and the small things that forms share. */

import { freshId, h } from "./dom.js";

/** A control below its label, with a hint where it needs one. */
export function field(label, control, hint = null) {
  control.id ||= freshId("field");
  const help = hint && h("span", { class: "hint", id: freshId("hint") }, hint);
  if (help) control.setAttribute("aria-describedby", help.id);
  return h("div", { class: "field" }, h("label", { for: control.id }, label), control, help);
}

/** A number; `attributes` are those of an input. */
export const number = (value, attributes = {}) => h("input", { type: "number", value: value ?? "", ...attributes });

/** A number's value, null where it is empty. */
export const valueOf = (input) => (input.value === "" ? null : Number(input.value));

/** A choice of [value, title] pairs. */
export function select(pairs, value, attributes = {}) {
  const found = h("select", attributes);
  setOptions(found, pairs, value);
  return found;
}

/** Other choices, where they are others; keeps what is chosen where it still is one. */
export function setOptions(element, pairs, value = element.value) {
  const known = [...element.options].map((option) => [option.value, option.text]);
  if (JSON.stringify(known) !== JSON.stringify(pairs)) {
    element.replaceChildren(...pairs.map(([key, title]) => h("option", { value: key }, title)));
  }
  if (pairs.some(([key]) => String(key) === String(value))) element.value = value;
}

/** A checkbox and its label. */
export function checkbox(label, attributes = {}) {
  const input = h("input", { type: "checkbox", ...attributes });
  return { input, element: h("label", { class: "check" }, input, label) };
}

/** Choices of which one is chosen, all of them seen. */
export function segments(legend, pairs, value, onchange) {
  const name = freshId("choice");
  const inputs = pairs.map(([key, title]) => {
    const input = h("input", { type: "radio", name, value: key, checked: key === value, onchange: () => onchange(key) });
    return h("label", {}, input, h("span", {}, title));
  });
  return h("fieldset", { class: "segments" }, h("legend", {}, legend), h("div", {}, ...inputs));
}

/** A sentence about something that went wrong; empty until `say(error)`. */
export function notice() {
  const element = h("p", { class: "notice", role: "alert", hidden: true });
  const say = (problem) => {
    element.textContent = problem?.message ?? problem ?? "";
    element.hidden = !problem;
  };
  return { element, say };
}

/** A number that is most likely new. */
export const freshSeed = () => Math.floor(Math.random() * 10000);
