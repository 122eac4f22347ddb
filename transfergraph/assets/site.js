// What pages do beyond showing their tables: sort, filter, fold, and answer "which model for my data?".
"use strict";
const MOST = 15; // rows before the fold

function make(name, attributes = {}, ...children) {
  const made = document.createElement(name);
  for (const [key, value] of Object.entries(attributes)) made.setAttribute(key, value);
  made.append(...children);
  return made;
}
function valueOf(row, column) {
  const text = row.cells[column].textContent.trim();
  const number = Number(text.replaceAll(",", ""));
  return text === "" ? null : Number.isNaN(number) ? text.toLowerCase() : number;
}

// A heading sorts, missing values last either way; fields leave out rows; what is beyond MOST rows is folded.
function equip(table, noun = "rows") {
  const head = table.tHead && [...table.tHead.rows[0].cells], rows = [...(table.tBodies[0]?.rows ?? [])];
  if (!head || !rows.length || [...table.rows].some((row) => [...row.cells].some((c) => c.colSpan > 1 || c.rowSpan > 1))) return;
  const more = make("button", { type: "button", class: "more" }), said = make("output", { "aria-live": "polite" });
  let rules = [], open = false;
  const show = () => {
    const kept = [...table.tBodies[0].rows].filter((row) => (row.hidden = true) && rules.every((rule) => rule(row)));
    kept.slice(0, open ? undefined : MOST).forEach((row) => (row.hidden = false));
    more.hidden = kept.length <= MOST;
    more.textContent = open ? `Only the first ${MOST}` : `All ${kept.length} ${noun}`;
    said.textContent = `${kept.length} of ${rows.length} ${noun}`;
  };
  more.addEventListener("click", () => { open = !open; show(); });
  head.forEach((th, column) => {
    if (th.textContent.trim() === "") return;
    const button = make("button", { type: "button" }, ...th.childNodes);
    th.append(button);
    button.addEventListener("click", () => {
      const keys = new Map(rows.map((row) => [row, valueOf(row, column)]));
      const numeric = [...keys.values()].some((key) => typeof key === "number");
      const before = th.getAttribute("aria-sort");
      const down = before ? before === "ascending" : numeric; // the best numbers first
      const order = (a, b) => (typeof a === "number" && typeof b === "number" ? a - b : String(a).localeCompare(String(b)));
      rows.sort((r, s) => {
        const [a, b] = [keys.get(r), keys.get(s)];
        return a === null || b === null ? (a === null) - (b === null) : down ? order(b, a) : order(a, b);
      });
      table.tBodies[0].append(...rows);
      head.forEach((other) => other.removeAttribute("aria-sort"));
      th.setAttribute("aria-sort", down ? "descending" : "ascending");
      show();
    });
  });
  if (table.dataset.filters !== undefined) {
    const form = make("form", { class: "filters" });
    const field = (label, name, test, input = make("input", { type: "search" })) => {
      const column = head.findIndex((th) => th.textContent.trim() === name);
      if (column < 0) return;
      input.dataset.rule = label;
      form.append(make("label", {}, label, input));
      rules.push((row) => input.value === "" || test(row.cells[column].textContent.trim(), input.value));
      if (input.tagName !== "SELECT") return;
      const names = new Set(rows.map((row) => row.cells[column].textContent.trim()));
      input.append(make("option", { value: "" }, "any"), ...[...names].filter(Boolean).sort().map((n) => make("option", {}, n)));
    };
    const number = () => make("input", { type: "number", min: "0", step: "any" });
    field("name has", "model", (text, wanted) => text.toLowerCase().includes(wanted.toLowerCase()));
    for (const name of ["family", "licence"]) field(name, name, (text, wanted) => text === wanted, make("select"));
    field("at least, in millions", "million parameters", (text, wanted) => text !== "" && Number(text) >= Number(wanted), number());
    field("at most, in millions", "million parameters", (text, wanted) => text !== "" && Number(text) <= Number(wanted), number());
    form.append(make("button", { type: "reset" }, `all ${noun}`), said);
    form.addEventListener("input", show);
    form.addEventListener("reset", () => setTimeout(show));
    form.addEventListener("submit", (event) => event.preventDefault());
    const asked = decodeURIComponent(location.hash.slice(1)); // models.html#name shows that model
    if (table.id === "models" && rows.some((row) => row.cells[0].textContent === asked)) form.querySelector("input").value = asked;
    table.before(form);
  }
  table.after(more);
  show();
}
document.querySelectorAll(".md-content table:not([class])").forEach((table) => equip(table, table.id === "models" ? "models" : "rows"));

