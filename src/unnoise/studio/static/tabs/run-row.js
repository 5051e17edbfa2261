/** A run in a list: its samples, its state, how far it is. */

import { h } from "../components/dom.js";
import { words } from "../words.js";

const said = words.watch;

export class RunRow {
  constructor(name) {
    this.image = h("img", { alt: "", width: 56, height: 56 });
    this.state = h("span", { class: "badge" });
    this.text = h("span", { class: "quiet" });
    this.bar = h("progress", { max: 1, "aria-label": said.progress(name) });
    this.link = h(
      "a",
      { href: `#watch/${encodeURIComponent(name)}` },
      h("span", { class: "thumbnail" }, this.image),
      h("span", { class: "about" }, h("span", { class: "first" }, h("b", {}, name), this.state), this.text, this.bar),
    );
    this.element = h("li", {}, this.link);
  }

  show(run) {
    this.image.hidden = !run.thumbnail;
    if (run.thumbnail && this.image.getAttribute("src") !== run.thumbnail) this.image.src = run.thumbnail;
    this.state.textContent = said.states[run.state];
    this.state.dataset.state = run.state;
    this.text.textContent = run.error ?? [said.steps(run.step, run.total_steps), left(run)].filter(Boolean).join(" · ");
    this.bar.hidden = run.state !== "training" || !run.total_steps;
    if (run.total_steps) this.bar.value = run.step / run.total_steps;
  }

  /** Keeps `list` and the rows by name as the runs are, without touching what stays. */
  static update(list, rows, runs) {
    const names = new Set(runs.map(({ name }) => name));
    for (const [name, row] of rows) {
      if (names.has(name)) continue;
      row.element.remove();
      rows.delete(name);
    }
    runs.forEach((run, k) => {
      if (!rows.has(run.name)) rows.set(run.name, new RunRow(run.name));
      const row = rows.get(run.name);
      row.show(run);
      if (list.children[k] !== row.element) list.insertBefore(row.element, list.children[k] ?? null);
    });
  }
}

function left(run) {
  return run.state === "training" && run.seconds_left !== null ? said.left(run.seconds_left) : null;
}
