/** What the tabs ask about sampling. */

import { field, freshSeed, number, select, valueOf } from "./components/fields.js";
import { h } from "./components/dom.js";
import { TimeSlider } from "./components/time-slider.js";
import { calls } from "./table.js";
import { words } from "./words.js";

const said = words.settings;
const MOST_GUIDANCE = 5;

/** A seed, and a button for another one. */
export function seedField(label = said.seed, button = said.newSeed) {
  const input = number(freshSeed(), { min: 0, step: 1, required: true });
  const renew = () => (input.value = freshSeed());
  const element = h("div", { class: "pair seed" }, field(label, input), h("button", { type: "button", onclick: renew }, button));
  return { input, element, renew, value: () => wholeNumber(input.value) };
}

/** A whole number's text as Python writes it, also of more than 53 bits. */
const wholeNumber = (text) => BigInt(/^\d+$/.test(text) ? text : Math.round(Number(text))).toString();

/** The class, null for any; hidden where there are none. `drawn`: any is a class that is drawn, and each in turn is offered, too. */
export function labelField({ classes, guidance }, drawn = false) {
  const any = drawn || guidance ? [["", said.any]] : []; // without a class only where the network was trained so
  const all = drawn && !classes.includes("all") ? [["all", said.all]] : [];
  const input = select([...any, ...all, ...classes.map((name) => [name, name])], "");
  const element = field(said.label, input);
  element.hidden = classes.length === 0;
  return { input, element, value: () => input.value || null };
}

/** How many images. */
export function countField(count, max) {
  const input = number(count, { min: 1, max, step: 1, required: true });
  return { element: field(said.count, input), value: () => valueOf(input) };
}

/** The strength of guidance by class; 1 where there is none. */
export function guidanceSlider({ guidance }) {
  const slider = new TimeSlider({
    label: said.guidance, min: 1, max: Math.max(MOST_GUIDANCE, guidance?.scale ?? 1), step: 0.25, value: guidance?.scale ?? 1,
    text: said.guidanceText, ends: said.guidanceEnds,
  });
  slider.hidden = !guidance;
  return slider;
}

/** The number of steps, of those that the page has a table for. */
export function stepsSlider({ sample, steps }) {
  const counts = Object.keys(sample).map(Number).sort((a, b) => a - b);
  const text = (k) => said.stepsText(counts[k], calls(sample[counts[k]]));
  const element = new TimeSlider({ label: said.steps, min: 0, max: counts.length - 1, step: 1, value: counts.indexOf(steps), text, ends: said.stepsEnds });
  return { element, value: () => counts[element.value] };
}

/** A button that begins it all, and a form around. */
export function form(button, start, ...children) {
  const submit = (event) => {
    event.preventDefault();
    start();
  };
  return h("form", { class: "controls", onsubmit: submit }, ...children, h("button", { class: "primary", type: "submit" }, button));
}
