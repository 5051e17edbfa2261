/** The page's frame: its tabs, and how the server is. */

import { h } from "./components/dom.js";
import { Tabs } from "./components/tabs.js";
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
const ON_WEIGHTS = ["learn", "sample", "restore", "report"]; // tabs that need a trained run
const built = {}; // what a tab's module gave: {show?, hide?}

const { label, ...titles } = words.tabs;
const tabs = new Tabs({ label, titles, show, hide: (name) => built[name]?.hide?.() });

/** Builds a tab when it is first shown. */
async function show(name, panel, run) {
  if (run) chosen.set(run);
  settle();
  document.title = `${titles[name]} · ${words.title}`;
  const module = await MODULES[name]();
  built[name] ??= module.build(panel) ?? {};
  connect(); // the server loads torch from here on, which is slower than all of this page
  if (tabs.current === name) built[name].show?.();
}

function settle() {
  if (ON_WEIGHTS.includes(tabs.current)) chooseUsable();
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

/** What is wrong with the server, as a sentence. */
function serverNotice() {
  const element = h("p", { class: "notice", role: "alert", hidden: true });
  status.watch(({ connected, error }) => {
    const sentence = connected ? error : words.errors.lost;
    element.hidden = !sentence;
    element.textContent = sentence ?? "";
  });
  return element;
}

const brand = h("a", { class: "brand", href: "#learn" }, h("img", { src: "/static/icon.svg", alt: "", width: 24, height: 24 }), words.title);
document.body.prepend(h("header", {}, brand, tabs.bar, serverState()), serverNotice(), h("main", {}, ...tabs.panels));
runs.watch(settle);
tabs.start();
