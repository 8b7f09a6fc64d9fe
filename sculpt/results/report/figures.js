"use strict";
// Figures come without colours of their own: "@name" or "@name/opacity" is a variable of page.css.
const Figures = (() => {
  const drawn = new Map(); // element -> its figure, as it came
  // Plotly offers to upload a figure unless told not to; and only these buttons are there.
  const CONFIG = {
    responsive: true, displaylogo: false, displayModeBar: "hover",
    showSendToCloud: false, plotlyServerURL: "",
    modeBarButtons: [["toImage", "zoom2d", "pan2d", "resetScale2d"]],
  };
  const COLOURS = new Set(["color", "fillcolor", "bgcolor", "bordercolor", "linecolor", "gridcolor"]);
  const read = (id) => JSON.parse(document.getElementById(id).textContent);

  // Plotly reads a subset of HTML in every text.
  const escaped = (text) =>
    String(text).replace(/&/g, "&amp;").replace(/</g, "&lt;").replace(/>/g, "&gt;");

  function variable(name) {
    return getComputedStyle(document.documentElement).getPropertyValue(`--${name}`).trim();
  }

  function channels(hex) {
    return [1, 3, 5].map((place) => parseInt(hex.slice(place, place + 2), 16));
  }

  function colour(value) {
    const found = /^@([a-z0-9]+)(?:\/([0-9.]+))?$/.exec(value);
    if (!found) return value;
    const share = found[2] === undefined ? 1 : Number(found[2]);
    if (found[1] === "ramp") {
      const [low, high] = ["ramp-low", "ramp-high"].map((name) => channels(variable(name)));
      return `rgb(${low.map((from, i) => Math.round(from + share * (high[i] - from))).join(",")})`;
    }
    const solid = variable(found[1]);
    return share === 1 ? solid : `rgba(${channels(solid).join(",")},${share})`;
  }

  function coloured(value, key) {
    if (Array.isArray(value)) return value.map((element) => coloured(element, key));
    if (value && typeof value === "object") {
      const entries = Object.entries(value);
      return Object.fromEntries(entries.map(([name, part]) => [name, coloured(part, name)]));
    }
    const isColour = COLOURS.has(key) || key === "colorscale";
    return isColour && typeof value === "string" ? colour(value) : value;
  }

  function themed(layout) {
    const lines = { gridcolor: "@grid", linecolor: "@muted", zerolinecolor: variable("grid") };
    const result = {
      paper_bgcolor: "rgba(0,0,0,0)",
      plot_bgcolor: "rgba(0,0,0,0)",
      font: { family: getComputedStyle(document.body).fontFamily, size: 12, color: "@ink" },
      hoverlabel: { bgcolor: "@raised", bordercolor: "@muted", align: "left", font: { color: "@ink" } },
      modebar: { bgcolor: "rgba(0,0,0,0)", color: "@muted", activecolor: variable("ink") },
      ...layout,
    };
    for (const axis of Object.keys(result).filter((name) => /^[xy]axis\d*$/.test(name))) {
      result[axis] = { ...lines, ...result[axis] };
    }
    return coloured(result, "");
  }

  // Fields are copied: Plotly changes what it is given.
  function draw(element, figure) {
    const first = !drawn.has(element);
    drawn.set(element, figure);
    element.style.minHeight = `${figure.layout.height}px`;
    const layout = themed(structuredClone(figure.layout));
    if (document.documentElement.classList.contains("printing")) layout.width = element.clientWidth;
    const made = [element, coloured(figure.data, ""), layout, CONFIG];
    return first ? Plotly.newPlot(...made) : Plotly.react(...made);
  }

  function redraw() {
    for (const [element, figure] of drawn) draw(element, figure);
  }

  const scheme = matchMedia("(prefers-color-scheme: dark)");
  scheme.addEventListener("change", redraw);
  // Light, and as narrow as a sheet: no resize is announced when a page is printed.
  function printing(on) {
    document.documentElement.classList.toggle("printing", on);
    redraw();
  }
  addEventListener("beforeprint", () => printing(true));
  addEventListener("afterprint", () => printing(false));

  return { read, escaped, draw };
})();
