/** One run: what it is, its curves, and its samples at every stage. */

import { follow, get, runPath } from "../api.js";
import { CurvePlot } from "../components/curve-plot.js";
import { h } from "../components/dom.js";
import { words } from "../words.js";
import { Actions } from "./watch-actions.js";
import { Stages } from "./watch-stages.js";

const said = words.watch;
const LINES = 4000; // that are kept of a curve
const BINS = 150; // that are drawn

export class RunDetail {
  #stop = null;
  #lines = { metrics: [], held_out: [] };

  constructor(name) {
    this.name = name;
    this.loss = new CurvePlot({ label: said.lossLabel, x: said.step, log: true, height: 240 });
    this.copies = new CurvePlot({ label: said.copyLabel, x: said.step, height: 130, include: [0, 0.1] });
    this.copies.hidden = true;
    this.noCurves = h("p", { class: "empty" }, said.noCurves);
    this.stages = new Stages();
    this.facts = h("dl");
    this.state = h("span", { class: "badge" });
    this.live = h("p", { class: "visually-hidden", role: "status" });
    this.actions = new Actions(name);
    this.element = h(
      "article",
      { "aria-label": name },
      h("div", { class: "title" }, h("h2", {}, name), this.state),
      this.live,
      this.actions.element,
      h("div", { class: "split even" }, this.stages.element, h("div", {}, h("h3", {}, said.loss), this.noCurves, this.loss, this.copies)),
      this.facts,
    );
  }

  close() {
    this.#stop?.();
  }

  /** Follows its folder, which is there from the moment that the training has begun. */
  #follow() {
    const { name } = this;
    get(runPath(name)).then((found) => this.#describe(found), this.actions.notice.say);
    this.#stop = follow(`${runPath(name)}/events`, {
      metrics: ({ lines, reset }) => this.#add("metrics", lines, reset),
      held_out: ({ lines, reset }) => this.#add("held_out", lines, reset),
      samples: ({ samples }) => this.stages.add(samples),
      state: (run) => this.listed(run),
    });
  }

  /** What the list says of it, whenever that changes. */
  listed(run) {
    if (!run) return;
    if (!this.#stop && run.state !== "starting" && run.state !== "failed") this.#follow();
    if (this.state.dataset.state !== run.state) this.live.textContent = `${this.name}: ${said.states[run.state]}`;
    this.state.dataset.state = run.state;
    this.state.textContent = said.states[run.state];
    this.actions.show(run);
    this.run = run;
    this.#facts();
  }

  #describe(found) {
    this.described = found;
    this.stages.add(found.samples);
    this.#facts();
  }

  #facts() {
    const { run, described } = this;
    if (!run) return;
    const left = run.state === "training" && run.seconds_left !== null ? `, ${said.left(run.seconds_left)}` : "";
    const rows = [
      [said.facts.steps, said.steps(run.step, run.total_steps) + left],
      [said.facts.data, run.data],
      [said.facts.size, run.size && said.size(run.size, run.channels)],
      [said.facts.loss, run.loss?.toPrecision(4)],
      [said.facts.speed, run.images_per_second && said.speed(run.images_per_second)],
      [said.facts.best, described?.best?.toPrecision(4)],
    ];
    const shown = rows.filter(([, text]) => text);
    this.facts.replaceChildren(...shown.map(([name, text]) => h("div", {}, h("dt", {}, name), h("dd", {}, text))));
  }

  /** New lines of a curve; `reset`: all of them. */
  #add(kind, lines, reset) {
    this.#lines[kind] = thinned([...(reset ? [] : this.#lines[kind]), ...lines]);
    const points = (of, key) => this.#lines[of].filter((line) => Number.isFinite(line[key])).map((line) => [line.step, line[key]]);
    this.loss.show([
      { name: said.training, points: binned(points("metrics", "loss")) },
      { name: said.heldOut, points: points("held_out", "loss") },
    ]);
    const copies = points("held_out", "copy_rate");
    this.copies.hidden = copies.length < 2;
    this.copies.show([{ name: said.copies, points: copies }], [0, this.run?.step ?? 0]);
    this.noCurves.hidden = this.#lines.metrics.length > 0;
  }
}

/** Every second line where they are too many. */
function thinned(lines) {
  return lines.length > LINES ? lines.filter((_, k) => k % 2 === 1) : lines;
}

/** Means of equally many neighbours, so that noise does not hide the course. */
function binned(points) {
  const size = Math.ceil(points.length / BINS);
  const mean = (values) => values.reduce((sum, value) => sum + value, 0) / values.length;
  const bins = Array.from({ length: Math.ceil(points.length / size) || 0 }, (_, k) => points.slice(k * size, (k + 1) * size));
  return bins.map((bin) => [mean(bin.map(([x]) => x)), mean(bin.map(([, y]) => y))]);
}
