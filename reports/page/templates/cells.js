  let data = { drill: { groups: {}, labels: {} }, plots: {}, figures: {} };
  try {
    data = JSON.parse(await unpack("data"));
  } catch {
    document.getElementById("too-old").hidden = false;
  }
  const drill = data.drill;

  // Behind a number: folds x seeds, curves, and each cell. Built when opened.
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
    // Two to five round numbers.
    const step = [0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1].find((each) => (high - low) / each <= 5) || 1;
    for (let at = Math.ceil(low / step); at * step <= high; at += 1) {
      svg.append(draw2("path", { class: "grid", d: `M46 ${y(at * step)}H${width - 4}` }));
      svg.append(draw2("text", { x: 42, y: y(at * step) + 4, "text-anchor": "end" }, (at * step).toFixed(2).replace("-", "−")));
    }
    return { svg, y };
  };
  // Two digits of base 62 each: thousandths above -1.
  const digits = "0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz";
  const unpacked = (text) => (text.match(/../g) || []).map((pair) => pair === ".." ? null
    : (digits.indexOf(pair[0]) * 62 + digits.indexOf(pair[1]) - 1000) / 1000);
  const bounds = (values) => {
    // At least 0.05 CCC, so that no chart enlarges noise.
    const low = Math.min(...values), high = Math.max(...values), margin = Math.max((high - low) * 0.08, (0.05 - high + low) / 2);
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
          const words = `fold ${row[0]}, seed ${row[1]}: CCC ${three(row[2])}${drill.seen.includes(row[6]) ? ", seen" : ""}`;
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
      const seen = drill.seen.includes(row[6]) ? " seen" : "";
      const texts = [row[0], row[1], row[2] === null ? row[7] : three(row[2]) + seen, row[3] === null ? "" : three(row[3]) + seen, row[4] === null ? "" : `${row[4]} of ${row[5]}`];
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
      ["State", row[7] || "done"], ["CCC", row[2] === null ? "" : three(row[2]) + (drill.seen.includes(row[6]) ? " (seen)" : "")], ["Finished", row[8] ? `${row[8]} UTC` : ""],
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

