// A circuit's picture: a node that is clicked shows its own edges, and all others pale; a second click shows all again.

"use strict";

(() => {
  const PALE = 0.12, COLOURS = ["#d9730d", "#2f78c4"]; // an edge that raises, one that lowers
  const MOST = 6; // edges on a side that are told in words

  function draw(root, picture, number) {
    const { sources, targets, weights, x, y, names } = picture.layout.meta.links;
    const own = root.data.length; // the first trace that is added here
    const nodes = own - 1;
    const edges = root.data.map((_, i) => i).filter((i) => root.data[i].mode === "lines");
    const told = document.createElement("p");
    const hint = "Click a node to see its edges alone.";
    let chosen = null;

    told.className = "source readout-line";
    told.setAttribute("aria-live", "polite");
    told.textContent = hint;
    root.after(told);

    const line = (colour) => ({ type: "scatter", mode: "lines", x: [null], y: [null], line: { color: colour, width: 2.5 }, hoverinfo: "skip", showlegend: false });
    Plotly.addTraces(root, COLOURS.map(line), [nodes, nodes + 1]); // below the nodes

    function path(links) {
      const along = (side) => links.flatMap((i) => [side[sources[i]], side[targets[i]], null]);
      return [along(x), along(y)];
    }

    function sentence(node, links) {
      const largest = [...links].sort((a, b) => Math.abs(weights[b]) - Math.abs(weights[a]));
      const list = (ends, others) => {
        const mine = largest.filter((i) => ends[i] === node);
        const rest = mine.length > MOST ? ` and ${mine.length - MOST} more` : "";
        return mine.slice(0, MOST).map((i) => `${names[others[i]]} ${number(Number(weights[i].toPrecision(3)))}`).join(", ") + rest;
      };
      const parts = [["reads from", list(targets, sources)], ["writes to", list(sources, targets)]].filter(([, text]) => text);
      return `${names[node]} ${parts.map(([verb, text]) => `${verb} ${text}`).join("; ")}.`;
    }

    function choose(node) {
      chosen = node === chosen ? null : node;
      const links = Array.from(sources.keys()).filter((i) => sources[i] === chosen || targets[i] === chosen);
      const sides = [links.filter((i) => weights[i] >= 0), links.filter((i) => weights[i] < 0)].map(path);
      Plotly.restyle(root, { opacity: chosen === null ? 1 : PALE }, edges);
      Plotly.restyle(root, { x: sides.map(([along]) => along), y: sides.map(([, up]) => up) }, [nodes, nodes + 1]);
      told.textContent = chosen === null ? hint : sentence(chosen, links);
    }

    root.on("plotly_click", ({ points }) => {
      const point = points.find((each) => each.data.mode === "markers+text");
      if (point) choose(point.pointNumber);
    });
  }

  window.micrographia = window.micrographia || {};
  window.micrographia.pictures = { ...window.micrographia.pictures, graph: draw };
})();
