"use strict";
(() => {
  const root = document.documentElement;
  const all = (selector, inside = document) => [...inside.querySelectorAll(selector)];
  const narrow = () => window.innerWidth < 720;
  const prefersDark = window.matchMedia("(prefers-color-scheme: dark)");
  const isDark = () => (root.dataset.theme || (prefersDark.matches ? "dark" : "light")) === "dark";
  const colour = (name) => getComputedStyle(root).getPropertyValue(name).trim();
  const make = (tag, facts = {}, ...children) => {
    const element = document.createElement(tag);
    for (const [name, value] of Object.entries(facts)) element.setAttribute(name, value);
    element.append(...children);
    return element;
  };

  // Sorting: a second click reverses the order; entries without a value stay last in both.
  const compare = (a, b) => {
    const x = Number(a), y = Number(b);
    return Number.isNaN(x) || Number.isNaN(y) ? a.localeCompare(b) : x - y;
  };
  all("table.sortable").forEach((table) => {
    const heads = [...table.tHead.rows[table.tHead.rows.length - 1].cells];
    heads.forEach((head, column) => {
      head.querySelector("button").addEventListener("click", () => {
        const first = head.classList.contains("num") ? "descending" : "ascending";
        const other = first === "descending" ? "ascending" : "descending";
        const order = head.getAttribute("aria-sort") === first ? other : first;
        heads.forEach((each) => each.setAttribute("aria-sort", each === head ? order : "none"));
        const body = table.tBodies[0];
        const value = ({ cells: { [column]: cell } }) => cell.dataset.sort ?? cell.textContent.trim().toLowerCase();
        const rows = [...body.rows].sort((a, b) => {
          if (value(a) === "" || value(b) === "") return (value(a) === "") - (value(b) === "");
          return compare(value(a), value(b)) * (order === "ascending" ? 1 : -1);
        });
        body.append(...rows);
      });
    });
  });

  // A leaderboard: search, kinds of systems, rows that ran other folds or seeds, and columns.
  const hideColumn = (table, column, hidden) => {
    all("tbody tr", table).forEach((row) => { row.cells[column].hidden = hidden; });
    const last = table.tHead.rows[table.tHead.rows.length - 1];
    last.cells[column].hidden = hidden;
    if (table.tHead.rows.length < 2) return;
    // A head over several columns spans those of them that are shown.
    let at = 0;
    for (const head of table.tHead.rows[0].cells) {
      const width = Number(head.dataset.width || head.colSpan);
      head.dataset.width = width;
      const left = [...last.cells].slice(at, at + width).filter((cell) => !cell.hidden).length;
      head.hidden = left === 0;
      head.colSpan = Math.max(1, left);
      at += width;
    }
  };
  all("td a[href^='#cells-']").forEach((link) => { link.title = "Show the cells behind this number"; });
  all("[data-tools]").forEach((tools) => {
    const section = document.getElementById(tools.dataset.tools);
    const search = tools.querySelector("[data-search]");
    const kinds = tools.querySelector("[data-kinds]");
    const rest = tools.querySelector("[data-rest-switch]");
    const status = tools.querySelector("[data-shown]");
    const table = section.querySelector("table");
    const filter = () => {
      const words = search.value.trim().toLowerCase();
      all("tbody tr[data-kind]", section).forEach((row) => {
        row.hidden = !row.cells[0].textContent.toLowerCase().includes(words)
          || (kinds.value !== "" && row.dataset.kind !== kinds.value)
          || ("rest" in row.dataset && !(rest && rest.checked));
      });
      const rows = [...table.tBodies[0].rows];
      status.textContent = `${rows.filter((row) => !row.hidden).length} of ${rows.length} systems`;
    };
    [search, kinds, rest].forEach((control) => control && control.addEventListener("input", filter));
    const last = [...table.tHead.rows[table.tHead.rows.length - 1].cells];
    const groups = [];
    if (table.tHead.rows.length > 1) {
      for (const head of table.tHead.rows[0].cells) groups.push(...Array(head.colSpan).fill(head.textContent));
    }
    last.slice(1).forEach((head, index) => {
      const group = groups[index + 1];
      const box = make("input", { type: "checkbox", "data-column": index + 1 });
      box.checked = true;
      box.addEventListener("input", () => hideColumn(table, index + 1, !box.checked));
      tools.querySelector("[data-columns]").append(make("label", {}, box, ` ${group ? `${group}: ` : ""}${head.textContent}`));
    });
    tools.hidden = false;
    filter();
    // Where a table is wider than the page, its least important columns are hidden at first, p values before all others.
    for (const least of ["p (family)", "MFLOPs a window", "Memory, MiB", "GPU memory, MiB", "Training, s", "Mean rank", "Parameters"]) {
      if (table.offsetWidth <= table.parentElement.clientWidth) break;
      all("[data-columns] input", tools).filter((box) => last[box.dataset.column].textContent === least).forEach((box) => {
        box.checked = false;
        hideColumn(table, Number(box.dataset.column), true);
      });
    }
  });
  document.addEventListener("keydown", (event) => {
    const open = event.key === "Escape" && document.querySelector(".columns[open]");
    if (open) {
      open.open = false;
      open.querySelector("summary").focus();
    }
  });
  document.addEventListener("click", (event) => {
    all(".columns[open]").forEach((each) => { if (!each.contains(event.target)) each.open = false; });
  });

  // Settings: one at a time.
  const setting = document.getElementById("setting");
  const showSetting = (number) => {
    all("[data-setting]").forEach((each) => { each.hidden = each.dataset.setting !== number; });
    if (setting) setting.value = number;
  };
  if (setting) {
    setting.addEventListener("input", () => showSetting(setting.value));
    showSetting(setting.value);
  }

  // Clips: one at a time too.
  all("[data-clips]").forEach((choice) => {
    const figures = [...choice.options].map((option) => document.getElementById(option.value));
    const show = () => figures.forEach((figure) => { figure.hidden = figure.id !== choice.value; });
    choice.addEventListener("input", show);
    choice.closest(".switch").hidden = false;
    show();
  });

  // Behind a number: folds x seeds, curves, and each cell. Built when opened.
  const drill = JSON.parse(document.getElementById("drill").textContent);
  const outline = document.createElement("div");
  outline.innerHTML = "<svg></svg>";
  const draw2 = (tag, facts, ...children) => {
    const element = document.createElementNS(outline.firstChild.namespaceURI, tag);
    for (const [name, value] of Object.entries(facts)) element.setAttribute(name, value);
    element.append(...children);
    return element;
  };
  const three = (value) => value.toFixed(3).replace("-", "−");
  const chart = (label, low, high, width, height) => {
    const y = (value) => 8 + (height - 34) * (1 - (value - low) / (high - low || 1));
    const svg = draw2("svg", { viewBox: `0 0 ${width} ${height}`, role: "group", "aria-label": label });
    for (const value of [low, (low + high) / 2, high]) {
      svg.append(draw2("path", { class: "grid", d: `M46 ${y(value)}H${width - 4}` }));
      svg.append(draw2("text", { x: 42, y: y(value) + 4, "text-anchor": "end" }, three(value)));
    }
    return { svg, y };
  };
  // Two digits of base 62 each: thousandths above -1.
  const digits = "0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz";
  const unpacked = (text) => (text.match(/../g) || []).map((pair) => pair === ".." ? null
    : (digits.indexOf(pair[0]) * 62 + digits.indexOf(pair[1]) - 1000) / 1000);
  const bounds = (values) => {
    const low = Math.min(...values), high = Math.max(...values), margin = (high - low) * 0.08 || 0.01;
    return [low - margin, high + margin];
  };
  const build = (block) => {
    const group = drill.groups[block.id];
    if (!group || block.querySelector(".drill")) return;
    const panel = make("div", { class: "drill" });
    if (drill.labels[group.setting]) panel.append(make("p", {}, make("span", { class: "badge" }, drill.labels[group.setting])));
    const done = group.rows.filter((row) => row[7] === "");
    const marks = new Map(group.rows.map((row) => [row[6], []]));
    const detail = make("div");
    const choose = (row) => {
      for (const [id, elements] of marks) elements.forEach((each) => each.classList.toggle("chosen", id === row[6]));
      detail.replaceChildren(cell(group, row));
    };
    const pair = make("div", { class: "pair" });
    if (done.length) {
      const folds = [...new Set(group.rows.map((row) => row[0]))].sort((a, b) => a - b);
      const width = 380, height = 190, band = (width - 60) / folds.length;
      const strip = chart("CCC of each fold and seed; click a dot for its cell", ...bounds(done.map((row) => row[2])), width, height);
      folds.forEach((fold, at) => {
        const middle = 50 + band * (at + 0.5);
        const inside = done.filter((row) => row[0] === fold);
        strip.svg.append(draw2("text", { x: middle, y: height - 8, "text-anchor": "middle" }, `fold ${fold}`));
        if (!inside.length) return;
        const mean = inside.reduce((sum, row) => sum + row[2], 0) / inside.length;
        strip.svg.append(draw2("path", { class: "axis", d: `M${middle - band * 0.35} ${strip.y(mean)}h${band * 0.7}` }));
        inside.forEach((row, index) => {
          const x = middle + band * 0.5 * ((index + 0.5) / inside.length - 0.5);
          const words = `fold ${row[0]}, seed ${row[1]}: CCC ${three(row[2])}`;
          const dot = draw2("circle", { class: "dot", cx: x, cy: strip.y(row[2]), r: 5, tabindex: 0, role: "button", "aria-label": words }, draw2("title", {}, words));
          dot.addEventListener("click", () => choose(row));
          dot.addEventListener("keydown", (event) => {
            if (event.key === "Enter" || event.key === " ") { event.preventDefault(); choose(row); }
          });
          marks.get(row[6]).push(dot);
          strip.svg.append(dot);
        });
      });
      pair.append(make("div", {}, make("h4", {}, "Folds and seeds, CCC"), strip.svg));
      const curveOf = new Map(done.map((row) => [row, unpacked(row[11])]));
      const values = [...curveOf.values()].flat().filter((value) => value !== null);
      if (values.length) {
        const most = Math.max(...done.map((row) => row[5]), 2);
        const curves = chart("Learning curves", ...bounds(values), width, height);
        const x = (epoch) => 50 + (width - 60) * (epoch - 1) / (most - 1);
        done.forEach((row) => {
          const curve = curveOf.get(row);
          const points = curve.map((value, index) => value === null ? null
            : `${x(1 + index * (row[5] - 1) / Math.max(1, curve.length - 1)).toFixed(1)} ${curves.y(value).toFixed(1)}`);
          const line = draw2("path", { class: "line", d: `M${points.filter((point) => point).join("L")}` }, draw2("title", {}, `fold ${row[0]}, seed ${row[1]}`));
          marks.get(row[6]).push(line);
          curves.svg.append(line);
        });
        curves.svg.append(draw2("text", { x: 50, y: height - 8 }, "epoch 1"));
        curves.svg.append(draw2("text", { x: width - 10, y: height - 8, "text-anchor": "end" }, `epoch ${most}`));
        pair.append(make("div", {}, make("h4", {}, "Learning curves, CCC on the split that picks the epoch"), curves.svg));
      }
    }
    const heads = ["Fold", "Seed", "CCC", "Mean per video", "Best epoch", "Cell", "Run it again"];
    const table = make("table", {}, make("thead", {}, make("tr", {}, ...heads.map((head, at) => make("th", at < 5 ? { scope: "col", class: "num" } : { scope: "col" }, head)))));
    const body = make("tbody");
    group.rows.forEach((row) => {
      const open = make("button", { type: "button" }, make("code", {}, row[6]));
      open.addEventListener("click", () => choose(row));
      const texts = [row[0], row[1], row[2] === null ? row[7] : three(row[2]), row[3] === null ? "" : three(row[3]), row[4] === null ? "" : `${row[4]} of ${row[5]}`];
      const line = make("tr", {}, ...texts.map((text) => make("td", { class: "num" }, String(text))), make("td", {}, open), make("td", {}, make("code", {}, `crossfold rerun ${row[6]}`)));
      marks.get(row[6]).push(line);
      body.append(line);
    });
    table.append(body);
    const clips = document.querySelector(`.clips${block.parentElement.dataset.setting === "1" ? "#clips" : `#clips-${block.parentElement.dataset.setting}`}`);
    panel.append(pair, make("div", { class: "scroll", role: "region", tabindex: 0, "aria-label": "Cells" }, table), detail);
    if (clips) panel.append(make("p", {}, make("a", { href: `#${clips.id}` }, "Clips: annotation, predictions and gates over time")));
    block.append(panel);
  };
  const facts = (pairs) => make("dl", { class: "facts" }, ...pairs.filter(([, value]) => value !== undefined && value !== "").map(
    ([term, value]) => make("div", {}, make("dt", {}, term), make("dd", {}, ...[value].flat()))));
  const folded = (title, value) => make("details", { class: "method" }, make("summary", {}, title), make("pre", { tabindex: 0 }, JSON.stringify(value, null, 2)));
  const cell = (group, row) => {
    const box = make("div", { class: "cell", role: "status" }, make("h4", {}, `Cell ${row[6]}: fold ${row[0]}, seed ${row[1]}`));
    const run = row[13];
    const server = run && drill.pages[drill.run_pages[row[6]] ?? 0];
    const tracked = run && (server ? ["run ", make("a", { href: server + encodeURIComponent(run), rel: "noreferrer" }, run)]
      : ["run ", make("code", {}, run), ", in ", make("code", {}, "crossfold mlflow ui"), " at ", make("code", {}, `#/runs/${run}`)]);
    box.append(facts([
      ["State", row[7] || "done"], ["CCC", row[2] === null ? "" : three(row[2])], ["Finished", row[8] ? `${row[8]} UTC` : ""],
      ["Training", row[9] === null ? "" : `${row[9]} s`],
      ["Peak memory", row[12] === null ? "" : `${row[12]} MiB`], ["Run it again", make("code", {}, `crossfold rerun ${row[6]}`)],
      ["What happened", make("code", {}, `crossfold why ${row[6]}`)], ["MLflow", tracked || undefined],
    ]));
    box.append(folded("Parameters of the system", group.params));
    if (drill.recipes[group.setting]) box.append(folded("Recipe", drill.recipes[group.setting]));
    if (row[10] !== null) box.append(folded("Environment", drill.environments[row[10]]));
    return box;
  };
  all("details.cells").forEach((block) => block.addEventListener("toggle", () => block.open && build(block)));

  // A link opens the setting and the block of its target.
  const reveal = (target) => {
    const within = target.closest("[data-setting]");
    if (within && within.hidden) showSetting(within.dataset.setting);
    if (target.tagName === "DETAILS") {
      build(target);
      target.open = true;
    }
  };
  const openTarget = () => {
    const target = location.hash.length > 1 && document.getElementById(decodeURIComponent(location.hash.slice(1)));
    if (target) {
      reveal(target);
      target.scrollIntoView();
    }
  };
  window.addEventListener("hashchange", openTarget);
  document.addEventListener("click", (event) => {
    const link = event.target.closest && event.target.closest("a[href^='#']");
    const target = link && link.hash.length > 1 && document.getElementById(link.hash.slice(1));
    if (target) reveal(target);
  });

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
  const traces = (plot) => plot.data.map((trace) => {
    const scale = heat[trace.meta] && heat[trace.meta][isDark() ? "dark" : "light"];
    if (scale) {
      // A packed row holds the number of its leading empty cells, then the other cells.
      const z = trace.z.map(([empty, ...row]) => [...Array(empty).fill(null), ...row]);
      return { ...trace, z, colorscale: scale.map((each, at) => [at / 2, each]) };
    }
    const name = named[trace.meta];
    return name ? { ...trace, line: { ...trace.line, color: colour(name) } } : trace;
  });
  const draw = (element) => {
    const plot = plots.get(element);
    if (!plot || !element.offsetParent) return;
    plot.drawn = true;
    window.Plotly.react(element, traces(plot), themed(plot.layout), { responsive: true, displayModeBar: false, typesetMath: false });
  };
  const near = new IntersectionObserver((seen) => seen.forEach((each) => {
    if (each.isIntersecting && !plots.get(each.target).drawn) draw(each.target);
  }), { rootMargin: "600px" });
  all("script[data-plot]").forEach((script) => {
    const element = document.getElementById(script.dataset.plot);
    plots.set(element, { ...JSON.parse(script.textContent), drawn: false });
    near.observe(element);
  });
  const redraw = () => plots.forEach((plot, element) => { if (plot.drawn) draw(element); });
  window.addEventListener("draw-all", () => plots.forEach((plot, element) => draw(element)));

  // The theme: the reader's choice, else the system's.
  const button = document.getElementById("theme");
  const show = () => {
    button.textContent = isDark() ? "Light" : "Dark";
    redraw();
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
  // Print has the light theme, and shows every closed block of text.
  let before;
  window.addEventListener("beforeprint", () => {
    before = root.dataset.theme;
    root.dataset.theme = "light";
    all("details.method").forEach((each) => { each.open = true; });
    plots.forEach((plot, element) => draw(element));
    show();
  });
  window.addEventListener("afterprint", () => {
    if (before) root.dataset.theme = before;
    else delete root.dataset.theme;
    show();
  });
  show();
  openTarget();

  // Served: the page polls for a new version, and reloads with the scroll position and choices of the reader.
  if (!("live" in document.currentScript.dataset)) return;
  // By name, because a new version may have other controls.
  const controls = () => all("select, .tools input").map((each) => {
    const tools = each.closest("[data-tools]");
    return [`${tools ? tools.dataset.tools : ""} ${each.id || each.parentElement.textContent}`, each];
  });
  const remember = () => sessionStorage.setItem("crossfold", JSON.stringify({
    scroll: window.scrollY, theme: root.dataset.theme || "", open: all("details[open][id]").map((each) => each.id),
    controls: Object.fromEntries(controls().map(([name, each]) => [name, each.type === "checkbox" ? each.checked : each.value])),
  }));
  const kept = JSON.parse(sessionStorage.getItem("crossfold") || "null");
  if (kept) {
    sessionStorage.removeItem("crossfold");
    if (kept.theme) root.dataset.theme = kept.theme;
    controls().forEach(([name, each]) => {
      const value = kept.controls[name];
      if (value === undefined) return;
      if (each.type === "checkbox") each.checked = value;
      else if (each.tagName !== "SELECT" || [...each.options].some((option) => option.value === value)) each.value = value;
      each.dispatchEvent(new Event("input"));
    });
    kept.open.forEach((id) => { const each = document.getElementById(id); if (each) reveal(each); });
    show();
    window.scrollTo(0, kept.scroll);
  }
  let version = "";
  const ask = async () => {
    try {
      const answer = await (await fetch("version", { cache: "no-store" })).text();
      if (version && answer !== version) {
        remember();
        location.reload();
      }
      version = version || answer;
    } catch {
      // The server has stopped; the page stays as it is.
    }
  };
  ask();
  setInterval(ask, 2000);
})();
