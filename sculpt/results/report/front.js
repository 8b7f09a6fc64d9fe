"use strict";
// The Pareto front of the two objectives that are chosen, each budget by itself.
const Front = (() => {
  const MOST_DOMINATED = 3000; // more points than that only hide each other
  const SYMBOLS = ["circle", "diamond", "square", "triangle-up", "cross", "star"];
  const SERIES = ["@s1", "@s2", "@s3", "@s4", "@s5", "@s6"];
  const DASHES = ["solid", "dash", "dot", "dashdot", "longdash", "longdashdot"];
  const NAMES = { fraction: "%", macs: "MACs", bytes: "bytes", seconds: "seconds" };

  // Rows [across, upward, row]: nowhere worse and somewhere better dominates; equals stand together.
  function split(rows, signs) {
    const sorted = rows
      .map(([x, y, row]) => [x * signs[0], y * signs[1], row])
      .sort((a, b) => a[0] - b[0] || a[1] - b[1]);
    const front = [];
    const dominated = [];
    let best = Infinity;
    for (let start = 0; start < sorted.length; ) {
      let end = start;
      while (end < sorted.length && sorted[end][0] === sorted[start][0]) end += 1;
      const lowest = sorted[start][1];
      for (const [, y, row] of sorted.slice(start, end)) {
        (lowest < best && y === lowest ? front : dominated).push(row);
      }
      best = Math.min(best, lowest);
      start = end;
    }
    return { front, dominated };
  }

  function wrapped(text) {
    const lines = [""];
    for (const word of String(text).split(" ")) {
      if ((lines.at(-1) + word).length > 56) lines.push("");
      lines[lines.length - 1] += `${word} `;
    }
    return lines.map((line) => Figures.escaped(line.trim())).join("<br>");
  }

  // Pairs of texts; those without a value are not shown.
  const facts = (terms, trial) =>
    terms.map((term, i) => [term, trial.facts[i]]).filter(([, value]) => value);

  function describe(terms, trial) {
    const lines = facts(terms, trial).map((pair) => Figures.escaped(pair.join(" ")));
    const name = trial.base ? "dense base" : `trial ${trial.trial}`;
    return [Figures.escaped(name), wrapped(trial.params), ...lines].join("<br>");
  }

  function thin(rows) {
    if (rows.length <= MOST_DOMINATED) return rows;
    const step = rows.length / MOST_DOMINATED;
    return Array.from({ length: MOST_DOMINATED }, (_, i) => rows[Math.floor(i * step)]);
  }

  // Returns the figure, and in words what it leaves out.
  function figure(document_, across, upward, selected) {
    const { objectives, trials, budgets } = document_;
    const chosen = [across, upward].map((name) => objectives.findIndex((o) => o.name === name));
    const signs = chosen.map((i) => (objectives[i].direction === "minimize" ? 1 : -1));
    const scales = chosen.map((i) => (objectives[i].unit === "fraction" ? 100 : 1));
    const point = (trial) => chosen.map((place, i) => trial.values[place] * scales[i]);
    const known = trials.filter((t) => chosen.every((i) => t.values[i] !== null));
    const data = [];
    let counted = 0;
    const add = (rows, name, options) => {
      if (!rows.length) return;
      const points = rows.map(point);
      data.push({
        type: "scatter", mode: "markers", hoverinfo: "text", name,
        x: points.map((p) => p[0]), y: points.map((p) => p[1]),
        hovertext: rows.map((trial) => describe(document_.terms, trial)), customdata: rows.map((t) => t.trial), ...options,
      });
    };
    (budgets.length ? budgets : [null]).forEach((budget, index) => {
      const group = known.filter((t) => budget === null || t.group === budget);
      const { front, dominated } = split(group.map((t) => [...point(t), t]), signs);
      counted += front.length;
      const look = { color: SERIES[index % 6], symbol: SYMBOLS[index % 6] };
      const of = budget === null ? "" : `${budget.toLocaleString("en")} parameters: `;
      add(thin(dominated.filter((t) => !t.base)), `${of}dominated`, {
        marker: { ...look, size: 7, opacity: 0.5 },
      });
      const shape = signs[0] > 0 ? "hv" : "vh";
      add(front, `${of}front`, {
        mode: "lines+markers", marker: { ...look, size: 10 },
        line: { color: look.color, width: 2, dash: DASHES[index % 6], shape },
      });
    });
    add(known.filter((t) => t.base), "dense base", {
      marker: { color: "@base", symbol: "square-open", size: 15, line: { width: 2.5 } },
    });
    add(known.filter((t) => t.trial === selected), "shown below", {
      marker: { color: "@ink", symbol: "circle-open", size: 19, line: { width: 2 } },
    });
    const axis = (i) => {
      const { name, unit, direction } = objectives[chosen[i]];
      const better = direction === "minimize" ? "" : "; more is better";
      const title = `${name} (${NAMES[unit] || unit}${better})`;
      const values = known.map((t) => point(t)[i]);
      const wide = Math.min(...values) > 0 && Math.max(...values) > 30 * Math.min(...values);
      const type = wide ? "log" : "linear";
      return { title: { text: Figures.escaped(title) }, automargin: true, type, nticks: 6 };
    };
    const layout = {
      height: 460, hovermode: "closest", showlegend: true, xaxis: axis(0), yaxis: axis(1),
      legend: { orientation: "h", x: 0, y: 1.02, yanchor: "bottom" },
      margin: { l: 8, r: 12, t: 12, b: 8 },
    };
    const without = trials.length - known.length;
    const note = `${counted} on the front, ${known.length - counted} others`
      + (without ? `, ${without} without a value of both` : "")
      + (known.length - counted > MOST_DOMINATED ? "; not all of the dominated are drawn" : "");
    return { figure: { data, layout }, note };
  }

  return { figure, facts };
})();
