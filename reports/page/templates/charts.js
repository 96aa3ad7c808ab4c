  // Figures take their colours from the page, and smaller letters on a phone. Each is drawn shortly before it is seen.
  const plots = new Map();
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
  // Heat maps start at the colour of the page and end far from it.
  const heat = {
    sequential: { light: ["#f1f3f5", "#7fb0dd", "#123f73"], dark: ["#20252a", "#2f6fb3", "#d3e8ff"] },
    diverging: { light: ["#b5651d", "#f1f3f5", "#2f6fb3"], dark: ["#f0a35e", "#20252a", "#79b8ff"] },
  };
  const traces = (plot, dark = isDark(), of = colour) => plot.data.map((trace) => {
    const scale = heat[trace.meta] && heat[trace.meta][dark ? "dark" : "light"];
    if (scale) {
      // A packed row holds the number of its leading empty cells, then the other cells.
      const z = trace.z.map(([empty, ...row]) => [...Array(empty).fill(null), ...row]);
      return { ...trace, z, colorscale: scale.map((each, at) => [at / 2, each]) };
    }
    const name = named[trace.meta];
    return name ? { ...trace, line: { ...trace.line, color: of(name) } } : trace;
  });
  const visible = (element) => element.offsetParent && !element.parentElement.closest("details:not([open])");
  // The library is unpacked when the first chart is to be drawn, so that it delays nothing else.
  let library;
  const plotly = () => {
    library = library || unpack("plotly").then((text) => {
      document.head.append(make("script", {}, text));
      return window.Plotly;
    });
    return library;
  };
  const options = { responsive: true, displayModeBar: false, typesetMath: false };
  const draw = (element) => {
    const plot = plots.get(element);
    if (!plot || !visible(element)) return;
    plot.drawn = true;
    if (window.Plotly) window.Plotly.react(element, traces(plot), themed(plot.layout), options);
    else plotly().then(() => draw(element));
  };
  const near = new IntersectionObserver((seen) => seen.forEach((each) => {
    if (each.isIntersecting && !plots.get(each.target).drawn) draw(each.target);
  }), { rootMargin: "600px" });
  for (const [id, plot] of Object.entries(data.plots)) {
    const element = document.getElementById(id);
    plots.set(element, { ...plot, drawn: false });
    near.observe(element);
  }
  // What is open is drawn when the browser has time, for a picture of the whole page, and for print.
  const idle = window.requestIdleCallback || ((work) => setTimeout(work, 50));
  const drawNext = () => {
    const next = [...plots].find(([element, plot]) => !plot.drawn && visible(element));
    if (!next) return;
    draw(next[0]);
    idle(drawNext);
  };
  all("details").forEach((each) => each.addEventListener("toggle", () => each.open && idle(drawNext)));
  all("[data-clips], #setting").forEach((each) => each.addEventListener("input", () => idle(drawNext)));
  const redraw = () => plots.forEach((plot, element) => { if (plot.drawn) draw(element); });
  window.addEventListener("draw-all", () => plots.forEach((plot, element) => draw(element)));

