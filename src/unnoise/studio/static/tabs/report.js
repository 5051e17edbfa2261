/** Report: the report card of a run, or two runs compared. */

import { runPath } from "../api.js";
import { h } from "../components/dom.js";
import { field, select, setOptions } from "../components/fields.js";
import { runPicker, withRun } from "../run-picker.js";
import { chosen, runs, usable } from "../store.js";
import { words } from "../words.js";
import { heading } from "./layout.js";

const said = words.report;

export function build(panel) {
  const against = select([["", said.nothing]], "", { onchange: () => load() });
  const link = h("a", { class: "button", target: "_blank", rel: "noopener" }, said.open);
  const waiting = h("p", { class: "quiet", role: "status" });
  const place = h("div", { class: "report" });
  let visible = false;
  let shown = null;

  function load() {
    if (!visible || !chosen.value) return;
    const other = against.value;
    const url = other ? `/api/compare?run=${encodeURIComponent(chosen.value)}&run=${encodeURIComponent(other)}` : `${runPath(chosen.value)}/report`;
    if (url === shown) return;
    shown = link.href = url;
    waiting.textContent = said.loading;
    const title = other ? said.compare(chosen.value, other) : said.frame(chosen.value);
    place.replaceChildren(h("iframe", { src: url, title, sandbox: "allow-scripts", onload: () => (waiting.textContent = "") }));
  }

  const update = () => {
    const others = (runs.value ?? []).filter((run) => usable(run) && run.name !== chosen.value);
    setOptions(against, [["", said.nothing], ...others.map(({ name }) => [name, name])]);
    load();
  };
  runs.watch(update);
  chosen.watch(update);
  const bar = h("div", { class: "bar" }, runPicker(), field(said.against, against), link);
  panel.append(heading(said.title, said.lead), ...withRun(h("div", {}, bar, waiting, place)));
  return {
    show() {
      visible = true;
      shown = null;
      load();
    },
    hide() {
      visible = false;
    },
  };
}
