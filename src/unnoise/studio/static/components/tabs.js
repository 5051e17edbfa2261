/** Tabs that the address names: `#watch/digits` is the tab `watch`, with `digits` for it to use. */

import { h } from "./dom.js";

/**
 * `new Tabs({label, titles: {name: title, ...}, show, hide})`; `bar` and `panels` are put where they belong, then `start()`.
 * `show(name, panel, rest)` is called when a tab is chosen, or its rest changes; `hide(name)` when another is chosen.
 */
export class Tabs {
  constructor({ label, titles, show, hide = () => {} }) {
    Object.assign(this, { show, hide, names: Object.keys(titles), current: null });
    this.links = this.names.map((name) => h("a", { href: `#${name}`, role: "tab", id: `tab-${name}`, "aria-controls": `panel-${name}` }, titles[name]));
    this.panels = this.names.map((name) => h("div", { role: "tabpanel", id: `panel-${name}`, "aria-labelledby": `tab-${name}`, tabindex: 0, hidden: true }));
    this.bar = h("div", { class: "tabs", role: "tablist", "aria-label": label, onkeydown: (event) => this.#arrows(event) }, ...this.links);
  }

  /** Shows the tab of the address, now and whenever that changes. */
  start() {
    addEventListener("hashchange", () => this.#route());
    this.#route();
  }

  #route() {
    const [asked, rest] = location.hash.slice(1).split("/").map(decodeURIComponent);
    const name = this.names.includes(asked) ? asked : this.names[0];
    if (name !== this.current) this.#choose(name);
    this.show(name, this.panels[this.names.indexOf(name)], rest ?? null);
  }

  #choose(name) {
    if (this.current) this.hide(this.current);
    this.current = name;
    this.names.forEach((each, k) => {
      this.links[k].setAttribute("aria-selected", each === name);
      this.links[k].tabIndex = each === name ? 0 : -1;
      this.panels[k].hidden = each !== name;
    });
    scrollTo(0, 0);
  }

  #arrows(event) {
    const step = { ArrowRight: 1, ArrowLeft: -1 }[event.key];
    if (!step) return;
    event.preventDefault();
    const count = this.names.length;
    const next = this.links[(this.links.indexOf(event.target) + step + count) % count];
    next.focus();
    location.hash = next.hash;
  }
}
