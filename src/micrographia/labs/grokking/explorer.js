// The explorer: the reader picks frequencies and a checkpoint, and the losses are computed here, from the logits.
//
// Logits are read through s = a + b mod n. `folded[s * n + c]` is their mean over the pairs of one sum. The projection
// of all logits on cos(w_k s), sin(w_k s), w_k = 2 pi k / n, depends on s alone and follows from that table exactly:
// the restricted loss in its variant (i), and the part that the excluded loss takes away (Nanda et al., 2023, section
// 5.1 and their notebook). Losses are in nats; log1p keeps the relative accuracy of very small ones.
// The page calls it with an empty element, the Figure's data, and its tools: Plotly, theme, onTheme, number.

"use strict";

(() => {
  const losses = (() => {
    // Waves over s: cos and sin of w_k s for k = 0 .. n/2, each a table of n numbers.
    function waves(n) {
      const half = Math.floor(n / 2);
      const cos = [];
      const sin = [];
      for (let k = 0; k <= half; k++) {
        cos.push(Float64Array.from({ length: n }, (_, s) => Math.cos((2 * Math.PI * ((k * s) % n)) / n)));
        sin.push(Float64Array.from({ length: n }, (_, s) => Math.sin((2 * Math.PI * ((k * s) % n)) / n)));
      }
      return { n, half, cos, sin };
    }

    // Fourier coefficients of a folded table over s, for every k and c; k = 0 holds the means. For even n the wave of
    // k = n/2 has half the usual share, since its sine is nothing.
    function spectrum(folded, { n, half, cos, sin }) {
      const a = new Float64Array((half + 1) * n);
      const b = new Float64Array((half + 1) * n);
      for (let k = 0; k <= half; k++) {
        const norm = k === 0 || 2 * k === n ? 1 / n : 2 / n;
        for (let s = 0; s < n; s++) {
          const x = norm * cos[k][s];
          const y = norm * sin[k][s];
          for (let c = 0; c < n; c++) {
            a[k * n + c] += x * folded[s * n + c];
            b[k * n + c] += y * folded[s * n + c];
          }
        }
      }
      return { a, b };
    }

    // The part of the logits that the waves of the set carry, as a table [s, c].
    function projection(coefficients, set, { n, cos, sin }) {
      const table = new Float64Array(n * n);
      for (const k of set) {
        for (let s = 0; s < n; s++) {
          const x = cos[k][s];
          const y = sin[k][s];
          for (let c = 0; c < n; c++) {
            table[s * n + c] += x * coefficients.a[k * n + c] + y * coefficients.b[k * n + c];
          }
        }
      }
      return table;
    }

    // Cross-entropy of one row of logits, -log softmax at the target, and whether the target is the greatest.
    function rowLoss(logits, start, n, target) {
      const right = logits[start + target];
      let best = -Infinity;
      for (let c = 0; c < n; c++) if (c !== target && logits[start + c] > best) best = logits[start + c];
      const top = Math.max(best - right, 0);
      let rest = 0;
      for (let c = 0; c < n; c++) if (c !== target) rest += Math.exp(logits[start + c] - right - top);
      const loss = top === 0 ? Math.log1p(rest) : top + Math.log(rest + Math.exp(-top));
      return { loss, right: right > best };
    }

    // Restricted loss, variant (i): the projection on the set, plus the mean of what it leaves out, over the pairs.
    // `weights[s]` counts the pairs of each sum that are looked at.
    function restricted(coefficients, set, weights, basis) {
      const { n } = basis;
      const table = projection(coefficients, set, basis);
      let loss = 0;
      let right = 0;
      let total = 0;
      for (let s = 0; s < n; s++) {
        for (let c = 0; c < n; c++) table[s * n + c] += coefficients.a[c];
        if (!weights[s]) continue;
        const row = rowLoss(table, s * n, n, s);
        loss += weights[s] * row.loss;
        right += row.right ? weights[s] : 0;
        total += weights[s];
      }
      return { loss: loss / total, accuracy: right / total };
    }

    // Excluded loss: all logits of the given rows, less their projection on the set. `sums[i]` is a + b mod n of row i.
    function excluded(logits, sums, coefficients, set, basis) {
      const { n } = basis;
      const table = projection(coefficients, set, basis);
      const row = new Float64Array(n);
      let loss = 0;
      let right = 0;
      for (let i = 0; i < sums.length; i++) {
        for (let c = 0; c < n; c++) row[c] = logits[i * n + c] - table[sums[i] * n + c];
        const found = rowLoss(row, 0, n, sums[i]);
        loss += found.loss;
        right += found.right ? 1 : 0;
      }
      return { loss: loss / sums.length, accuracy: right / sums.length };
    }

    // Share of each frequency, k = 1 .. n/2, in what varies with s, less what all c have in common.
    function energies(coefficients, { n, half }) {
      const shares = [];
      for (let k = 1; k <= half; k++) {
        let energy = 0;
        for (const part of [coefficients.a, coefficients.b]) {
          const row = part.subarray(k * n, (k + 1) * n);
          const mean = row.reduce((sum, x) => sum + x, 0) / n;
          for (const x of row) energy += (x - mean) ** 2;
        }
        shares.push(2 * k === n ? 2 * energy : energy);
      }
      const total = shares.reduce((sum, x) => sum + x, 0) || 1;
      return shares.map((x) => x / total);
    }

    return { waves, spectrum, projection, restricted, excluded, energies };
  })();

  function explorer(element, data, tools) {
    const n = data.modulus || Math.round(Math.sqrt(data.folded.values.length / data.labels.length));
    const basis = losses.waves(n);
    const keys = Array.from(data.key_frequencies);
    const frames = data.labels.length;
    const counts = countsOf(data, n);
    const { chips: chipBox, slider, label, readout, plot, setButtons, rowButtons } = markup(element);
    const state = { set: new Set(keys), rows: "all", frame: frames - 1 };
    const spectra = Array.from({ length: frames }, (_, i) =>
      losses.spectrum(data.folded.values.subarray(i * n * n, (i + 1) * n * n), basis));
    const everything = Array.from({ length: basis.half }, (_, i) => i + 1);
    const sums = sumsOf(data, n);
    const perFrame = data.full.values.length / Math.max(data.full_frames.length, 1);
    const remembered = new Map();

    function restricted(set) {
      const name = state.rows + ":" + [...set].join();
      if (!remembered.has(name)) {
        if (remembered.size > 40) remembered.clear();
        remembered.set(name, spectra.map((each) => losses.restricted(each, set, counts[state.rows], basis)));
      }
      return remembered.get(name);
    }

    function excludedAt(place, set) {
      const name = `excluded ${place}:` + [...set].join();
      if (!remembered.has(name)) {
        const logits = data.full.values.subarray(place * perFrame, (place + 1) * perFrame);
        remembered.set(name, losses.excluded(logits, sums, spectra[data.full_frames[place]], set, basis));
      }
      return remembered.get(name);
    }

    const chips = everything.map((k) => {
      const chip = document.createElement("button");
      chip.type = "button";
      chip.className = keys.includes(k) ? "chip-k key" : "chip-k";
      chip.append(String(k), document.createElement("i"));
      chip.addEventListener("click", () => {
        if (!state.set.delete(k)) state.set.add(k);
        refresh();
      });
      chipBox.append(chip);
      return chip;
    });

    const chooser = { key: () => keys, all: () => everything, none: () => [], others: () => everything.filter((k) => !keys.includes(k)) };
    for (const button of setButtons) {
      button.addEventListener("click", () => {
        state.set = new Set(chooser[button.dataset.set]());
        refresh();
      });
    }
    for (const button of rowButtons) {
      button.disabled = !counts[button.dataset.rows];
      button.addEventListener("click", () => {
        state.rows = button.dataset.rows;
        refresh();
      });
    }
    slider.max = String(frames - 1);
    slider.value = String(state.frame);
    slider.addEventListener("input", () => {
      state.frame = Number(slider.value);
      refresh();
    });

    function sorted() {
      return [...state.set].sort((a, b) => a - b);
    }

    function refresh() {
      for (const button of rowButtons) {
        button.setAttribute("aria-pressed", String(button.dataset.rows === state.rows));
      }
      for (const button of setButtons) {
        const set = chooser[button.dataset.set]();
        const same = set.length === state.set.size && set.every((k) => state.set.has(k));
        button.setAttribute("aria-pressed", String(same));
      }
      label.textContent = data.labels[state.frame];
      slider.setAttribute("aria-valuetext", data.labels[state.frame]);
      showChips();
      showReadout();
      showPlot();
    }

    function showChips() {
      const shares = losses.energies(spectra[state.frame], basis);
      chips.forEach((chip, i) => {
        chip.setAttribute("aria-pressed", String(state.set.has(i + 1)));
        chip.title = `k = ${i + 1}${keys.includes(i + 1) ? ", key frequency" : ""}: ${percent(shares[i])} of the energy in a + b`;
        chip.lastChild.style.width = `${100 * Math.sqrt(shares[i])}%`;
      });
    }

    function showReadout() {
      const sets = [["your set", sorted()], ["key set", keys], ["all", everything]];
      const place = Array.from(data.full_frames).indexOf(state.frame);
      const kept = sets.map(([, set]) => restricted(set)[state.frame]);
      const cut = place < 0 ? null : sets.map(([, set]) => excludedAt(place, set));
      const rowsName = { all: "all pairs", train: "training pairs", test: "unseen pairs" }[state.rows];
      const table = document.createElement("table");
      table.append(row("th", ["", ...sets.map(([name]) => name)]));
      table.append(row("td", [`restricted loss, ${rowsName}`, ...kept.map((each) => each.loss)]));
      table.append(row("td", ["right with these alone", ...kept.map((each) => percent(each.accuracy))]));
      if (cut) {
        table.append(row("td", ["excluded loss, training pairs", ...cut.map((each) => each.loss)]));
        table.append(row("td", ["right without these", ...cut.map((each) => percent(each.accuracy))]));
      }
      const nodes = [sentence(), table];
      if (!cut) nodes.push(jumps());
      readout.replaceChildren(...nodes);
    }

    function sentence() {
      const found = restricted(sorted())[state.frame];
      const text = state.set.size === 0 ? "no frequency" : state.set.size > 12 ? `${state.set.size} frequencies` : `k = ${sorted().join(", ")}`;
      const line = document.createElement("p");
      line.append(`${data.labels[state.frame]}, with ${text}: `, strong(`${percent(found.accuracy)} right`), ", restricted loss ", strong(found.loss), ".");
      return line;
    }

    function jumps() {
      const line = document.createElement("p");
      line.className = "source";
      line.append("The excluded loss needs all logits, which this page carries for: ");
      Array.from(data.full_frames).forEach((frame, i) => {
        const jump = document.createElement("button");
        jump.type = "button";
        jump.className = "jump";
        jump.textContent = data.labels[frame];
        jump.addEventListener("click", () => {
          slider.value = String(frame);
          state.frame = frame;
          refresh();
        });
        line.append(i ? ", " : "", jump);
      });
      line.append(".");
      return line;
    }

    function showPlot() {
      const theme = tools.theme();
      const x = data.epochs ? Array.from(data.epochs) : Array.from({ length: frames }, (_, i) => i);
      const curve = (name, set, line) => ({
        type: "scatter", mode: "lines", name, x, y: restricted(set).map((each) => each.loss), line,
        hovertemplate: `${name}: %{y:.4~g}<extra></extra>`,
      });
      const traces = [
        curve("all frequencies", everything, { color: theme.muted, width: 1.5, dash: "dot" }),
        curve("key set", keys, { color: theme.lines[1], width: 1.8, dash: "dash" }),
        curve("your set", sorted(), { color: theme.lines[0], width: 2.8 }),
      ];
      if (data.full_frames.length) {
        traces.push({
          type: "scatter", mode: "markers", name: "excluded, your set", x: Array.from(data.full_frames, (f) => x[f]),
          y: Array.from(data.full_frames, (_, i) => excludedAt(i, sorted()).loss),
          marker: { color: theme.lines[5], size: 9, symbol: "diamond" },
          hovertemplate: "without your set: %{y:.4~g}<extra></extra>",
        });
      }
      const rule = (along, at, text) => ({
        type: "line", [along + "ref"]: along, [(along === "x" ? "y" : "x") + "ref"]: "paper",
        [along + "0"]: at, [along + "1"]: at, [(along === "x" ? "y" : "x") + "0"]: 0, [(along === "x" ? "y" : "x") + "1"]: 1,
        line: { width: 1, dash: along === "y" ? "dot" : "solid" },
        label: { text, textposition: "end", textangle: 0, xanchor: "right", yanchor: "bottom", font: { size: 11 } },
      });
      const layout = {
        template: theme.template, height: 400, margin: { l: 8, r: 12, t: 8, b: 8 },
        legend: { orientation: "h", x: 0, y: 1.02, yanchor: "bottom" }, hovermode: "x unified",
        xaxis: { title: { text: data.epochs ? "epoch" : "checkpoint" }, automargin: true },
        yaxis: { title: { text: "loss (nats)" }, type: "log", exponentformat: "power", tickfont: { size: 11 }, automargin: true },
        shapes: [rule("x", x[state.frame], ""), rule("y", Math.log(n), "guessing: ln " + n)],
      };
      const touch = window.matchMedia("(pointer: coarse)").matches; // there a drag scrolls the page
      tools.Plotly.react(plot, traces, { ...layout, dragmode: touch ? false : "zoom" }, { responsive: true, displayModeBar: false });
    }

    refresh();
    tools.onTheme(showPlot);

    function row(kind, texts) {
      const line = document.createElement("tr");
      texts.forEach((text, i) => {
        const cell = document.createElement(i === 0 ? "th" : kind);
        cell.append(...written(text));
        line.append(cell);
      });
      return line;
    }

    function strong(text) {
      const node = document.createElement("strong");
      node.append(...written(text));
      return node;
    }

    // A number with its power of ten set as one; texts as they are.
    function written(text) {
      if (typeof text === "string") return [text];
      const [mantissa, exponent] = tools.number(text).split("e");
      if (exponent === undefined) return [mantissa];
      const power = document.createElement("sup");
      power.textContent = String(Number(exponent)).replace("-", "\u2212");
      return [`${mantissa}\u202f\u00d7\u202f10`, power];
    }

    function percent(x) {
      return x === 1 ? "100 %" : `${(100 * x).toFixed(x > 0.9 ? 2 : 1)} %`;
    }
  }

  // The controls, empty: chips, figures and curves come with the data.
  function markup(element) {
    const make = (name, attributes, ...children) => {
      const node = document.createElement(name);
      for (const [key, value] of Object.entries(attributes)) node.setAttribute(key, value);
      node.append(...children);
      return node;
    };
    const buttons = (kind, choices) => Object.entries(choices).map(([value, text]) =>
      make("button", { type: "button", [`data-${kind}`]: value, "aria-pressed": "false" }, text));
    const switches = (nodes) => make("div", { class: "switch", role: "group" }, ...nodes);
    const parts = {
      setButtons: buttons("set", { key: "key set", all: "all", none: "none", others: "all but the key set" }),
      rowButtons: buttons("rows", { all: "all pairs", train: "training pairs", test: "unseen pairs" }),
      chips: make("div", { class: "chips", role: "group", "aria-label": "frequencies" }),
      slider: make("input", { type: "range", min: 0, value: 0, step: 1, "aria-label": "checkpoint" }),
      label: make("output", {}),
      readout: make("div", { class: "readout", "aria-live": "polite" }),
      plot: make("div", { class: "picture" }),
    };
    element.append(
      make("div", { class: "controls" }, switches(parts.setButtons), switches(parts.rowButtons)),
      parts.chips,
      make("label", { class: "slider" }, make("span", { class: "label" }, "checkpoint"), parts.slider, parts.label),
      parts.readout,
      parts.plot,
    );
    return parts;
  }

  // Pairs of each sum s: all n of them, those of the training set, and the rest.
  function countsOf(data, n) {
    const all = data.counts_all ? Array.from(data.counts_all) : Array(n).fill(n);
    const train = data.counts_train ? Array.from(data.counts_train) : null;
    return { all, train, test: train ? all.map((count, s) => count - train[s]) : null };
  }

  // a + b mod n of every training row, from the pairs (row, 2).
  function sumsOf(data, n) {
    if (!data.full_train) return new Int32Array(0);
    const pairs = data.full_train.values;
    return Int32Array.from({ length: pairs.length / 2 }, (_, i) => (pairs[2 * i] + pairs[2 * i + 1]) % n);
  }

  if (typeof window !== "undefined") {
    window.micrographia = window.micrographia || { widgets: {} };
    window.micrographia.widgets["micrographia.labs.grokking:explorer.js"] = explorer;
  }
  if (typeof module !== "undefined") module.exports = { losses, countsOf, sumsOf, explorer };
})();