// ---- the first page: datasets and models that fit what was typed; a dataset shows its ranking
const question = document.getElementById("question");
if (question) {
  const zoos = JSON.parse(document.getElementById("rankings").textContent);
  const answers = document.getElementById("answers"), place = document.getElementById("ranking");
  const link = (zoo, model) => `zoos/${encodeURIComponent(zoo)}/models.html#${encodeURIComponent(model)}`;
  const say = ({ n_samples, n_classes, ...words }) => [
    n_samples && `${n_samples.toLocaleString("en")} training samples`, n_classes && `${n_classes} classes`, ...Object.values(words),
  ].filter(Boolean).join(", ").replaceAll("|", ", ").replace(/\.$/, "");
  const rank = (zoo, name) => {
    const { models, method, datasets, pages } = zoos[zoo], { about, right, rows } = datasets[name];
    const table = make("table", { id: "ranked", "data-filters": "" }), line = table.createTHead().insertRow();
    for (const text of ["place", "model", "predicted", "reached", "family", "licence", "million parameters"]) line.append(make("th", { scope: "col" }, text));
    const body = table.createTBody();
    rows.forEach(([i, predicted, reached], at) => {
      const [model, ...facts] = models[i], row = body.insertRow();
      const cells = [at + 1, make("a", { href: link(zoo, model) }, model), predicted.toFixed(3), reached?.toFixed(3) ?? "", ...facts.map((fact) => fact ?? "")];
      for (const cell of cells) row.append(make("td", {}, cell));
    });
    const measured = right.map(([who, what, value]) => `${who}, ${what} ${value?.toFixed(3) ?? "unknown"}`).join("; ");
    const text = `${say(about)}. Ranked by ${method} with every record of ${name} hidden; "reached" is what the models really reached. `;
    place.replaceChildren(make("h2", {}, `Models for data like ${name}`), make("p", {}, text, measured && `How right that was: ${measured}. `));
    if (pages[name]) place.lastChild.append(make("a", { href: pages[name] }, `How well each method ranked ${name}`));
    place.append(table);
    equip(table, "models");
  };
  const everything = Object.entries(zoos).flatMap(([zoo, { models, datasets }]) => [
    ...Object.entries(datasets).map(([name, { about }]) => ({ zoo, name, said: `${name} ${say(about)} ${zoo}`.toLowerCase() })),
    ...models.map(([name, ...facts]) => ({ zoo, name, model: true, said: `${name} ${facts.join(" ")} ${zoo}`.toLowerCase() })),
  ]);
  const find = () => {
    const words = question.value.toLowerCase().split(/\s+/).filter(Boolean);
    const found = everything.filter((e) => (words.length || !e.model) && words.every((word) => e.said.includes(word)));
    answers.replaceChildren(...found.slice(0, 24).map((e) => {
      const inside = [make("b", {}, e.name), ` ${e.model ? "model" : "dataset"} of ${e.zoo}`];
      if (e.model) return make("li", {}, make("a", { href: link(e.zoo, e.name) }, ...inside));
      const button = make("button", { type: "button", "aria-pressed": "false" }, ...inside);
      button.addEventListener("click", () => {
        answers.querySelectorAll("button").forEach((b) => b.setAttribute("aria-pressed", b === button));
        rank(e.zoo, e.name);
      });
      return make("li", {}, button);
    }));
    const rest = found.length > 24 ? `and ${found.length - 24} more` : found.length ? "" : "Nothing known has this in its name or description.";
    answers.append(make("li", {}, rest));
  };
  question.addEventListener("input", find);
  find();
}

// ---- a map: a trace for each family, datasets last; nothing is sent anywhere
const places = document.getElementById("map-places");
if (places) {
  const dots = JSON.parse(places.textContent), families = [...new Set(dots.map((dot) => dot.family))];
  const symbols = ["circle", "diamond", "square", "cross", "x", "triangle-up", "star"]; // 7, and 10 colours
  const traces = families.map((family, i) => {
    const own = dots.filter((dot) => dot.family === family), take = (key) => own.map((dot) => dot[key]), data = family === "dataset";
    return {
      x: take("x"), y: take("y"), name: family, text: take("label"), customdata: own.map((dot) => [dot.name, dot.best]),
      type: "scatter", mode: "markers+text", textposition: "top center",
      hovertemplate: `<b>%{customdata[0]}</b>, ${family}%{customdata[1]}<extra></extra>`,
      marker: data ? { symbol: "square-open", size: 12, color: "#808080" } : { symbol: symbols[i % symbols.length], size: 9 },
    };
  });
  const clear = "rgba(0,0,0,0)", hidden = { visible: false };
  const layout = {
    paper_bgcolor: clear, plot_bgcolor: clear, xaxis: hidden, yaxis: hidden, hovermode: "closest",
    legend: { orientation: "h", y: -0.02 }, showlegend: true, margin: { l: 5, r: 5, t: 35, b: 5 },
  };
  const buttons = [["zoom2d", "pan2d"], ["zoomIn2d", "zoomOut2d", "resetScale2d"], ["toImage"]];
  Plotly.newPlot("map", traces, layout, { responsive: true, displaylogo: false, modeBarButtons: buttons, plotlyServerURL: "" });
}
