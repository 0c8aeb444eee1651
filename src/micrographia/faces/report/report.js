// What makes the page move: it unpacks plotly.js and the data that the file carries, draws the pictures one by one,
// gives them switches and sliders, and keeps them in step with the theme and with the printer.

"use strict";

(() => {
  const FLOATS = { f4: Float32Array, f8: Float64Array, i1: Int8Array, u1: Uint8Array, i2: Int16Array, i4: Int32Array };
  const drawn = [];
  const listeners = []; // what widgets want done when the theme changes
  let carried = null;

  // ---- unpacking ---------------------------------------------------------------------------------------------

  function bytesOf(base64) {
    const text = atob(base64);
    const bytes = new Uint8Array(text.length);
    for (let i = 0; i < text.length; i++) bytes[i] = text.charCodeAt(i);
    return bytes;
  }

  // A frame of a notebook may leave plotly.js out, where an earlier frame of the same notebook carries it.
  async function carrying(name) {
    for (let tries = 0; tries < 25; tries++) {
      const own = document.getElementById(`carried-${name}`);
      const others = own || window.parent === window ? [] : window.parent.document.querySelectorAll("iframe.micrographia");
      const there = [...others].map((frame) => frame.contentDocument && frame.contentDocument.getElementById(`carried-${name}`));
      const found = own || there.find(Boolean);
      if (found) return found;
      await new Promise((next) => setTimeout(next, 200)); // a notebook that is opened loads its frames in any order
    }
    throw new Error("plotly.js stood in an earlier output, which is gone or apart; mg.show(...) carries its own");
  }

  async function unpacked(name) {
    const bytes = bytesOf((await carrying(name)).textContent.trim());
    const stream = new Blob([bytes]).stream().pipeThrough(new DecompressionStream("gzip"));
    return new Response(stream).text();
  }

  // float16 (1 sign, 5 exponent, 10 fraction bits) to float32.
  function halves(bytes) {
    const table = new Float32Array(65536);
    for (let i = 0; i < 65536; i++) {
      const exponent = (i >> 10) & 31;
      const fraction = i & 1023;
      const size = exponent === 0 ? fraction * 2 ** -24
        : exponent === 31 ? (fraction ? NaN : Infinity)
        : (1 + fraction / 1024) * 2 ** (exponent - 15);
      table[i] = i & 32768 ? -size : size;
    }
    return Float32Array.from(new Uint16Array(bytes.buffer), (half) => table[half]);
  }

  function typed({ dtype, bdata }) {
    const bytes = bytesOf(bdata);
    return dtype === "f2" ? halves(bytes) : new FLOATS[dtype](bytes.buffer);
  }

  // Arrays as plotly takes them: nested for more than one axis. With `flat` as {values, shape}.
  function revive(tree, flat) {
    if (Array.isArray(tree)) return tree.map((each) => revive(each, flat));
    if (tree === null || typeof tree !== "object") return tree;
    if (tree.bdata === undefined) {
      return Object.fromEntries(Object.entries(tree).map(([key, value]) => [key, revive(value, flat)]));
    }
    const values = typed(tree);
    if (tree.shape.length === 1) return values;
    return flat ? { values, shape: tree.shape } : nested(values, tree.shape);
  }

  function nested(values, shape) {
    if (shape.length === 1) return values;
    const size = values.length / (shape[0] || 1);
    return Array.from({ length: shape[0] }, (_, i) => nested(values.subarray(i * size, (i + 1) * size), shape.slice(1)));
  }

  // ---- theme -------------------------------------------------------------------------------------------------

  const darkMode = window.matchMedia("(prefers-color-scheme: dark)");

  function remembered(value) {
    try {
      if (value !== undefined) localStorage.setItem("micrographia-theme", value);
      return localStorage.getItem("micrographia-theme");
    } catch {
      return null; // a page opened from a file may have no storage: it then follows the system
    }
  }

  function themeName() {
    return document.documentElement.dataset.theme;
  }

  function setTheme(name) {
    if (themeName() === name) return;
    document.documentElement.dataset.theme = name;
    if (!carried) return;
    for (const { node, picture } of drawn) Plotly.update(node, {}, themed(picture));
    for (const refresh of listeners) refresh();
  }

  function themed(picture) {
    const theme = carried.themes[themeName()];
    const change = { template: theme.template };
    const scale = picture.layout.meta && picture.layout.meta.scale;
    if (scale) change["coloraxis.colorscale"] = theme.scales[scale];
    return change;
  }

  setTheme(remembered() || (darkMode.matches ? "dark" : "light"));
  darkMode.addEventListener("change", (event) => remembered() || setTheme(event.matches ? "dark" : "light"));
  const toggle = document.getElementById("theme");
  if (toggle) {
    toggle.addEventListener("click", () => {
      setTheme(themeName() === "dark" ? "light" : "dark");
      remembered(themeName());
    });
  }

  // ---- pictures ----------------------------------------------------------------------------------------------

  const touch = window.matchMedia("(pointer: coarse)").matches;
  const config = {
    responsive: true, displaylogo: false, displayModeBar: touch || window.innerWidth < 640 ? false : "hover",
    modeBarButtons: [["toImage", "zoom2d", "pan2d", "resetScale2d"]],
  };

  // On a narrow page fewer ticks, so that their labels neither touch nor turn.
  function sparser(layout) {
    const named = (axis) => axis.tickmode === "array" || axis.tickangle; // each name is wanted, and turned to fit
    const axes = Object.keys(layout).filter((key) => key.startsWith("xaxis") && !named(layout[key]));
    const few = (axis) => (layout.coloraxis ? 4 : axis.type === "category" ? 9 : 5); // numbers such as −0.004 are wide
    return Object.fromEntries(axes.map((key) => [key, { ...layout[key], nticks: few(layout[key]), tickangle: 0 }]));
  }

  function fitted(layout, node) {
    const drag = touch ? false : "zoom";
    if (node.clientWidth < 500 && layout.meta && layout.meta.narrow) return { ...layout, ...layout.meta.narrow, dragmode: drag };
    const square = layout.coloraxis && layout.annotations && !(layout.meta && layout.meta.width);
    const narrow = Math.min(1, node.clientWidth / 760);
    const axes = node.clientWidth < 500 ? sparser(layout) : {};
    return { ...layout, ...axes, height: square ? Math.round(layout.height * Math.max(narrow, 0.5)) : layout.height, dragmode: drag };
  }

  // A text that is wider than the page opens at its end, where the answer is: there the names must be seen.
  function namedAtTheEnd(layout) {
    const right = (key) => key.startsWith("yaxis") ? { ...layout[key], side: "right" } : layout[key];
    const moved = Object.fromEntries(Object.keys(layout).map((key) => [key, right(key)]));
    moved.annotations = layout.annotations.map((each) => ({ ...each, x: 1, xanchor: "right" }));
    return moved;
  }

  async function show(node) {
    const picture = carried.pictures[node.dataset.figure];
    const theme = carried.themes[themeName()];
    const layout = fitted({ ...picture.layout, template: theme.template }, node);
    const scale = layout.meta && layout.meta.scale;
    if (scale) layout.coloraxis = { ...layout.coloraxis, colorscale: theme.scales[scale] };
    controls(node, picture);
    node.replaceChildren();
    if (layout.meta && layout.meta.width > node.clientWidth) {
      layout.width = layout.meta.width; // words in cells stay readable: the picture scrolls sideways
      node.classList.add("wide");
    }
    const ended = layout.width && layout.meta.end;
    await Plotly.newPlot(node, picture.data, ended ? namedAtTheEnd(layout) : layout, layout.width ? { ...config, responsive: false } : config);
    if (ended) node.scrollLeft = node.scrollWidth;
    if (picture.frames.length) await Plotly.addFrames(node, picture.frames);
    const more = ((window.micrographia || {}).pictures || {})[(layout.meta || {}).kind];
    if (more) more(node, picture, number);
    drawn.push({ node, picture });
  }

  function element(name, className, text) {
    const node = document.createElement(name);
    if (className) node.className = className;
    if (text !== undefined) node.textContent = text;
    return node;
  }

  function controls(node, picture) {
    const meta = picture.layout.meta || {};
    const bar = element("div", "controls");
    for (const side of meta.log || []) bar.append(axisSwitch(node, picture, side));
    if (bar.children.length) node.before(bar);
    if (picture.frames.length) node.after(frameSlider(node, picture));
  }

  function axisSwitch(node, picture, side) {
    const box = element("div", "switch");
    box.setAttribute("role", "group");
    box.setAttribute("aria-label", `${side} axis`);
    box.append(element("span", "label", side));
    const ranges = (picture.layout.meta.ranges || {})[side];
    const buttons = ["linear", "log"].map((kind) => {
      const button = element("button", "", kind);
      button.type = "button";
      button.setAttribute("aria-pressed", String((picture.layout[`${side}axis`].type === "log") === (kind === "log")));
      button.addEventListener("click", () => {
        const change = { [`${side}axis.type`]: kind };
        for (const [name, value] of Object.entries(carried.ticks[kind])) change[`${side}axis.${name}`] = value;
        if (ranges) change[`${side}axis.range`] = ranges[kind];
        else change[`${side}axis.autorange`] = true;
        Plotly.relayout(node, change);
        buttons.forEach((each) => each.setAttribute("aria-pressed", String(each === button)));
      });
      return button;
    });
    box.append(...buttons);
    return box;
  }

  function frameSlider(node, picture) {
    const names = picture.frames.map((frame) => frame.name);
    const line = element("label", "slider");
    const play = element("button", "play", "▶");
    play.type = "button";
    play.setAttribute("aria-label", "play");
    const range = element("input");
    Object.assign(range, { type: "range", min: 0, max: names.length - 1, step: 1, value: names.length - 1 });
    range.setAttribute("aria-label", "frame");
    const output = element("output", "", names[names.length - 1]);
    const still = { mode: "immediate", frame: { duration: 0, redraw: true }, transition: { duration: 0 } };
    function go(i) {
      range.value = String(i);
      range.setAttribute("aria-valuetext", names[i]);
      output.textContent = names[i];
      return Plotly.animate(node, [names[i]], still);
    }
    let timer = null;
    function stop() {
      clearInterval(timer);
      timer = null;
      play.textContent = "▶";
    }
    range.addEventListener("input", () => {
      stop();
      go(Number(range.value));
    });
    play.addEventListener("click", () => {
      if (timer) return stop();
      if (Number(range.value) === names.length - 1) go(0);
      play.textContent = "❚❚";
      timer = setInterval(() => {
        const next = Number(range.value) + 1;
        if (next >= names.length) return stop();
        go(next);
      }, Math.max(120, 6000 / names.length));
    });
    line.append(play, range, output);
    return line;
  }

  // ---- widgets -----------------------------------------------------------------------------------------------

  // Scripts of labs, carried before this one, have registered a function (element, data, tools) by their asset's name.
  function startWidget(node) {
    const viewer = node.dataset.viewer !== undefined;
    const data = viewer ? carried.viewers[node.dataset.viewer] : carried.widgets[node.dataset.widget];
    const known = (window.micrographia || {})[viewer ? "viewers" : "widgets"] || {};
    const draw = known[viewer ? data.kind : data.asset];
    const tools = {
      Plotly: window.Plotly, number,
      theme: () => carried.themes[themeName()],
      onTheme: (callback) => listeners.push(callback),
    };
    try {
      if (!draw) throw new Error(`its script registered no ${data.asset || data.kind}`);
      draw(node, data, tools);
    } catch (error) {
      node.textContent = `This cannot be drawn: ${error.message}.`;
      node.classList.add("failed");
      console.error(error);
    }
  }

  // 1200, 0.9712 or 1.3e-6.
  function number(x) {
    if (!Number.isFinite(x)) return "–";
    if (Number.isInteger(x) && Math.abs(x) < 1e9) return String(x);
    const small = Math.abs(x) < 1e-3 || Math.abs(x) >= 1e5;
    return small ? x.toExponential(2).replace(/\.?0*e\+?/, "e") : String(Number(x.toPrecision(4)));
  }

  // ---- paper -------------------------------------------------------------------------------------------------

  let before = null;
  window.addEventListener("beforeprint", () => {
    before = themeName();
    setTheme("light");
    for (const { node, picture } of drawn) {
      const low = picture.layout.coloraxis || !picture.layout.height ? {} : { height: Math.round(0.72 * picture.layout.height) };
      Plotly.relayout(node, { autosize: false, width: Math.min(node.clientWidth, 660), ...low });
    }
    for (const node of document.querySelectorAll(".widget .js-plotly-plot")) {
      Plotly.relayout(node, { autosize: false, width: Math.min(node.clientWidth, 660) });
    }
  });
  window.addEventListener("afterprint", () => {
    for (const { node, picture } of drawn) {
      Plotly.relayout(node, { autosize: true, width: null, height: fitted(picture.layout, node).height });
    }
    for (const node of document.querySelectorAll(".widget .js-plotly-plot")) Plotly.relayout(node, { autosize: true, width: null });
    setTheme(before || "light");
  });

  // ---- start -------------------------------------------------------------------------------------------------

  function contents() {
    const details = document.querySelector("nav details");
    if (details && window.matchMedia("(max-width: 1180px)").matches) details.open = false;
  }

  async function start() {
    contents();
    if (!document.getElementById("carried-data")) {
      document.documentElement.dataset.ready = "yes";
      return;
    }
    if (typeof DecompressionStream === "undefined") {
      throw new Error("this browser cannot unpack gzip (needed: Chrome 80, Firefox 113 or Safari 16.4)");
    }
    const plotted = document.querySelector("[data-figure], [data-widget]");
    const [library, data] = await Promise.all([plotted ? unpacked("library") : "", unpacked("data")]);
    const script = document.createElement("script");
    script.textContent = library;
    document.head.append(script);
    const tree = JSON.parse(data);
    carried = { pictures: revive(tree.pictures, false), widgets: revive(tree.widgets, true), viewers: revive(tree.viewers, true), themes: tree.themes, ticks: tree.ticks };
    document.querySelectorAll("[data-viewer]").forEach(startWidget);
    for (const node of document.querySelectorAll("[data-figure]")) {
      await show(node);
      await new Promise((next) => setTimeout(next));
    }
    document.querySelectorAll("[data-widget]").forEach(startWidget);
    document.documentElement.dataset.ready = "yes";
  }

  // A frame of a notebook is no higher than what is in it.
  function fitFrame() {
    const main = document.querySelector("main.alone");
    if (!main || !window.frameElement) return;
    const ends = [main, document.querySelector(".size")].filter(Boolean).map((each) => each.getBoundingClientRect().bottom);
    const needed = Math.ceil(Math.max(...ends) + window.scrollY) + 16;
    if (needed < window.frameElement.clientHeight) window.frameElement.style.height = `${needed}px`;
  }

  start().then(fitFrame).catch((error) => {
    for (const node of document.querySelectorAll(".picture")) {
      node.textContent = `This picture could not be drawn: ${error.message}. The tables can still be read.`;
      node.classList.add("failed");
    }
    document.documentElement.dataset.ready = "failed";
    console.error(error);
  });
})();
