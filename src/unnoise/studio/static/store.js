/** What the tabs share: the runs, the server's status, and which run is chosen. */

import { follow, renewToken } from "./api.js";

/** A value that tells its listeners when it is set. */
class Observable {
  #listeners = new Set();

  constructor(value) {
    this.value = value;
  }

  set(value) {
    this.value = value;
    for (const listener of this.#listeners) listener(value);
  }

  /** Calls the listener now and whenever the value is set. @returns {function()} that ends it */
  watch(listener) {
    this.#listeners.add(listener);
    listener(this.value);
    return () => this.#listeners.delete(listener);
  }
}

/** Of all runs, as the server lists them; null until it has. */
export const runs = new Observable(null);

/** The server's status, with `connected`. */
const NO_WORDS = { samplers: [], tasks: [] }; // until torch is loaded
export const status = new Observable({ torch: "loading", connected: true, words: NO_WORDS });

/** The name of the run that all tabs work on; null where there is none. */
export const chosen = new Observable(null);

/** The chosen run, as listed. */
export const chosenRun = () => runs.value?.find(({ name }) => name === chosen.value) ?? null;

/** Whether a run's weights can be used. */
export const usable = (run) => run.state !== "damaged" && run.step > 0;

/** Begins to follow the server. */
export function connect() {
  const say = (connected) => status.value.connected !== connected && status.set({ ...status.value, connected });
  follow("/api/status/events", {
    status: (found) => status.set({ ...found, connected: true, words: { ...NO_WORDS, ...found.words } }),
    lost: () => say(false),
    found: () => {
      if (!status.value.connected) renewToken();
      say(true);
    },
  });
  follow("/api/runs/events", { runs: listed });
}

/** Chooses a run whose weights can be used, if there is one and the chosen one's can't be. */
export function chooseUsable() {
  const run = chosenRun();
  const other = runs.value?.find(usable);
  if (other && !(run && usable(run))) chosen.set(other.name);
}

/** Keeps the chosen run, which may be about to appear, unless it has gone; tells the tabs when it can be used. */
function listed(found) {
  const before = chosenRun();
  runs.set(found);
  const after = chosenRun();
  if (!after && (before || chosen.value === null)) chosen.set((found.find(usable) ?? found[0])?.name ?? null);
  else if (after && usable(after) !== Boolean(before && usable(before))) chosen.set(chosen.value);
}
