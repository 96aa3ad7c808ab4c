"use strict";
(() => {
  const root = document.documentElement;
  const narrow = () => window.innerWidth < 720;
  const prefersDark = window.matchMedia("(prefers-color-scheme: dark)");
  const isDark = () => (root.dataset.theme || (prefersDark.matches ? "dark" : "light")) === "dark";
  const colour = (name) => getComputedStyle(root).getPropertyValue(name).trim();

  // Sorting: a second press turns the order round; entries without a value stay last either way.
  const compare = (a, b) => {
    const x = Number(a), y = Number(b);
    return Number.isNaN(x) || Number.isNaN(y) ? a.localeCompare(b) : x - y;
  };
  document.querySelectorAll("table.sortable").forEach((table) => {
    const heads = [...table.tHead.rows[table.tHead.rows.length - 1].cells];
    heads.forEach((head, column) => {
      head.querySelector("button").addEventListener("click", () => {
        const first = head.classList.contains("num") ? "descending" : "ascending";
        const other = first === "descending" ? "ascending" : "descending";
        const order = head.getAttribute("aria-sort") === first ? other : first;
        heads.forEach((each) => each.setAttribute("aria-sort", each === head ? order : "none"));
        const body = table.tBodies[0];
        const value = (row) => row.cells[column].dataset.sort;
        const rows = [...body.rows].sort((a, b) => {
          if (value(a) === "" || value(b) === "") return (value(a) === "") - (value(b) === "");
          return compare(value(a), value(b)) * (order === "ascending" ? 1 : -1);
        });
        body.append(...rows);
      });
    });
  });

  // A number leads to its cells: open the block it points to.
  const openTarget = () => {
    const target = location.hash.length > 1 && document.getElementById(decodeURIComponent(location.hash.slice(1)));
    if (target && target.tagName === "DETAILS") {
      target.open = true;
      target.scrollIntoView();
    }
  };
  window.addEventListener("hashchange", openTarget);
  document.addEventListener("click", (event) => {
    const link = event.target.closest && event.target.closest("a[href^='#cells-']");
    if (link) document.getElementById(link.hash.slice(1)).open = true;
  });
  openTarget();

  // Figures take their colours from the page, and smaller letters on a phone.
  const plots = [];
  const themed = (layout) => {
    const axis = { gridcolor: colour("--rule"), linecolor: colour("--faint"), tickcolor: colour("--faint"), zerolinecolor: colour("--faint") };
    return {
      ...layout,
      font: { color: colour("--soft"), size: narrow() ? 10 : 11.5, family: getComputedStyle(document.body).fontFamily },
      xaxis: { ...layout.xaxis, ...axis },
      yaxis: { ...layout.yaxis, ...axis },
      hoverlabel: { bgcolor: colour("--page"), bordercolor: colour("--faint"), font: { color: colour("--ink") } },
    };
  };
  const named = { truth: "--ink", muted: "--muted-line" };
  const traces = (plot) => plot.data.map((trace) => {
    const name = named[trace.meta];
    return name ? { ...trace, line: { ...trace.line, color: colour(name) } } : trace;
  });
  const draw = () => plots.forEach((plot) => {
    window.Plotly.react(plot.element, traces(plot), themed(plot.layout), { responsive: true, displayModeBar: false });
  });
  document.querySelectorAll("script[data-plot]").forEach((script) => {
    plots.push({ element: document.getElementById(script.dataset.plot), ...JSON.parse(script.textContent) });
  });

  // The theme: the reader's choice, else the system's.
  const button = document.getElementById("theme");
  const show = () => {
    button.textContent = isDark() ? "Light" : "Dark";
    if (plots.length) draw();
  };
  button.addEventListener("click", () => {
    root.dataset.theme = isDark() ? "light" : "dark";
    show();
  });
  prefersDark.addEventListener("change", show);
  let wasNarrow = narrow();
  window.addEventListener("resize", () => {
    if (narrow() !== wasNarrow) {
      wasNarrow = narrow();
      show();
    }
  });
  // Paper is light, and shows what a press would open.
  let before;
  window.addEventListener("beforeprint", () => {
    before = root.dataset.theme;
    root.dataset.theme = "light";
    document.querySelectorAll("details.method").forEach((each) => { each.open = true; });
    show();
  });
  window.addEventListener("afterprint", () => {
    if (before) root.dataset.theme = before;
    else delete root.dataset.theme;
    show();
  });
  show();
})();
