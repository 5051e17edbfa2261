/** The page's frame: the model's name and state, its tabs, and what it is. */

import { h } from "./components/dom.js";
import { Tabs } from "./components/tabs.js";
import { state } from "./engine.js";
import { Picture } from "./picture.js";
import { words } from "./words.js";

const MODULES = {
  sample: () => import("./tabs/sample.js"),
  morph: () => import("./tabs/morph.js"),
  inpaint: () => import("./tabs/inpaint.js"),
  denoise: () => import("./tabs/denoise.js"),
};
const built = {}; // what a tab's module gave: {show?, hide?}
const name = h("a", { class: "brand", href: "#sample" }, h("img", { src: "icon.svg", alt: "", width: 24, height: 24 }));
const says = h("p", { class: "state", role: "status" });
const bar = h("progress", { class: "download", max: 1, "aria-hidden": "true" });
const failure = h("p", { class: "notice failure", role: "alert", hidden: true });
let shared = null; // what tabs share, once it is known what the model is

const titles = Object.fromEntries(Object.keys(MODULES).map((each) => [each, words.tabs[each]]));
const tabs = new Tabs({ label: words.tabs.label, titles, show, hide: (tab) => built[tab]?.hide?.() });

async function show(tab, panel) {
  document.title = `${words.tabs[tab]} · ${shared.facts.name}`;
  const { build } = await MODULES[tab]();
  built[tab] ??= build(panel, shared) ?? {};
  built[tab].show?.();
}

function begin(facts) {
  shared = { facts, picture: new Picture(facts), go: (tab) => (location.hash = tab) };
  name.append(facts.name);
  document.body.append(h("footer", {}, h("p", {}, words.about(facts)), h("p", {}, words.made(facts))));
  tabs.start();
}

state.watch(({ facts, loading, ready, failed }) => {
  if (facts && !shared) begin(facts);
  says.dataset.kind = failed === undefined ? (ready ? "ready" : "loading") : "failed";
  says.textContent = ready ? words.ready : failed === undefined ? words.loading(loading ?? 0) : "";
  bar.hidden = Boolean(ready) || failed !== undefined;
  bar.value = loading ?? 0;
  failure.hidden = failed === undefined;
  failure.textContent = failed === undefined ? "" : words.failed(failed);
});

document.querySelector(".waiting").remove();
document.body.prepend(h("header", {}, name, tabs.bar, says), bar, failure, h("main", {}, ...tabs.panels));
