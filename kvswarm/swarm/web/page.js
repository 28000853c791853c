// Draws /llm from /llm/live.json, once a second. Text goes in as text: it may be the server's.
"use strict";

const EVERY_MS = 1000;
const MOST_SAMPLES = 2400;
const PLOTS = {
  ttft: [["ttft_p50_ms", "p50"], ["ttft_p99_ms", "p99"]],
  itl: [["itl_p50_ms", "p50"], ["itl_p99_ms", "p99"]],
  tokens: [["output_tokens_per_s", "tokens/s"]],
  requests: [["in_flight", "in flight"], ["running", "server: running"], ["waiting", "server: waiting"]],
  kv: [["kv_usage_share", "in use"]],
};
const COLORS = ["#3b82d0", "#e0803a", "#9a6fd0"];
const dark = matchMedia("(prefers-color-scheme: dark)");
const touch = matchMedia("(hover: none)").matches;
const $ = (id) => document.getElementById(id);

let run = null;
let samples = {t_s: []};

function element(tag, text, attributes = {}) {
  const made = document.createElement(tag);
  made.textContent = text;
  Object.assign(made, attributes);
  return made;
}

function number(value, digits = 1) {
  return value === null || value === undefined ? "–" : value.toFixed(value >= 1000 ? 0 : digits);
}

function percent(share) {
  return share === null || share === undefined ? "–" : `${(share * 100).toFixed(1)} %`;
}

function append(fresh, anew) {
  if (anew) samples = {};
  for (const [name, values] of Object.entries(fresh))
    samples[name] = (samples[name] || []).concat(values).slice(-MOST_SAMPLES);
}

function draw() {
  for (const [id, lines] of Object.entries(PLOTS)) {
    const data = lines.map(([name, label], index) => ({
      x: samples.t_s, name: label, mode: "lines+markers",
      line: {color: COLORS[index], width: 2}, marker: {color: COLORS[index], size: 4},
      y: name === "kv_usage_share" ? samples[name]?.map((v) => v === null ? null : v * 100) : samples[name],
    })).filter((line) => line.y?.some((value) => value !== null));
    Plotly.react($(`plot-${id}`), data, {
      margin: {l: 48, r: 8, t: 8, b: 36}, showlegend: lines.length > 1, uirevision: run,
      legend: {orientation: "h", y: 1.02, yanchor: "bottom", x: 0},
      xaxis: {title: {text: "s", standoff: 4}, rangemode: "tozero", gridcolor: "#8883", zeroline: false},
      yaxis: {rangemode: "tozero", gridcolor: "#8883", zerolinecolor: "#8886"},
      paper_bgcolor: "rgba(0,0,0,0)", plot_bgcolor: "rgba(0,0,0,0)",
      font: {color: dark.matches ? "#ddd" : "#222", size: 12},
    }, {responsive: true, displaylogo: false, displayModeBar: touch ? false : "hover"});
  }
}

function showState(told) {
  const state = $("state");
  if (told.run === null) {
    state.className = told.refusal ? "bad" : "";
    state.textContent = told.refusal || "No run yet. Start one on Locust's page.";
    return;
  }
  const {state: stands, verdict, elapsed_s, profile, model} = told.run;
  const bad = /^(invalid|none)/.test(verdict), warn = /^(degraded|so far: falling)/.test(verdict);
  state.className = bad ? "bad" : warn ? "warn" : "well";
  state.textContent = `${stands}, ${elapsed_s.toFixed(0)} s. Verdict: ${verdict}. `
    + `Profile ${profile}, model ${model}.` + (told.refusal ? ` Could not start another: ${told.refusal}` : "");
}

function showFigures(told) {
  const f = told.figures, quota = told.run.requests;
  const pair = (name) => `${number(f[`${name}_p50_ms`])} / ${number(f[`${name}_p99_ms`])} ms`;
  const errors = Object.entries(f.by_error).map(([kind, count]) => `${kind} ${count}`).join(", ");
  const last = samples.output_tokens_per_s?.at(-1);
  const mean = told.run.elapsed_s > 0 ? f.output_tokens / told.run.elapsed_s : null;
  const shown = [
    ["Requests ok", quota ? `${f.ok} of ${quota}` : `${f.ok}`],
    ["Failed", errors ? `${f.failed} (${errors})` : `${f.failed}`],
    ["In flight", `${f.in_flight}`],
    ["TTFT p50 / p99", pair("ttft")],
    ["ITL p50 / p99", pair("itl")],
    ["TPOT p50 / p99", pair("tpot")],
    ["E2E p50 / p99", pair("e2e")],
    told.run.over ? ["Output tokens/s, mean", number(mean, 0)] : ["Output tokens/s", number(last, 0)],
    ["Goodput", f.good_share === null ? "–" : `${number(f.goodput_rps, 2)}/s, ${percent(f.good_share)}`],
    ["Read lag p99", `${number(f.read_lag_p99_ms, 2)} ms`],
  ];
  if (f.valid_output_share !== null) shown.push(["Valid outputs", percent(f.valid_output_share)]);
  $("figures").replaceChildren(...shown.map(([name, value]) => {
    const box = document.createElement("div");
    box.append(element("dt", name), element("dd", value));
    return box;
  }));
}

function showRuns(runs) {
  $("run-list").replaceChildren(...runs.map((one) => {
    const item = element("li", `${one.name}: ${one.over ? one.verdict : one.state} `);
    for (const file of one.files)
      item.append(" ", element("a", file, {href: `llm/runs/${one.id}/${file}`,
        target: file.endsWith(".html") ? "_blank" : ""}));
    return item;
  }));
}

async function look() {
  const after = samples.t_s?.length ? `?run=${run}&after=${samples.t_s.at(-1)}` : "";
  const [live, runs] = await Promise.all(
    [`llm/live.json${after}`, "llm/runs"].map((path) => fetch(path).then((answer) => {
      if (!answer.ok) throw new Error(`status ${answer.status}`);
      return answer.json();
    })));
  showState(live);
  showRuns(runs.runs);
  if (live.run === null) return;
  const anew = live.run.id !== run;
  run = live.run.id;
  $("name").textContent = live.run.name;
  append(live.samples, anew);
  showFigures(live);
  if (anew || live.samples.t_s.length) draw();
}

async function follow() {
  try {
    if (!document.hidden) await look();
  } catch (error) {
    $("state").className = "bad";
    $("state").textContent = `Locust does not answer (${error.message}). The last figures are below.`;
  }
  setTimeout(follow, EVERY_MS);
}

dark.addEventListener("change", draw);
draw();
follow();
