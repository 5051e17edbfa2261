/** Points on a curve, and a network that learns them in about ten seconds. */

import { CurvePlot } from "../components/curve-plot.js";
import { h } from "../components/dom.js";
import { field, number, segments, valueOf } from "../components/fields.js";
import { PointCloud } from "../components/point-cloud.js";
import { TimeSlider } from "../components/time-slider.js";
import { jobBar } from "../job-bar.js";
import { words } from "../words.js";
import { section } from "./layout.js";

const said = words.learn.toy;

export function toy() {
  let shape = Object.keys(said.shapes)[0];
  const cloud = new PointCloud({ label: said.label });
  const plot = new CurvePlot({ label: said.lossLabel, x: said.step, log: true, height: 170 });
  const path = new TimeSlider({ label: said.path, value: 1, step: 0.01, text: said.percent, ends: said.ends });
  const seconds = number(10, { min: 1, max: 20, step: 1 });
  const job = jobBar((step, total) => said.percent(step / total));
  path.hidden = true;
  path.addEventListener("input", () => cloud.show({ at: path.value }));

  const start = async () => {
    const losses = [];
    path.hidden = true;
    cloud.show({ data: [], points: [], trajectories: [] });
    const frame = ({ trained, loss, data, points }) => {
      if (loss !== null) losses.push([trained, loss]);
      cloud.show({ points, ...(data && { data }) });
      plot.show([{ name: said.loss, points: losses }]);
    };
    const result = await job.run("/api/learn/toy", { shape, seconds: valueOf(seconds) }, frame);
    if (!result) return;
    frame(result);
    path.hidden = false;
    cloud.show({ trajectories: result.trajectories, at: path.value });
  };

  const shapes = segments(said.shape, Object.entries(said.shapes), shape, (key) => (shape = key));
  const controls = h("div", { class: "bar" }, shapes, field(said.seconds, seconds), h("button", { class: "primary", type: "button", onclick: start }, said.start));
  return section(said, h("div", { class: "split toy" }, h("div", {}, cloud, path), h("div", {}, controls, job, plot)));
}
