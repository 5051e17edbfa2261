/** The choice of a run, and what stands in its place where there is none. */

import { h } from "./components/dom.js";
import { field, select, setOptions } from "./components/fields.js";
import { chosen, chosenRun, runs, usable } from "./store.js";
import { words } from "./words.js";

/** The choice of the run that the tabs work on. */
export function runPicker() {
  const element = select([], null, { onchange: () => chosen.set(element.value) });
  const update = () => {
    const found = (runs.value ?? []).filter(usable);
    setOptions(element, found.map(({ name }) => [name, name]), chosen.value);
  };
  runs.watch(update);
  chosen.watch(update);
  return field(words.run, element);
}

/** The choice of a class, where the chosen run has any: `element`, and `value`, null for none in particular. */
export function classPicker() {
  const input = select([], "");
  const element = field(words.label, input);
  chosen.watch(() => {
    const classes = chosenRun()?.classes ?? [];
    element.hidden = classes.length === 0;
    setOptions(input, [["", words.anyLabel], ...classes.map((name) => [name, name])]);
  });
  return {
    element,
    get value() {
      return input.value || null;
    },
  };
}

/** What stands where runs will be listed, until the server has read them. */
export function loadingRuns() {
  const element = h("p", { class: "empty" }, words.loadingRuns);
  runs.watch((found) => (element.hidden = found !== null));
  return element;
}

/** What stands where a run is needed and there is none. */
export function withRun(content) {
  const empty = h("p", { class: "empty" }, words.noRuns, " ", h("a", { href: "#train" }, words.trainOne));
  runs.watch((found) => {
    const some = found?.some(usable) ?? false;
    content.hidden = !some;
    empty.hidden = some || found === null;
  });
  return [content, empty, loadingRuns()];
}
