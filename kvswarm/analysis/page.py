"""The HTML around figures: string.Templates, so `$$` stands for a dollar.

One self-contained page, which may ask no host for anything: light and dark, on a phone and on
paper. Meanings in `<abbr title>` show on hover and on focus; tables but `.facts` can be sorted by
their headings.
"""

from __future__ import annotations

import html
import json
from collections.abc import Iterable
from string import Template
from typing import Final

import plotly.graph_objects as go

# plotly.offline re-exports it without saying so to mypy.
from plotly.offline import get_plotlyjs

HEIGHT_PX: Final = 320
"""Height of a plot that sets none itself."""
HEAD: Final = """<!doctype html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<meta http-equiv="Content-Security-Policy" content="default-src 'none'; img-src data: blob:;
 style-src 'unsafe-inline'; script-src 'unsafe-inline'">
<title>kvswarm: $title</title>
<style>
:root { color-scheme: light dark; --line: #8886; }
body { font: 15px/1.5 system-ui, sans-serif; margin: 0 auto; max-width: 72rem; padding: 1rem; }
h1 { font-size: 1.4rem; overflow-wrap: anywhere; } h2 { font-size: 1.1rem; margin-top: 2rem; }
.verdict { border-left: .5rem solid; padding: .5rem 1rem; overflow-wrap: anywhere; }
.valid { border-color: #2a9d55; } .degraded { border-color: #d99a00; }
.invalid { border-color: #d03a3a; }
.wide { overflow-x: auto; }
table { border-collapse: collapse; font-variant-numeric: tabular-nums; }
th, td { border-bottom: 1px solid var(--line); padding: .25rem .6rem; text-align: right; }
th:first-child, .facts td { text-align: left; }
.facts td { overflow-wrap: anywhere; }
abbr { cursor: help; text-decoration: underline dotted; }
th[aria-sort] button { all: unset; cursor: pointer; }
th[aria-sort] button:focus-visible, abbr:focus-visible { outline: 2px solid; outline-offset: 2px; }
th[aria-sort=ascending] button::after { content: " \\25B2"; }
th[aria-sort=descending] button::after { content: " \\25BC"; }
#meaning { position: fixed; inset: auto 0 0 0; padding: .6rem 1rem; background: Canvas;
 color: CanvasText; border-top: 1px solid var(--line); }
#meaning:empty { display: none; }
li { overflow-wrap: anywhere; }
.plots { display: grid; gap: 1rem;
 grid-template-columns: repeat(auto-fit, minmax(min(20rem, 100%), 1fr)); }
.plot { min-width: 0; }
code { overflow-wrap: anywhere; }
@media print {
  :root { color-scheme: light; }
  body { max-width: none; } .plots { display: block; } .wide { overflow: visible; }
  .plot, tr, .verdict { break-inside: avoid; } h2 { break-after: avoid; }
  table { font-size: 8pt; } th, td { padding: .1rem .3rem; } #meaning { display: none; }
}
</style>
</head>
<body>
"""
BODY: Final = """<h1>$title</h1>
<div class="verdict $status"><strong>Verdict: $status</strong>$reasons</div>
<h2>Latencies</h2>
<div class="wide"><table>$latencies</table></div>
$features
<h2>Run</h2>
<div class="wide"><table class="facts">$facts</table></div>
<h2>Gates</h2>
$gates
$server
$replicas
$cost
<h2>Plots</h2>
<div class="plots">$plots</div>
<h2>Repeat this run</h2>
<p><code>$repeat</code></p>
<p>$versions</p>
"""
TAIL: Final = """<script>$plotly</script>
<script>
const touch = matchMedia("(hover: none)").matches;
const dark = matchMedia("(prefers-color-scheme: dark)");
const drawn = [];
const ink = (light) => light ? "#222" : "#ddd";
for (const data of document.querySelectorAll(".figure")) {
  const figure = JSON.parse(data.textContent);
  figure.layout.paper_bgcolor = figure.layout.plot_bgcolor = "rgba(0,0,0,0)";
  figure.layout.font = {color: ink(!dark.matches)};
  const axes = Object.keys(figure.layout).filter(name => name.slice(1, 5) === "axis");
  for (const axis of new Set(["xaxis", "yaxis", ...axes]))
    figure.layout[axis] = {...figure.layout[axis], gridcolor: "#8884", zerolinecolor: "#8886"};
  Plotly.newPlot(data.dataset.for, figure.data, figure.layout,
    {responsive: true, displaylogo: false, displayModeBar: touch ? false : "hover"});
  drawn.push(data.dataset.for);
}
const paint = (light) => drawn.forEach((plot) =>
  Plotly.relayout(plot, {"font.color": ink(light)}));
dark.addEventListener("change", () => paint(!dark.matches));
addEventListener("beforeprint", () => paint(true));
addEventListener("afterprint", () => paint(!dark.matches));

const number = (cell) => {
  const text = cell.textContent.replace(/,/g, "");
  const found = /[-+]?[0-9]*[.]?[0-9]+(e[-+]?[0-9]+)?/i.exec(text);
  return found ? parseFloat(found[0]) : NaN;
};
for (const table of document.querySelectorAll("table:not(.facts)")) {
  const [head, ...rows] = table.rows;
  if (rows.length < 2 || [...head.cells].some((cell) => cell.tagName !== "TH")) continue;
  const cells = [...head.cells];
  cells.forEach((cell, column) => {
    const button = document.createElement("button");
    const word = cell.querySelector("abbr[title]");
    if (word) { button.title = word.title; word.removeAttribute("title"); }
    button.append(...cell.childNodes);
    cell.append(button);
    cell.setAttribute("aria-sort", "none");
    button.addEventListener("click", () => {
      const was = cell.getAttribute("aria-sort");
      const now = {none: "ascending", ascending: "descending", descending: "none"}[was];
      cells.forEach((each) => each.setAttribute("aria-sort", "none"));
      cell.setAttribute("aria-sort", now);
      const sign = now === "descending" ? -1 : 1;
      const order = (one, other) => {
        const [a, b] = [number(one.cells[column]), number(other.cells[column])];
        if (column > 0 && isNaN(a) !== isNaN(b)) return isNaN(a) ? 1 : -1;
        if (column > 0 && !isNaN(a)) return sign * (a - b);
        const [left, right] = [one, other].map((row) => row.cells[column].textContent);
        return sign * left.localeCompare(right, undefined, {numeric: true});
      };
      const sorted = now === "none" ? rows : [...rows].sort(order);
      rows[0].parentNode.append(...sorted);
    });
  });
}

const meaning = document.createElement("div");
meaning.id = "meaning";
meaning.setAttribute("role", "status");
document.body.append(meaning);
for (const word of document.querySelectorAll("abbr[title], th button[title]")) {
  if (word.tagName === "ABBR") word.tabIndex = 0;
  const show = () => { meaning.textContent = word.textContent + ": " + word.title; };
  const hide = () => { meaning.textContent = ""; };
  word.addEventListener("focus", show);
  word.addEventListener("blur", hide);
  word.addEventListener("mouseenter", show);
  word.addEventListener("mouseleave", hide);
}
</script>
</body>
</html>
"""
PAGE: Final = HEAD + BODY + TAIL
"""The page of a run; the parts of it are filled in by `report.py`."""


