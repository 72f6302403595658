// Shows the classes of a tree for the number that a slider has: which leaves are together, what merges and what splits.
"use strict";
(() => {
  const COLOURS = ["#3f78d0", "#e07b16", "#2f9e6e", "#d64550", "#8f5fd0", "#b58900", "#139eb0", "#d05aa8", "#8a6148", "#6f7a8a"];
  const element = (tag, text, className) => {
    const made = document.createElement(tag);
    if (text !== undefined) made.textContent = text;
    if (className) made.className = className;
    return made;
  };
  const sum = (values) => values.reduce((total, value) => total + value, 0);
  const counted = (n) => `${n.toLocaleString("en")} region${n === 1 ? "" : "s"}`;

  const show = (section) => {
    const tree = JSON.parse(section.querySelector("script").textContent);
    const nLeaves = tree.classes.length;
    const below = tree.classes.map((_, leaf) => [leaf]); // leaves of each node
    tree.children.forEach(([left, right]) => below.push([...below[left], ...below[right]]));
    const sizes = new Map();
    tree.classes.forEach((cls) => sizes.set(cls, (sizes.get(cls) || 0) + 1));

    // Nodes that are classes when there are n: all merges but the last n − 1 are done.
    const cut = (n) => {
      const nodes = new Set(tree.classes.keys());
      tree.children.slice(0, nLeaves - n).forEach((pair, m) => {
        pair.forEach((node) => nodes.delete(node));
        nodes.add(nLeaves + m);
      });
      return [...nodes];
    };
    const regionsOf = (node) => sum(below[node].map((leaf) => tree.regions[leaf]));
    const colourOf = (node) => COLOURS[Math.min(...below[node]) % COLOURS.length];
    const nameOf = (node) => {
      const counts = new Map();
      below[node].forEach((leaf) => counts.set(tree.classes[leaf], (counts.get(tree.classes[leaf]) || 0) + 1));
      return [...counts].sort((a, b) => a[0] - b[0])
        .map(([cls, n]) => (n === sizes.get(cls) ? "" : "part of ") + tree.names[cls]).join(" + ");
    };
    const labelOf = (node) => {
      const totals = {};
      below[node].forEach((leaf) => Object.entries(tree.labels[leaf]).forEach(([label, n]) => { totals[label] = (totals[label] || 0) + n; }));
      const all = sum(Object.values(totals));
      const [label, n] = Object.entries(totals).sort((a, b) => b[1] - a[1])[0] || [];
      return all ? `; most carry the label ${label} (${Math.round(100 * n / all)} %)` : "";
    };

    const slider = section.querySelector("input");
    const leaves = [...section.querySelectorAll(".leaf")];
    const update = () => {
      const n = Number(slider.value) - tree.told;
      const nodes = cut(n).sort((a, b) => regionsOf(b) - regionsOf(a));
      section.querySelector("output").textContent = slider.value;
      slider.setAttribute("aria-valuetext", `${slider.value} classes`);
      section.querySelector("code").textContent = `${tree.command} --k ${slider.value}`;
      section.querySelectorAll("path").forEach((path) => { path.style.stroke = ""; });
      nodes.forEach((node) => {
        const own = new Set([node]);
        for (const at of own) if (at >= nLeaves) tree.children[at - nLeaves].forEach((child) => own.add(child));
        own.forEach((at) => section.querySelectorAll(`path[data-node="${at}"]`).forEach((path) => { path.style.stroke = colourOf(node); }));
      });
      const line = section.querySelector("line");
      line.setAttribute("x1", tree.lines[n - 1]);
      line.setAttribute("x2", tree.lines[n - 1]);

      const merge = tree.children[nLeaves - n];
      const divided = n < nLeaves ? nLeaves + nLeaves - n - 1 : null;
      const changes = [];
      if (n > 1) changes.push(`With one class less, ${nameOf(merge[0])} (${counted(regionsOf(merge[0]))}) and ${nameOf(merge[1])} (${counted(regionsOf(merge[1]))}) become one.`);
      if (divided !== null) changes.push(`With one more, ${nameOf(divided)} splits into ${tree.children[divided - nLeaves].map((node) => regionsOf(node).toLocaleString("en")).join(" and ")} regions.`);
      section.querySelector(".changes").replaceChildren(...changes.map((text) => element("p", text)));

      section.querySelector(".groups").replaceChildren(...nodes.map((node) => {
        const group = element("article", undefined, "class");
        const head = element("h4");
        const swatch = element("span", undefined, "swatch");
        swatch.style.background = colourOf(node);
        head.append(swatch, element("bdi", nameOf(node)));
        group.append(head, element("p", counted(regionsOf(node)) + labelOf(node), "muted"), ...below[node].map((leaf) => leaves[leaf]));
        return group;
      }));
    };
    slider.addEventListener("input", update);
    update();
  };
  document.querySelectorAll("section.tree").forEach(show);
})();
