/** Curves over one axis as SVG, drawn for the width there is; a marker, and the values under the pointer. */

import { h, svg } from "./dom.js";
import { logTicks, scale, short, ticks } from "./scales.js";

const MARGIN = { top: 10, right: 12, bottom: 30, left: 46 };

/**
 * `new CurvePlot({label, x, log, height, include, text})`, where `include` are values that the vertical axis always reaches, and
 * `text(x)` says a place on the other; then `show([{name, points: [[x, y], ...]}, ...], range)`, and `marker = x`.
 * Series take the colours --first, --second, ... in order.
 */
export class CurvePlot extends HTMLElement {
  #series = [];
  #marker = null;
  #hover = null;

  constructor({ label, x = "", log = false, height = 200, include = [], text = short }) {
    super();
    Object.assign(this, { label, x, log, height, include, text });
    this.key = h("div", { class: "key" });
    this.figure = h("div", { class: "curves" });
    this.append(this.key, this.figure);
    this.figure.addEventListener("pointermove", (event) => this.#over(event));
    this.figure.addEventListener("pointerleave", () => this.#over(null));
    this.resize = new ResizeObserver(() => this.#draw());
    this.frame = 0;
  }

  connectedCallback() {
    this.resize.observe(this.figure);
  }

  disconnectedCallback() {
    this.resize.disconnect();
  }

  show(series, range = []) {
    this.range = range;
    const shown = ([x, y]) => Number.isFinite(x) && Number.isFinite(y) && (!this.log || y > 0);
    this.#series = series.map(({ name, points }) => ({ name, points: points.filter(shown) }));
    this.#soon();
  }

  set marker(x) {
    this.#marker = x;
    this.#soon();
  }

  /** Draws once, however much is shown before the next frame of the screen. */
  #soon() {
    cancelAnimationFrame(this.frame);
    this.frame = requestAnimationFrame(() => this.#draw());
  }

  #draw() {
    const width = this.figure.clientWidth;
    const points = this.#series.flatMap((each) => each.points);
    if (!width || !points.length) return this.figure.replaceChildren();
    const axes = this.#axes(width, points);
    const lines = this.#series.map((each, k) => curve(each.points, axes, k));
    const frame = { viewBox: `0 0 ${width} ${this.height}`, width, height: this.height, role: "img", "aria-label": this.#says() };
    this.figure.replaceChildren(svg("svg", frame, ...this.#grid(axes, width), ...lines, ...this.#marks(axes)));
    return this.#legend();
  }

  #axes(width, points) {
    const [left, right] = extent([...this.range, ...points.map(([x]) => x)]);
    let [low, high] = extent([...this.include, ...points.map(([, y]) => y)]);
    if (low === high) [low, high] = this.log ? [low / 2, high * 2] : [low - 0.5, high + 0.5];
    const pad = this.log ? 0 : (high - low) * 0.04;
    const x = scale(left, right, MARGIN.left, width - MARGIN.right);
    const y = scale(low - pad, high + pad, this.height - MARGIN.bottom, MARGIN.top, this.log);
    return { x, y, left, right, low, high };
  }

  #grid({ x, y, left, right, low, high }, width) {
    const bottom = this.height - MARGIN.bottom;
    const values = (this.log ? logTicks : ticks)(low, high, 4);
    const rows = values.flatMap((value) => [
      svg("line", { class: "rule", x1: MARGIN.left, x2: width - MARGIN.right, y1: y(value), y2: y(value) }),
      svg("text", { x: MARGIN.left - 8, y: y(value) + 4, "text-anchor": "end" }, short(value)),
    ]);
    const columns = ticks(left, right, Math.max(2, width / 110)).map((value) =>
      svg("text", { x: x(value), y: bottom + 18, "text-anchor": value === left ? "start" : value === right ? "end" : "middle" }, this.text(value)),
    );
    return [...rows, ...columns];
  }

  #marks({ x }) {
    const at = this.#hover ?? this.#marker;
    if (at === null) return [];
    return [svg("line", { class: "marker", x1: x(at), x2: x(at), y1: MARGIN.top, y2: this.height - MARGIN.bottom })];
  }

  #legend() {
    const at = this.#hover ?? this.#marker;
    const entries = this.#series.map(({ name, points }, k) => {
      const value = points.length ? (at === null ? points.at(-1) : nearest(points, at))[1] : null;
      return h("span", { class: `series-${k}` }, name, " ", h("b", {}, value === null ? "–" : short(value)));
    });
    const where = at === null ? [] : [h("span", { class: "where" }, `${this.x} ${this.text(at)}`)];
    this.key.replaceChildren(...entries, ...where);
  }

  #says() {
    const last = this.#series.filter(({ points }) => points.length);
    return `${this.label}: ${last.map(({ name, points }) => `${name} ${short(points.at(-1)[1])}`).join(", ")}`;
  }

  #over(event) {
    const points = this.#series.flatMap((each) => each.points);
    this.#hover = null;
    if (event && points.length) {
      const box = this.figure.getBoundingClientRect();
      const [left, right] = extent([...this.range, ...points.map(([x]) => x)]);
      const back = scale(MARGIN.left, box.width - MARGIN.right, left, right);
      this.#hover = nearest(points, back(event.clientX - box.left))[0];
    }
    this.#draw();
  }
}

function curve(points, { x, y }, k) {
  const path = points.map(([a, b], n) => `${n ? "L" : "M"}${x(a).toFixed(1)} ${y(b).toFixed(1)}`).join("");
  if (points.length === 1) return svg("circle", { class: `series-${k}`, cx: x(points[0][0]), cy: y(points[0][1]), r: 3 });
  return svg("path", { class: `series-${k}`, d: path });
}

function extent(values) {
  return values.reduce(([low, high], value) => [Math.min(low, value), Math.max(high, value)], [Infinity, -Infinity]);
}

function nearest(points, x) {
  return points.reduce((best, point) => (Math.abs(point[0] - x) < Math.abs(best[0] - x) ? point : best));
}

customElements.define("curve-plot", CurvePlot);
