/** Train: choose images, look at what they are, begin. */

import { get, post, upload } from "../api.js";
import { h } from "../components/dom.js";
import { field, notice } from "../components/fields.js";
import { FileDrop } from "../components/file-drop.js";
import { chosen, runs } from "../store.js";
import { words } from "../words.js";
import { heading, section } from "./layout.js";
import { RunRow } from "./run-row.js";
import { settings } from "./train-settings.js";

const said = words.train;

export function build(panel) {
  const problem = notice();
  const progress = h("p", { class: "progress-text", role: "status" });
  const form = settings({ start: (body) => begin(body, progress) });
  const inspect = async (data) => {
    problem.say(null);
    form.hide();
    try {
      const body = await data();
      progress.textContent = said.inspecting;
      form.show(await post("/api/inspect", body), body.folder ? { folder: body.folder } : body.path);
    } catch (error) {
      problem.say(error);
    }
    progress.textContent = "";
  };
  const leftOut = (...what) => problem.say(said.leftOut(...what));
  const copying = (n, total) => (progress.textContent = said.uploading(n, total));
  panel.append(heading(said.title, said.lead), source(inspect, { progress: copying, leftOut }), progress, problem.element, form.element, running());
}

/** Where images come from: a folder that is dropped, or a path. */
function source(inspect, say) {
  const drop = new FileDrop({ title: said.drop, button: said.button, hint: said.hint, folder: true });
  drop.addEventListener("files", ({ detail }) => inspect(() => sendFolder(detail, say)));
  const path = h("input", { type: "text", spellcheck: "false", autocomplete: "off", required: true });
  const look = (event) => {
    event.preventDefault();
    inspect(() => ({ path: path.value.trim() }));
  };
  const digits = () => {
    path.value = "digits";
    inspect(() => ({ path: "digits" }));
  };
  const buttons = h(
    "div",
    { class: "buttons" },
    h("button", { type: "submit" }, said.inspect),
    h("button", { type: "button", onclick: digits }, said.digits),
  );
  const form = h("form", { class: "path", onsubmit: look }, field(said.path, path, said.pathHint), buttons);
  return h("div", { class: "sources" }, drop, form);
}

/** Sends the files of a folder one after the other; what the server does not take is left out, and said where all goes on. */
async function sendFolder(found, { progress, leftOut }) {
  const files = found.filter(({ path }) => !path.split("/").some((part) => part.startsWith(".")));
  const { id } = await post("/api/folders", {});
  const refused = [];
  for (const [k, { file, path }] of files.entries()) {
    progress(k + 1, files.length);
    await upload(`/api/folders/${id}/files`, file, path).catch((error) => refused.push([path, error.message]));
  }
  if (refused.length && refused.length === files.length) throw new Error(refused[0][1]);
  if (refused.length) leftOut(refused.length, ...refused[0]);
  return { folder: id };
}

async function begin(body, progress) {
  const { name } = await post("/api/runs", body);
  progress.textContent = said.started(name);
  chosen.set(name);
  location.hash = `watch/${encodeURIComponent(name)}`;
  runs.set(await get("/api/runs"));
}

/** The runs in training. */
function running() {
  const list = h("ul", { class: "runs" });
  const element = section({ title: said.running }, list);
  const rows = new Map();
  runs.watch((found) => {
    const training = (found ?? []).filter(({ state }) => state === "starting" || state === "training");
    element.hidden = training.length === 0;
    RunRow.update(list, rows, training);
  });
  return element;
}
