/** What the tabs share: the runs, the server's status, and which run is chosen. */

import { follow, get, renewToken } from "./api.js";

const ASKED_EVERY = 1500; // milliseconds

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

const NO_WORDS = { samplers: [], tasks: [] }; // until torch is loaded

/** The server's status, with `connected`. */
export const status = new Observable({ torch: "loading", connected: true, words: NO_WORDS });

/** The name of the run that all tabs work on; null where there is none. */
export const chosen = new Observable(null);

/** The chosen run, as listed. */
export const chosenRun = () => runs.value?.find(({ name }) => name === chosen.value) ?? null;

/** Whether a run's weights can be used. */
export const usable = (run) => run.state !== "damaged" && run.step > 0;

let following = false;

/** Begins to follow the server, once. The status has no stream: a browser allows six, over all its windows. */
export function connect() {
  if (following) return;
  following = true;
  follow("/api/runs/events", { runs: listed });
  ask();
}

async function ask() {
  try {
    const found = await get("/api/status");
    if (!status.value.connected) await renewToken();
    say({ ...found, connected: true, words: { ...NO_WORDS, ...found.words } });
  } catch {
    say({ ...status.value, connected: false });
  }
  setTimeout(() => (document.hidden ? document.addEventListener("visibilitychange", ask, { once: true }) : ask()), ASKED_EVERY);
}

function say(found) {
  if (JSON.stringify(found) !== JSON.stringify(status.value)) status.set(found);
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
