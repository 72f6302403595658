// Draws a figure when it comes near the window, and everything before the page is printed.
"use strict";
(() => {
  const plots = [...document.querySelectorAll(".plot")];
  const options = { responsive: true, displayModeBar: false };

  // Plotly's `responsive` option redraws when the window's size changes. The size of a figure's place changes on other
  // occasions too, such as when the scroll bar appears.
  const resized = new ResizeObserver((entries) => {
    entries.filter((entry) => entry.contentRect.width > 0).forEach((entry) => Plotly.Plots.resize(entry.target));
  });

  const draw = (element) => {
    const source = element.querySelector("script");
    if (!source) return; // drawn already
    const figure = JSON.parse(source.textContent);
    element.replaceChildren();
    Plotly.newPlot(element, figure.data, figure.layout, options);
    resized.observe(element);
    colourBy(element, document.querySelector(`#${element.closest("section").id} .colours input:checked`));
  };

  const colourBy = (element, choice) => {
    if (choice) Plotly.restyle(element, { visible: element.data.map((trace) => trace.meta === choice.value) });
  };

  const near = new IntersectionObserver(
    (entries) => entries.filter((entry) => entry.isIntersecting).forEach((entry) => {
      near.unobserve(entry.target);
      draw(entry.target);
    }),
    { rootMargin: "600px" },
  );
  plots.forEach((element) => near.observe(element));

  document.querySelectorAll(".colours input").forEach((input) => {
    input.addEventListener("change", () => colourBy(input.closest("section").querySelector(".plot"), input));
  });

  // Paper has another width than the window, and Plotly draws too late for it: let the style sheet scale the drawing.
  const drawings = () => document.querySelectorAll(".plot .main-svg");
  addEventListener("beforeprint", () => {
    document.querySelectorAll("details").forEach((element) => { element.open = true; });
    plots.forEach(draw);
    drawings().forEach((svg) => svg.setAttribute("viewBox", `0 0 ${svg.getAttribute("width")} ${svg.getAttribute("height")}`));
  });
  addEventListener("afterprint", () => drawings().forEach((svg) => svg.removeAttribute("viewBox")));
})();
