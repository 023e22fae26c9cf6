{# All texts reach the page as texts (textContent), never as HTML. #}
"use strict";
const facts = JSON.parse(document.getElementById("facts").textContent);
const dialog = document.getElementById("galaxy");
const percent = share => (100 * share).toFixed(1) + "%";

function row(cells, tag = "td") {
  const element = document.createElement("tr");
  cells.forEach((text, number) => {
    const cell = document.createElement(number || tag === "th" ? tag : "th");
    if (!number && tag === "td") cell.scope = "row";
    cell.textContent = text;
    element.append(cell);
  });
  return element;
}

function probabilityRow(name, shares) {
  const element = row([name, ...shares.map(percent)]);
  shares.forEach((share, number) => {
    const bar = document.createElement("span"), filled = document.createElement("i");
    bar.className = "share";
    filled.style.width = percent(share);
    bar.append(filled);
    element.cells[number + 1].append(bar);
  });
  return element;
}

function verdict(said, label) {
  return said.by + ": " + said.predicted + (said.predicted === label ? ", right." : ", wrong.");
}

function voteRows(galaxy) {
  return facts.questions.flatMap(question => question.answers.map((answer, number) => {
    const position = question.positions[number];
    const cells = [number ? "" : question.number + ". " + question.text, answer, percent(galaxy.votes[position])];
    if (galaxy.network_votes) cells.push(percent(galaxy.network_votes[position]));
    return row(cells);
  }));
}

function showGalaxy(id) {
  const galaxy = facts.galaxies[id], find = name => document.getElementById("galaxy-" + name);
  find("id").textContent = "Galaxy " + id;
  find("classes").textContent = ["True class: " + galaxy.label + ".",
    ...galaxy.said.map(said => verdict(said, galaxy.label))].join(" ");
  const picture = galaxy.views || galaxy.picture;
  find("views").parentElement.hidden = !picture;
  if (picture) find("views").src = picture;
  find("views").className = galaxy.views ? "all" : "one";
  find("views").alt = galaxy.views ? "All views of galaxy " + id : "View 0 of galaxy " + id;
  find("note").textContent = galaxy.views
    ? "Its 16 views; view 0, the plain centre, is the upper left one."
    : "View 0. To keep the page small, all 16 views are here for the galaxies of the galleries only.";
  find("probabilities").tHead.replaceChildren(row(["Probability", ...galaxy.said.map(said => said.by)], "th"));
  find("probabilities").tBodies[0].replaceChildren(...facts.classes.map(
    (name, position) => probabilityRow(name, galaxy.said.map(said => said.probabilities[position]))));
  find("votes").hidden = !galaxy.votes;
  if (galaxy.votes) {
    const table = find("votes").querySelector("table");
    const heads = ["Question", "Answer", "Volunteers"].concat(galaxy.network_votes ? ["Network"] : []);
    table.tHead.replaceChildren(row(heads, "th"));
    table.tBodies[0].replaceChildren(...voteRows(galaxy));
  }
  dialog.showModal();
  dialog.scrollTop = 0;
}

dialog.addEventListener("click", event => { if (event.target === dialog) dialog.close(); });
for (const button of document.querySelectorAll("button[data-galaxy]")) {
  button.addEventListener("click", () => showGalaxy(button.dataset.galaxy));
}

function drawMap() {
  const plot = document.getElementById("map-plot"), tip = document.getElementById("map-tip");
  // On a touch screen a finger that moves over the map moves the page.
  if (matchMedia("(pointer: coarse)").matches) facts.map.layout.dragmode = false;
  Plotly.newPlot(plot, facts.map.data, facts.map.layout, {
    responsive: true, displaylogo: false, modeBarButtonsToRemove: ["select2d", "lasso2d", "toImage"],
  });
  plot.on("plotly_hover", ({points: [point], event}) => {
    const galaxy = facts.galaxies[point.customdata], [image, text] = tip.children;
    image.hidden = !galaxy.picture;
    if (galaxy.picture) image.src = galaxy.picture;
    const predicted = galaxy.said[0].predicted;
    text.textContent = point.customdata + ": " + galaxy.label +
      (predicted === galaxy.label ? "" : ", taken for " + predicted);
    const box = plot.getBoundingClientRect();
    tip.style.left = Math.min(event.clientX - box.left + 14, box.width - 150) + "px";
    tip.style.top = event.clientY - box.top + 14 + "px";
    tip.hidden = false;
  });
  plot.on("plotly_unhover", () => { tip.hidden = true; });
  plot.on("plotly_click", ({points: [point]}) => showGalaxy(point.customdata));
}
if (facts.map) drawMap();
