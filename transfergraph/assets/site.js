// What pages do beyond showing their tables: themes, sorting, filtering, the map. Nothing is fetched.
"use strict";

// ---- light or dark: as the system says, until the button is used
const root = document.documentElement;
const systemDark = window.matchMedia("(prefers-color-scheme: dark)");
const remembered = () => { try { return localStorage.getItem("theme"); } catch { return null; } };
function setTheme(name) {
  root.dataset.theme = name;
  document.dispatchEvent(new Event("theme"));
}
setTheme(remembered() || (systemDark.matches ? "dark" : "light"));
systemDark.addEventListener("change", (e) => { if (!remembered()) setTheme(e.matches ? "dark" : "light"); });
document.addEventListener("click", (e) => {
  if (!e.target.closest("#theme")) return;
  const name = root.dataset.theme === "dark" ? "light" : "dark";
  try { localStorage.setItem("theme", name); } catch { /* private windows keep nothing */ }
  setTheme(name);
});

// ---- tables: a click on a heading sorts, missing values last either way
function cellValue(row, column) {
  const cell = row.cells[column];
  if (cell.dataset.value === undefined) return cell.textContent.trim().toLowerCase();
  return cell.dataset.value === "" ? NaN : Number(cell.dataset.value);
}
function sortTable(table, column, descending) {
  const rows = [...table.tBodies[0].rows].map((row) => [cellValue(row, column), row]);
  const missing = (v) => v === "" || Number.isNaN(v);
  rows.sort(([a], [b]) => {
    if (missing(a) || missing(b)) return missing(a) - missing(b);
    const order = typeof a === "number" ? a - b : a.localeCompare(b);
    return descending ? -order : order;
  });
  table.tBodies[0].append(...rows.map(([, row]) => row));
  [...table.tHead.rows[0].cells].forEach((th, i) => {
    if (i === column) th.setAttribute("aria-sort", descending ? "descending" : "ascending");
    else th.removeAttribute("aria-sort");
  });
}
for (const table of document.querySelectorAll("table[data-sortable]")) {
  [...table.tHead.rows[0].cells].forEach((th, column) => {
    const button = document.createElement("button");
    button.type = "button";
    button.append(...th.childNodes);
    th.append(button);
    button.addEventListener("click", () => {
      const before = th.getAttribute("aria-sort");
      const first = th.classList.contains("text") ? "ascending" : "descending"; // the best numbers first
      sortTable(table, column, before ? before === "ascending" : first === "descending");
    });
  });
}

// ---- filters: a row is shown where every filled field agrees
for (const form of document.querySelectorAll("form[data-filters]")) {
  const table = document.getElementById(form.dataset.filters);
  const said = form.querySelector("output");
  const agrees = (row, field) => {
    if (field.value === "") return true;
    const value = row.dataset[field.dataset.column];
    if (field.dataset.rule === "is") return value === field.value;
    if (field.dataset.rule === "has") return value.toLowerCase().includes(field.value.toLowerCase());
    if (value === "") return false; // a size that is not known is in no range
    return field.dataset.rule === "least" ? Number(value) >= Number(field.value) * 1e6 : Number(value) <= Number(field.value) * 1e6;
  };
  const apply = () => {
    const fields = [...form.querySelectorAll("[data-rule]")];
    const rows = [...table.tBodies[0].rows];
    for (const row of rows) row.hidden = !fields.every((field) => agrees(row, field));
    said.textContent = `${rows.filter((row) => !row.hidden).length} of ${rows.length} models`;
  };
  form.addEventListener("input", apply);
  form.addEventListener("reset", () => setTimeout(apply));
  form.addEventListener("submit", (e) => e.preventDefault());
  apply();
}

// ---- the map: hover names a dot, a click (or the list beside it) shows its history
function readJson(id) { return JSON.parse(document.getElementById(id).textContent); }
function element(name, text, attributes = {}) {
  const made = document.createElement(name);
  if (text !== undefined) made.textContent = text;
  for (const [key, value] of Object.entries(attributes)) made.setAttribute(key, value);
  return made;
}
for (const place of document.querySelectorAll(".map")) {
  const figure = readJson("figure"), histories = readJson("histories");
  const panel = document.getElementById("history"), list = document.getElementById("node");
  const show = (key) => {
    const { name, facts, columns, rows } = histories[key];
    panel.replaceChildren(element("h2", name), element("p", facts));
    if (rows.length) {
      const table = element("table"), head = table.createTHead().insertRow();
      columns.forEach((c, i) => head.append(element("th", c, i ? {} : { class: "text", scope: "col" })));
      const body = table.createTBody();
      for (const row of rows) {
        const line = body.insertRow();
        row.forEach((cell, i) => line.append(element("td", cell, i ? {} : { class: "text" })));
      }
      panel.append(table);
    }
    list.value = key;
  };
  const colours = () => {
    const css = getComputedStyle(root);
    return { "font.color": css.getPropertyValue("--text").trim(), "hoverlabel.bgcolor": css.getPropertyValue("--card").trim(),
      "hoverlabel.font.color": css.getPropertyValue("--text").trim(), "modebar.bgcolor": "rgba(0, 0, 0, 0)",
      "modebar.color": css.getPropertyValue("--quiet").trim(), "modebar.activecolor": css.getPropertyValue("--text").trim() };
  };
  const buttons = [["zoom2d", "pan2d"], ["zoomIn2d", "zoomOut2d", "resetScale2d"], ["toImage"]]; // none that sends the figure away
  const config = { responsive: true, displaylogo: false, modeBarButtons: buttons, plotlyServerURL: "" };
  Plotly.newPlot(place, figure.data, figure.layout, config).then(() => {
    Plotly.relayout(place, colours());
    document.addEventListener("theme", () => Plotly.relayout(place, colours()));
    place.on("plotly_click", (e) => show(String(e.points[0].customdata)));
    place.dataset.ready = "yes";
  });
  list.addEventListener("change", () => { if (list.value !== "") show(list.value); });
}
