/** Watch: the runs, and one of them as it learns. */

import { get } from "../api.js";
import { h } from "../components/dom.js";
import { loadingRuns } from "../run-picker.js";
import { chosen, runs } from "../store.js";
import { words } from "../words.js";
import { heading } from "./layout.js";
import { RunRow } from "./run-row.js";
import { RunDetail } from "./watch-detail.js";

const said = words.watch;

export function build(panel) {
  const list = h("ul", { class: "runs", "aria-label": said.list });
  const none = h("p", { class: "empty" }, said.none, " ", h("a", { href: "#train" }, words.trainOne));
  const place = h("div", { class: "detail" });
  const rows = new Map();
  let detail = null;
  let visible = false;

  runs.watch((found) => {
    none.hidden = found === null || found.length > 0;
    RunRow.update(list, rows, found ?? []);
    mark();
    open();
    detail?.listed((found ?? []).find(({ name }) => name === detail.name));
  });
  chosen.watch(() => {
    mark();
    open();
  });

  function mark() {
    for (const [name, row] of rows) {
      if (name === chosen.value) row.link.setAttribute("aria-current", "true");
      else row.link.removeAttribute("aria-current");
    }
  }

  /** Shows the chosen run while the tab is seen. */
  function open() {
    const name = visible && rows.has(chosen.value) ? chosen.value : null;
    if (name === (detail?.name ?? null)) return;
    detail?.close();
    detail = name ? new RunDetail(name) : null;
    place.replaceChildren(...(detail ? [detail.element] : []));
    if (detail) detail.listed(runs.value.find((run) => run.name === name));
  }

  panel.append(heading(said.title, said.lead), none, loadingRuns(), h("div", { class: "watch" }, list, place));
  const refresh = () => get("/api/runs").then((found) => runs.set(found), () => {});
  return {
    show() {
      visible = true;
      open();
      refresh();
    },
    hide() {
      visible = false;
      open();
    },
  };
}
