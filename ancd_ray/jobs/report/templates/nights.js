// Shows the nights of one product: without it, the list has the numbers of all products.
"use strict";
(() => {
  const choice = document.querySelector(".filter select");
  if (!choice) return; // no night yet
  const told = JSON.parse(document.getElementById("data").textContent);
  const rows = [...document.querySelectorAll("#nights tbody")];
  const cells = rows.map((row) => [...row.querySelectorAll("td.num")]);
  const numbers = (row) => row.map((cell) => Number(cell.textContent.replaceAll(",", "")));
  const all = cells.map(numbers);
  const svg = document.querySelector(".over-time svg");
  const line = svg.querySelector("polyline");

  const drawLine = (counts) => {
    const [height, margin, most] = [svg.viewBox.baseVal.height, Number(svg.dataset.margin), Math.max(...counts, 1)];
    [...line.points].forEach((point, i) => {
      point.y = height - margin - ((height - 2 * margin) * counts[i]) / most;
    });
    const dot = svg.querySelector("circle");
    if (dot) dot.cy.baseVal.value = line.points[0].y;
    document.querySelector(".most").textContent = Math.max(...counts).toLocaleString("en-US");
  };

  const show = () => {
    const product = choice.value;
    const found = product === "" ? all : told.map((night) => night[product]);
    rows.forEach((row, i) => {
      row.hidden = !found[i];
      row.querySelectorAll(".texts").forEach((texts) => { texts.hidden = !found[i] || !found[i][3]; });
      (found[i] || []).forEach((count, j) => { cells[i][j].textContent = count.toLocaleString("en-US"); });
      row.querySelectorAll("li").forEach((item) => { item.hidden = product !== "" && item.dataset.product !== product; });
      row.querySelectorAll("details").forEach((rest) => {
        rest.open = product !== "";
        rest.hidden = !rest.querySelector("li:not([hidden])");
      });
    });
    drawLine(found.map((night) => (night ? night[0] : 0)).reverse());
  };

  choice.addEventListener("change", show);
  document.querySelector(".filter").hidden = false;
})();
