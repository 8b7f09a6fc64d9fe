"use strict";
// Puts it all together. Texts of the study go into the page as text, never as HTML.
(() => {
  const found = Figures.read("trials-data");
  const at = (id) => document.getElementById(id);
  const byName = new Map(found.trials.map((trial) => [String(trial.trial), trial]));
  let selected = found.selected;

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

  function drawFront() {
    if (!at("front")) return;
    const made = Front.figure(found, at("axis-x").value, at("axis-y").value, selected);
    at("front-note").textContent = made.note;
    return Figures.draw(at("front"), made.figure);
  }

  // As the axes of the other figures have it.
  const cut = (name) => (name.length <= 28 ? name : `…${name.slice(-27)}`);

  function bars(layers) {
    const names = layers.map((layer) => layer.name);
    const texts = layers.map(({ kept, size }) =>
      kept ? `${kept.toLocaleString("en")} of ${size.toLocaleString("en")}` : "none kept: collapsed");
    const data = [{
      type: "bar", orientation: "h", y: names, x: layers.map((layer) => 100 * (layer.density || 0)),
      text: texts, textposition: "outside", cliponaxis: false, hoverinfo: "text",
      hovertext: layers.map((layer, i) => `${Figures.escaped(layer.name)}<br>${texts[i]}`),
      textfont: { size: 10, color: layers.map((layer) => (layer.kept ? "@ink" : "@bad")) },
      marker: { color: "@s1" },
    }];
    // Room for the texts beside the bars.
    const ticks = { tickvals: [0, 25, 50, 75, 100], range: [0, 165] };
    return panel(data, names, { title: { text: "kept of each layer (%)" }, ...ticks }, false);
  }

  function isometry(layers) {
    const names = layers.map((layer) => layer.name);
    const steps = [["before", "pruned", "@s2", "diamond-open"], ["after", "after the repair", "@s1", "circle"]];
    // Without a repair both are the same.
    const same = layers.every((layer) => layer.before === layer.after);
    const data = steps.slice(0, same ? 1 : 2)
      .map(([key, name, color, symbol]) => ({
        type: "scatter", mode: "markers", name, hoverinfo: "x+name", y: names,
        x: layers.map((layer) => (layer[key] === null ? null : Math.max(layer[key], 1e-6))),
        marker: { color, symbol, size: 9 },
      }));
    const values = data.flatMap((trace) => trace.x).filter((value) => value !== null);
    const decades = Math.log10(Math.max(...values) / Math.min(...values));
    const powers = { type: "log", exponentformat: "power", dtick: Math.max(1, Math.round(decades / 5)) };
    const scale = decades > 1.5 ? powers : { nticks: 5, rangemode: "tozero" };
    return panel(data, names, { title: { text: "‖WWᵀ−I‖, 0 is isometry" }, ...scale }, true);
  }

  function panel(data, names, xaxis, showlegend) {
    const order = {
      categoryorder: "array", categoryarray: [...names].reverse(),
      tickvals: names, ticktext: names.map((name) => Figures.escaped(cut(name))),
    };
    return { data, layout: {
      height: 120 + 21 * names.length, showlegend, bargap: 0.25, hovermode: "closest",
      legend: { orientation: "h", x: 0, y: 1, yanchor: "bottom" },
      margin: { l: 8, r: 8, t: 34, b: 8 },
      xaxis: { automargin: true, ...xaxis },
      yaxis: { type: "category", automargin: true, tickfont: { size: 10 }, ...order },
    } };
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
    at("trial-panel").dataset.trial = String(selected);
    at("trial-choice").value = String(selected);
    at("panel-title").textContent = trial.base ? "dense base" : `trial ${trial.trial}`;
    at("panel-params").textContent = trial.params;
    at("panel-facts").replaceChildren(...Front.facts(found.terms, trial).map(([term, value]) => {
      const pair = document.createElement("div");
      pair.append(element("dt", term), element("dd", value));
      return pair;
    }));
    const details = found.details[String(selected)];
    const layers = details ? details.layers : [];
    const command = `sculpt show ${found.study} ${selected}`;
    let note = "";
    if (!details) note = `Layers are kept in this page for the best trials only; ${command} has them.`;
    else if (details.problem) note = details.problem;
    else if (!layers.length) note = "The record of this trial says nothing of its layers.";
    at("panel-note").textContent = note;
    at("panel-note").hidden = !note;
    at("panel-plots").hidden = at("panel-details").hidden = !layers.length;
    if (layers.length) {
      Figures.draw(at("panel-density"), bars(layers));
      const repaired = layers.some((layer) => layer.before !== null || layer.after !== null);
      at("panel-isometry").hidden = !repaired;
      if (repaired) Figures.draw(at("panel-isometry"), isometry(layers));
      fillTable(layers);
    }
  }

  function prepareFront() {
    const names = found.objectives.map((objective) => objective.name);
    ["axis-x", "axis-y"].forEach((id, index) => {
      at(id).append(...names.map((name) => option(name, name)));
      // The first objective upward: an error is what is looked at first.
      at(id).value = found.axes[1 - index];
      at(id).addEventListener("change", drawFront);
    });
    drawFront().then(() => at("front").on("plotly_click", (event) => {
      choose(event.points[0].customdata);
    }));
  }

  function choose(name) {
    show(name);
    drawFront();
  }

  if (at("trial-panel")) {
    at("trial-choice").append(...found.trials.map((trial) => {
      const name = trial.base ? "base" : `trial ${trial.trial}`;
      return option(String(trial.trial), `${name}: ${trial.params}`.slice(0, 90));
    }));
    at("trial-choice").addEventListener("change", (event) => choose(event.target.value));
    if (at("front")) prepareFront();
    show(selected);
  }

  const figures = Figures.read("figures-data");
  for (const place of document.querySelectorAll("[data-figure]")) {
    Figures.draw(place, figures[place.dataset.figure]);
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