def frame(title: str, body: str) -> str:
    """Any other page: a title, which is escaped, and HTML under it."""
    page = Template(HEAD + "<h1>$title</h1>\n$body\n" + TAIL)
    return page.substitute(title=html.escape(title), body=body, plotly=get_plotlyjs())


def meaning(word: str, text: str) -> str:
    """HTML of a word that says what it means, on hover and on focus."""
    return f'<abbr title="{html.escape(text)}">{html.escape(word)}</abbr>'


def table(rows: Iterable[str], *, facts: bool = False) -> str:
    """HTML of a table, which scrolls where it is too wide; one of `facts` is not sorted."""
    kind = ' class="facts"' if facts else ""
    return f'<div class="wide"><table{kind}>{"".join(rows)}</table></div>'


def bullets(texts: Iterable[str]) -> str:
    """HTML of a list of texts; nothing where there are none."""
    items = "".join(f"<li>{html.escape(text)}</li>" for text in texts)
    return f"<ul>{items}</ul>" if items else ""


def embedded(figure: go.Figure, place: str) -> str:
    """HTML of a plot, which the page's script draws; `place` is its own on the page."""
    height = figure.layout.height or HEIGHT_PX
    figure.update_layout(margin={"l": 60, "r": 20, "t": 40, "b": 45}, height=height)
    # "</" in a script would end it early.
    packed = json.dumps(json.loads(figure.to_json())).replace("</", "<\\/")
    return (
        f'<div class="plot" id="plot{place}"></div>'
        f'<script type="application/json" class="figure" data-for="plot{place}">{packed}</script>'
    )
