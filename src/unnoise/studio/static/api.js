/** Talking to the studio's server: requests, uploads, streams of events, jobs. */

import { words } from "./words.js";

let token = document.querySelector("meta[name=token]").content;

/** Reads the token of a server that was started anew. */
export async function renewToken() {
  const page = new DOMParser().parseFromString(await (await fetch("/")).text(), "text/html");
  token = page.querySelector("meta[name=token]").content;
}

/** An answer's JSON. Throws an Error whose message is a sentence. */
async function request(path, options) {
  let answer;
  try {
    answer = await fetch(path, options);
  } catch {
    throw new Error(words.errors.noServer);
  }
  const found = await answer.json().catch(() => ({ error: words.errors.strange(answer.status) }));
  if (!answer.ok) throw new Error(found.error ?? words.errors.strange(answer.status));
  return found;
}

export const get = (path) => request(path);

export function post(path, body) {
  const headers = { "X-Unnoise-Token": token, "Content-Type": "application/json" };
  return request(path, { method: "POST", headers, body: JSON.stringify(body) });
}

/** Sends a file's bytes; `name` may be a path within a folder. */
export function upload(path, file, name = file.name) {
  const headers = { "X-Unnoise-Token": token, "X-Filename": encodeURIComponent(name) };
  return request(path, { method: "POST", headers, body: file });
}

export const remove = (path) => request(path, { method: "DELETE", headers: { "X-Unnoise-Token": token } });

/** The path of a run, below which its details lie. */
export const runPath = (name) => `/api/runs/${encodeURIComponent(name)}`;

/**
 * Follows a stream of events while the page is visible: a browser allows six streams, over all its tabs.
 * @param {Object<string, function(any)>} handlers by event; `lost()` where the connection is.
 * @returns {function()} that ends it
 */
export function follow(path, handlers) {
  let source = null;
  const update = () => {
    source?.close();
    source = document.hidden ? null : open(path, handlers);
  };
  document.addEventListener("visibilitychange", update);
  update();
  return () => {
    document.removeEventListener("visibilitychange", update);
    source?.close();
  };
}

function open(path, { lost, ...handlers }) {
  const source = new EventSource(path);
  for (const [name, handler] of Object.entries(handlers)) {
    source.addEventListener(name, (event) => event.data !== undefined && handler(JSON.parse(event.data)));
  }
  source.addEventListener("error", (event) => event.data === undefined && lost?.());
  return source;
}

/**
 * Starts a job and follows it to its end. Closing the stream, as leaving the page does, cancels it.
 * @param {{queued?: function(any), frame?: function(any), started?: function(string)}} handlers
 * @param {AbortSignal} signal cancels it
 * @returns {Promise<Object|null>} what the job gave, with its `job` id; null where it was cancelled. Rejects with a sentence.
 */
export async function runJob(path, body, handlers, signal) {
  const { job } = await post(path, body);
  handlers.started?.(job);
  return new Promise((resolve, reject) => {
    let source = null;
    const end = (settle, value) => {
      source.close();
      settle(value);
    };
    source = open(`/api/jobs/${job}/events`, {
      queued: (event) => handlers.queued?.(event),
      frame: (event) => handlers.frame?.(event),
      done: (result) => end(resolve, { ...result, job }),
      cancelled: () => end(resolve, null),
      error: ({ error }) => end(reject, new Error(error)),
      lost: () => end(reject, new Error(words.errors.noServer)),
    });
    const cancel = () => {
      end(resolve, null);
      remove(`/api/jobs/${job}`).catch(() => {}); // it may have ended by itself
    };
    if (signal.aborted) cancel();
    else signal.addEventListener("abort", cancel);
  });
}
