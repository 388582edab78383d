// What every view needs: build elements, write numbers, start in any host. Joined in front of <name>.js by __init__.py.

/** Make an element: h("button", { class: "x", onclick: f, "aria-label": "…" }, child, "text", …). */
export function h(tag, attributes = {}, ...children) {
  return dress(document.createElement(tag), attributes, children);
}

/** The same for SVG. */
export function s(tag, attributes = {}, ...children) {
  return dress(document.createElementNS("http://www.w3.org/2000/svg", tag), attributes, children);
}

function dress(element, attributes, children) {
  for (const [name, value] of Object.entries(attributes)) {
    if (value === null || value === undefined || value === false) continue;
    if (name.startsWith("on")) element.addEventListener(name.slice(2), value);
    else element.setAttribute(name, value === true ? "" : value);
  }
  element.append(...children.flat().filter((child) => child !== null && child !== undefined));
  return element;
}

/** Fixed digits; very large and very small numbers with a power of ten. Mirrors `readable` in Python. */
export function readable(value, digits = 3) {
  if (Number.isNaN(value)) return "undefined";
  if (!Number.isFinite(value)) return value > 0 ? "∞" : "−∞";
  if (Math.abs(value) < 1e-9) value = 0;
  const size = Math.abs(value);
  const text = value !== 0 && (size < 10 ** -digits || size >= 1e5)
    ? value.toExponential(1).replace(/e([+-])(\d)$/, "e$10$2") : value.toFixed(digits);
  return text.replaceAll("-", "−");
}

/** Write a number twice: rounded for the eye, and in full in `data-value`. */
export function show(element, value, text) {
  element.textContent = text;
  if (value === null) element.removeAttribute("data-value");
  else element.setAttribute("data-value", String(value));
}

/** Call `action` only when `wait` milliseconds have passed without another call: a screen reader hears the end only. */
export function calmly(action, wait = 300) {
  let timer = 0;
  return (...values) => {
    clearTimeout(timer);
    timer = setTimeout(() => action(...values), wait);
  };
}

/** Call `draw(width)` now and whenever the width of `element` changes. */
export function onWidth(element, draw) {
  let last = 0;
  const look = () => {
    const width = Math.round(element.clientWidth);
    if (width > 0 && width !== last) draw((last = width));
  };
  new ResizeObserver(look).observe(element);
  look();
}

/** One label with its control inside: no ids are needed, so two views never get in each other's way. */
export function field(text, control, className = "") {
  return h("label", { class: `cv-field ${className}` }, h("span", { class: "cv-name" }, text), control);
}

/** Find this script's own root, read its data, draw, and fold the table of numbers away. */
export function mount(view, name) {
  const root = document.currentScript?.closest(".course-view")
    ?? document.querySelector(`.course-view[data-view="${name}"]:not([data-mounted])`);
  if (!root || root.hasAttribute("data-mounted")) return;
  root.setAttribute("data-mounted", "");
  // JupyterLab must not take a slider's arrow key for "next cell"; it looks for this mark on the focused element itself.
  root.addEventListener("focusin", (event) => event.target.setAttribute("data-lm-suppress-shortcuts", "true"));
  const stage = h("div", { class: "cv-stage" });
  const numbers = root.querySelector(".cv-numbers");
  try {
    const data = JSON.parse(root.querySelector(".cv-data").textContent);
    const alt = root.querySelector(".cv-alt");
    root.insertBefore(stage, alt);
    view.render({ model: standIn(data), el: stage });
    stage.setAttribute("role", "group");
    stage.setAttribute("aria-label", alt.textContent);
    alt.remove();
    const fold = h("details", { class: "cv-details" }, h("summary", {}, "The numbers as a table"));
    numbers.replaceWith(fold);
    fold.append(numbers);
  } catch (problem) {
    stage.replaceChildren(h("p", { role: "alert" }, `The picture could not be drawn (${problem}). Its numbers:`));
  }
  // Colab shows an output in a frame of fixed height.
  const resize = () => globalThis.google?.colab?.output?.resizeIframeToContent?.();
  if (globalThis.google?.colab) new ResizeObserver(resize).observe(root);
}

/** What a view needs of an anywidget model, without a kernel. */
function standIn(data) {
  const values = { ...data };
  return { get: (key) => values[key], set: (key, value) => { values[key] = value; }, on() {}, off() {}, save_changes() {} };
}
