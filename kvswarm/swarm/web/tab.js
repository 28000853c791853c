// A line below Locust's own page while its tab LLM is open: links, because that tab's cells can hold
// text alone, and how the run ended, because Locust asks for rows only while a run goes on.
"use strict";

const EVERY_MS = 1000;
const bar = document.createElement("nav");
bar.id = "kvswarm-links";
bar.style.cssText = "position:fixed;bottom:0;left:0;right:0;z-index:10;display:none;gap:.25rem 1.25rem;"
  + "flex-wrap:wrap;padding:.5rem 1rem;font:14px/1.5 system-ui,sans-serif;background:#1f6f43;color:#fff";
document.body.append(bar);

function link(text, href, target = "") {
  const made = document.createElement("a");
  Object.assign(made, {textContent: text, href, target});
  made.style.color = "#fff";
  return made;
}

function words(text) {
  return Object.assign(document.createElement("span"), {textContent: text});
}

async function follow() {
  const open = new URLSearchParams(location.search).get("tab") === "llm";
  bar.style.display = open ? "flex" : "none";
  document.body.style.paddingBottom = open ? `${bar.offsetHeight}px` : "";
  if (open && !document.hidden) {
    try {
      const told = await (await fetch("./llm/runs")).json();
      const links = [link("Live plots", "./llm")];
      const last = told.runs.find((run) => run.over);
      if (told.runs.length && told.runs[0] !== last)
        links.push(words(`${told.runs[0].name}: ${told.runs[0].state}`));
      if (last !== undefined) {
        links.push(words(`${last.name}: ${last.verdict}`));
        for (const file of last.files)
          links.push(link(file, `./llm/runs/${last.id}/${file}`, file.endsWith(".html") ? "_blank" : ""));
      }
      bar.replaceChildren(...links);
    } catch {
      // Locust is gone, or busy: the next second tells.
    }
  }
  setTimeout(follow, EVERY_MS);
}

follow();
