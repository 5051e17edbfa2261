/** What every tab begins with, and the sections that they have. */

import { formula, freshId, h } from "../components/dom.js";

/** A tab's heading and its sentence. */
export function heading(title, lead) {
  return h("div", { class: "heading" }, h("h1", {}, title), h("p", { class: "lead" }, lead));
}

/** A section with a heading of its own; `formulas` stand beside its text. */
export function section({ title, text = null, formulas = [] }, ...children) {
  const id = freshId("section");
  const lines = formulas.map((line) => h("p", {}, formula(line)));
  const maths = lines.length ? h("div", { class: "maths" }, ...lines) : null;
  const intro = text || maths ? h("div", { class: "intro" }, h("p", {}, text ?? ""), maths) : null;
  return h("section", { "aria-labelledby": id }, h("h2", { id }, title), intro, ...children);
}
