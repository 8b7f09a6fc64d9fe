"use strict";
// Draws the figures and the chosen trial. Texts of the study go into the page as text, never as HTML.
(() => {
  const read = (id) => JSON.parse(document.getElementById(id).textContent);
  const at = (id) => document.getElementById(id);
  const found = read("trials-data");
  const dark = matchMedia("(prefers-color-scheme: dark)");
  const drawn = new Map(); // element -> what Vega-Embed made of it
  let selected = found.selected;
  const byName = new Map(found.trials.map((trial) => [String(trial.trial), trial]));
  for (const trial of found.trials) {
    const lines = trial.facts.map((fact) => fact.join(" "));
    trial.text = [trial.name, trial.params, ...lines].filter(Boolean).join("\n");
  }

  const hues = (printing) => found.colours[dark.matches && !printing ? "dark" : "light"];

  async function draw(element, figure) {
    const params = Object.entries(hues()).map(([name, value]) => ({ name, value }));
    const font = getComputedStyle(document.body).fontFamily;
    drawn.get(element)?.finalize();
    const made = await vegaEmbed(element, figure, {
      // Expressions are interpreted, because the page forbids code that is made of texts.
      ast: true, renderer: "svg", config: { ...found.config, background: null, font, params },
      actions: { export: true, source: false, compiled: false, editor: false },
      defaultStyle: false, tooltip: { disableDefaultStyle: true },
    });
    drawn.set(element, made);
    return made.view;
  }

  function paint(printing) {
    for (const { view } of drawn.values()) {
      for (const [name, value] of Object.entries(hues(printing))) view.signal(name, value);
      view.run();
    }
  }
  dark.addEventListener("change", () => paint(false));
  addEventListener("beforeprint", () => paint(true));
  addEventListener("afterprint", () => paint(false));

  function element(tag, text, className = "") {
    const made = document.createElement(tag);
    made.textContent = text;
    made.className = className;
    return made;
  }

  function option(value, text) {
    const made = element("option", text);
    made.value = value;
    return made;
  }

  async function drawFront() {
    const [x, y] = ["axis-x", "axis-y"].map((id) => Number(at(id).value));
    const front = found.fronts[[Math.min(x, y), Math.max(x, y)]];
    const values = { x, y, front, selected, step: found.objectives[x].step };
    const figure = structuredClone(found.front);
    figure.datasets = { trials: found.trials };
    for (const param of figure.params.filter(({ name }) => name in values)) param.value = values[param.name];
    for (const [channel, place] of [["x", x], ["y", y]]) {
      Object.assign(figure.encoding[channel], found.objectives[place].channel);
    }
    const known = found.trials.filter(({ values }) => values[x] !== null && values[y] !== null);
    const others = known.length - front.length;
    const without = found.trials.length - known.length;
    at("front-note").textContent = `${front.length} on the front, ${others} others`
      + (without ? `, ${without} without a value of both` : "")
      + (others > found.most ? "; not all of the dominated are drawn" : "");
    const view = await draw(at("front"), figure);
    view.addEventListener("click", (_, item) => {
      if (item?.datum && "trial" in item.datum) choose(item.datum.trial);
    });
  }

  function drawLayers(layers) {
    const { density, isometry } = structuredClone(found.panel);
    for (const figure of [density, isometry]) figure.height *= layers.length + 3;
    density.datasets = { layers: layers.map(({ name, kept, size, density: share }) =>
      ({ layer: name, kept, size, x: 100 * share })) };
    draw(at("panel-density"), density);
    // Without a repair both steps are the same.
    const same = layers.every((layer) => layer.before === layer.after);
    const steps = [["before", "pruned"], ["after", "after the repair"]].slice(0, same ? 1 : 2);
    const points = steps.flatMap(([key, series]) =>
      layers.map((layer) => ({ layer: layer.name, series, y: layer[key] })))
      .filter((point) => point.y !== null);
    isometry.datasets = { layers: points };
    const known = points.map((point) => point.y);
    const log = Math.min(...known) > 0 && Math.max(...known) > 30 * Math.min(...known);
    isometry.encoding.x.scale = { type: log ? "log" : "linear" };
    at("panel-isometry").hidden = !points.length;
    if (points.length) draw(at("panel-isometry"), isometry);
  }

  function fillTable(layers) {
    const number = (value) => (value === null ? "–" : value.toPrecision(4));
    at("panel-table").tBodies[0].replaceChildren(...layers.map((layer) => {
      const row = document.createElement("tr");
      const name = element("th", layer.name);
      name.scope = "row";
      const cells = [layer.kept.toLocaleString("en"), layer.size.toLocaleString("en"),
        layer.density === null ? "–" : `${(100 * layer.density).toFixed(2)} %`,
        number(layer.before), number(layer.after)];
      row.append(name, ...cells.map((text) => element("td", text, "n")));
      return row;
    }));
  }

  function show(name) {
    const trial = byName.get(String(name));
    if (!trial) return;
    selected = trial.trial;
    at("trial-panel").dataset.trial = at("trial-choice").value = String(selected);
    at("panel-title").textContent = trial.name;
    at("panel-params").textContent = trial.params;
    at("panel-facts").replaceChildren(...trial.facts.map(([term, value]) => {
      const pair = document.createElement("div");
      pair.append(element("dt", term), element("dd", value));
      return pair;
    }));
    const { layers, problem } = found.details[String(selected)] ?? {
      layers: [],
      problem: "Layers are kept in this page for the best trials only; "
        + `sculpt show ${found.study} ${selected} has them.`,
    };
    const note = problem || (layers.length ? "" : "The record of this trial says nothing of its layers.");
    at("panel-note").textContent = note;
    at("panel-note").hidden = !note;
    at("panel-plots").hidden = at("panel-details").hidden = !layers.length;
    if (layers.length) drawLayers(layers);
    fillTable(layers);
  }

  function choose(name) {
    show(name);
    drawn.get(at("front"))?.view.signal("selected", selected).run();
  }

  if (at("trial-panel")) {
    at("trial-choice").append(...found.trials.map(({ trial, name, params }) =>
      option(String(trial), `${name}: ${params}`.slice(0, 90))));
    at("trial-choice").addEventListener("change", (event) => choose(event.target.value));
    if (at("front")) {
      ["axis-x", "axis-y"].forEach((id, place) => {
        at(id).append(...found.objectives.map(({ name }, i) => option(i, name)));
        // The first objective upward: an error is what is looked at first.
        at(id).value = found.objectives.findIndex(({ name }) => name === found.axes[1 - place]);
        at(id).addEventListener("change", drawFront);
      });
      drawFront();
    }
    show(selected);
  }

  const figures = read("figures-data");
  for (const place of document.querySelectorAll("[data-figure]")) {
    draw(place, figures[place.dataset.figure]);
  }

  at("copy").addEventListener("click", async () => {
    const text = at(at("copy").dataset.copy);
    const range = document.createRange();
    range.selectNodeContents(text);
    getSelection().removeAllRanges();
    getSelection().addRange(range);
    let done = false;
    try {
      await navigator.clipboard.writeText(text.textContent);
      done = true;
    } catch {
      done = document.execCommand("copy"); // where a page from a file may not use the clipboard
    }
    at("copied").textContent = done ? "copied" : "selected: copy it with the keyboard";
  });
})();
