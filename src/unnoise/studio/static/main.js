/** The page's frame: the tabs, which one the address names, and how the server is. */

import { h } from "./components/dom.js";
import { chooseUsable, chosen, connect, runs, status } from "./store.js";
import { words } from "./words.js";

const MODULES = {
  learn: () => import("./tabs/learn.js"),
  train: () => import("./tabs/train.js"),
  watch: () => import("./tabs/watch.js"),
  sample: () => import("./tabs/sample.js"),
  restore: () => import("./tabs/restore.js"),
  report: () => import("./tabs/report.js"),
};
const NAMES = Object.keys(MODULES);
const ON_WEIGHTS = ["learn", "sample", "restore", "report"]; // tabs that need a trained run
const shown = {}; // what a tab's module gave: {show?, hide?}
let current = null;

const tabs = NAMES.map((name) =>
  h("a", { href: `#${name}`, role: "tab", id: `tab-${name}`, "aria-controls": `panel-${name}`, "aria-selected": "false", tabindex: -1 }, words.tabs[name]),
);
const panels = NAMES.map((name) => h("div", { role: "tabpanel", id: `panel-${name}`, "aria-labelledby": `tab-${name}`, tabindex: 0, hidden: true }));

document.body.prepend(
  h(
    "header",
    {},
    h("a", { class: "brand", href: "#learn" }, h("img", { src: "/static/icon.svg", alt: "", width: 24, height: 24 }), words.title),
    h("div", { class: "tabs", role: "tablist", "aria-label": words.tabs.label, onkeydown: arrows }, ...tabs),
    serverState(),
  ),
  lostNotice(),
  h("main", {}, ...panels),
);

/** Shows the tab that the address names; `#watch/digits` also chooses a run. */
async function route() {
  const [asked, run] = location.hash.slice(1).split("/").map(decodeURIComponent);
  const name = NAMES.includes(asked) ? asked : "learn";
  if (run) chosen.set(run);
  if (name === current) return;
  shown[current]?.hide?.();
  current = name;
  NAMES.forEach((each, k) => {
    tabs[k].setAttribute("aria-selected", each === name);
    tabs[k].tabIndex = each === name ? 0 : -1;
    panels[k].hidden = each !== name;
  });
  settle();
  document.title = `${words.tabs[name]} · ${words.title}`;
  scrollTo(0, 0);
  const module = await MODULES[name]();
  shown[name] ??= module.build(panels[NAMES.indexOf(name)]) ?? {};
  if (current === name) shown[name].show?.();
}

function settle() {
  if (ON_WEIGHTS.includes(current)) chooseUsable();
}

function arrows(event) {
  const step = { ArrowRight: 1, ArrowLeft: -1 }[event.key];
  if (!step) return;
  event.preventDefault();
  const next = tabs[(NAMES.indexOf(current) + step + NAMES.length) % NAMES.length];
  next.focus();
  location.hash = next.hash;
}

function serverState() {
  const element = h("p", { class: "state", role: "status" });
  status.watch((found) => {
    const kind = found.connected ? found.torch : "lost";
    element.dataset.kind = kind;
    element.textContent = words.state(kind, found);
  });
  return element;
}

function lostNotice() {
  const element = h("p", { class: "notice lost", role: "alert", hidden: true });
  status.watch(({ connected }) => {
    element.hidden = connected;
    element.textContent = connected ? "" : words.errors.lost;
  });
  return element;
}

addEventListener("hashchange", route);
runs.watch(settle);
connect();
route();
