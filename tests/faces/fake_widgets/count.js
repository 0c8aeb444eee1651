// Tells how its data came in, and draws one point.

"use strict";

window.micrographia = window.micrographia || { widgets: {} };
micrographia.widgets["fake_widgets:count.js"] = (element, data, tools) => {
  const told = document.createElement("p");
  told.textContent = `${data.keys.join()} of ${data.z.shape.join("x")} and ${data.z.values.length}, ${tools.number(1.3e-6)}`;
  const plot = document.createElement("div");
  element.append(told, plot);
  const draw = () => tools.Plotly.react(plot, [{ y: [1] }], { template: tools.theme().template });
  draw();
  tools.onTheme(draw);
};
