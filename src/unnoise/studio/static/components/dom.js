/** Building elements by function calls; nothing is ever parsed from text, so that no text can become markup. */

/**
 * An element. Attributes beginning with "on" are listeners, `value` and booleans are properties, null is left out.
 * @param {string} tag
 * @param {Object<string, any>} [attributes]
 * @param {...(Node|string|null|undefined)} children
 * @returns {HTMLElement}
 */
export function h(tag, attributes = {}, ...children) {
  return fill(document.createElement(tag), attributes, children);
}

/** The same for SVG. */
export function svg(tag, attributes = {}, ...children) {
  return fill(document.createElementNS("http://www.w3.org/2000/svg", tag), attributes, children);
}

function fill(element, attributes, children) {
  for (const [name, value] of Object.entries(attributes)) {
    if (value === null || value === undefined) continue;
    if (name.startsWith("on")) element.addEventListener(name.slice(2), value);
    else if (typeof value === "boolean" || name === "value") element[name] = value;
    else element.setAttribute(name, value);
  }
  element.append(...children.filter((child) => child !== null && child !== undefined));
  return element;
}

let count = 0;

/** An id that no other element has, for labels and descriptions. */
export function freshId(stem) {
  count += 1;
  return `${stem}-${count}`;
}

/**
 * A formula as text: `_t` and `_{max}` are lowered, `^2` raised, single letters are italic.
 * @param {string} text
 */
export function formula(text) {
  const parts = text.matchAll(/([_^])(?:\{([^}]*)\}|(\S))|(\p{L}[\p{L}\p{M}]*)|([^_^\p{L}]+)/gu);
  const nodes = [...parts].map(([whole, mark, group, single, word]) => {
    if (mark) return h(mark === "_" ? "sub" : "sup", {}, italic(group ?? single));
    return word ? italic(word) : whole;
  });
  return h("span", { class: "formula" }, ...nodes);
}

function italic(text) {
  return /^[A-Za-zα-ω]\p{M}*$/u.test(text) ? h("i", {}, text) : text;
}
