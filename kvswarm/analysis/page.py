"""The HTML around the figures of `report.py`: a string.Template, so `$$` stands for a dollar."""

PAGE = """<!doctype html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<title>kvswarm: $title</title>
<style>
:root { color-scheme: light dark; --line: #8886; }
body { font: 15px/1.5 system-ui, sans-serif; margin: 0 auto; max-width: 72rem; padding: 1rem; }
h1 { font-size: 1.4rem; } h2 { font-size: 1.1rem; margin-top: 2rem; }
.verdict { border-left: .5rem solid; padding: .5rem 1rem; }
.valid { border-color: #2a9d55; } .degraded { border-color: #d99a00; }
.invalid { border-color: #d03a3a; }
.wide { overflow-x: auto; }
table { border-collapse: collapse; font-variant-numeric: tabular-nums; }
th, td { border-bottom: 1px solid var(--line); padding: .25rem .6rem; text-align: right; }
th:first-child, .facts td { text-align: left; }
abbr { cursor: help; text-decoration: underline dotted; }
.plots { display: grid; gap: 1rem; grid-template-columns: repeat(auto-fit, minmax(20rem, 1fr)); }
.plot { min-width: 0; }
code { overflow-wrap: anywhere; }
@media print { .plots { display: block; } .plot { break-inside: avoid; } }
</style>
</head>
<body>
<h1>$title</h1>
<div class="verdict $status"><strong>Verdict: $status</strong><ul>$reasons</ul></div>
<h2>Latencies</h2>
<div class="wide"><table>$latencies</table></div>
$features
<h2>Run</h2>
<div class="wide"><table class="facts">$facts</table></div>
<h2>Gates</h2>
<ul>$gates</ul>
$cost
$server
$replicas
<h2>Plots</h2>
<div class="plots">$plots</div>
<h2>Repeat this run</h2>
<p><code>$repeat</code></p>
<p>$versions</p>
<script>$plotly</script>
<script>
const touch = matchMedia("(hover: none)").matches;
const dark = matchMedia("(prefers-color-scheme: dark)").matches;
for (const data of document.querySelectorAll(".figure")) {
  const figure = JSON.parse(data.textContent);
  figure.layout.paper_bgcolor = figure.layout.plot_bgcolor = "rgba(0,0,0,0)";
  figure.layout.font = {color: dark ? "#ddd" : "#222"};
  const axes = Object.keys(figure.layout).filter(name => name.slice(1, 5) === "axis");
  for (const axis of new Set(["xaxis", "yaxis", ...axes]))
    figure.layout[axis] = {...figure.layout[axis], gridcolor: "#8884", zerolinecolor: "#8886"};
  Plotly.newPlot(data.dataset.for, figure.data, figure.layout,
    {responsive: true, displaylogo: false, displayModeBar: touch ? false : "hover"});
}
</script>
</body>
</html>
"""
