/** Points in the plane: data, samples of a network, and the trajectories from noise to them. */

import { h } from "./dom.js";

const REACH = 3.2; // the plane is shown from -REACH to REACH

/** `new PointCloud({label})`; then `show({data, points, trajectories, at})`, where `at` in 0..1 moves along the trajectories. */
export class PointCloud extends HTMLElement {
  #shown = {};

  constructor({ label }) {
    super();
    this.canvas = h("canvas", { role: "img", "aria-label": label });
    this.append(this.canvas);
    this.resize = new ResizeObserver(() => this.#draw());
    this.scheme = matchMedia("(prefers-color-scheme: dark)");
    this.redraw = () => this.#draw();
  }

  connectedCallback() {
    this.resize.observe(this);
    this.scheme.addEventListener("change", this.redraw);
  }

  disconnectedCallback() {
    this.resize.disconnect();
    this.scheme.removeEventListener("change", this.redraw);
  }

  show(shown) {
    this.#shown = { ...this.#shown, ...shown };
    this.#draw();
  }

  #draw() {
    const side = this.canvas.clientWidth * devicePixelRatio;
    if (!side) return;
    this.canvas.width = this.canvas.height = side;
    const context = this.canvas.getContext("2d");
    const style = getComputedStyle(this);
    const place = ([x, y]) => [(0.5 + x / (2 * REACH)) * side, (0.5 - y / (2 * REACH)) * side];
    const { data = [], points = [], trajectories = [], at = 1 } = this.#shown;
    const radius = side / 170;
    dots(context, data.map(place), radius * 0.9, style.getPropertyValue("--faint"), 0.55);
    for (const each of trajectories) trail(context, each.map(place), at, style.getPropertyValue("--second"), radius * 0.45);
    const heads = trajectories.length ? trajectories.map((each) => along(each, at)) : points;
    dots(context, heads.map(place), radius * 1.15, style.getPropertyValue("--first"), 0.9);
  }
}

/** The point at a fraction of a trajectory. */
function along(trajectory, at) {
  const place = at * (trajectory.length - 1);
  const [k, part] = [Math.min(Math.floor(place), trajectory.length - 2), place - Math.min(Math.floor(place), trajectory.length - 2)];
  return [0, 1].map((axis) => trajectory[k][axis] * (1 - part) + trajectory[k + 1][axis] * part);
}

function dots(context, points, radius, colour, opacity) {
  context.globalAlpha = opacity;
  context.fillStyle = colour;
  for (const [x, y] of points) {
    context.beginPath();
    context.arc(x, y, radius, 0, 2 * Math.PI);
    context.fill();
  }
}

function trail(context, points, at, colour, width) {
  const passed = points.slice(0, 1 + Math.ceil(at * (points.length - 1)));
  context.globalAlpha = 0.35;
  context.strokeStyle = colour;
  context.lineWidth = width;
  context.beginPath();
  passed.forEach(([x, y], k) => (k ? context.lineTo(x, y) : context.moveTo(x, y)));
  context.stroke();
}

customElements.define("point-cloud", PointCloud);
