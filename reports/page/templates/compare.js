  // Comparison: a reader chooses two to five systems; the first one chosen is the one that the others are compared with.
  const MOST = 5;
  const signedThree = (value) => (value > 0 ? "+" : "") + three(value);
  const average = (values) => values.reduce((sum, value) => sum + value, 0) / values.length;
  const compareSystems = (box, of) => {
    const chosen = [0, 1];
    const names = of.systems.map(([name]) => name), colours = of.systems.map(([, paint]) => paint);
    const strokes = of.systems.map(([, , dashes]) => dashes);
    const mark = (at, x, y, ...inner) => draw2("path", { class: "mark", d: of.systems[at][3], transform: `translate(${x} ${y}) scale(0.8)`, fill: of.systems[at][4] ? "none" : colours[at], "fill-opacity": 0.75, stroke: colours[at], "stroke-width": 1.6, "pointer-events": "all" }, ...inner);
    const scores = (target, at) => new Map(drill.groups[of.groups[target][at]].rows.filter((row) => row[2] !== null).map((row) => [`${row[0]},${row[1]}`, row[2]]));
    const key = (at) => make("span", {}, draw2("svg", { width: 44, height: 12, "aria-hidden": "true" }, draw2("line", { x1: 1, x2: 28, y1: 6, y2: 6, stroke: colours[at], "stroke-width": 2.5, "stroke-dasharray": strokes[at] }), mark(at, 37, 6)), names[at]);
    const boxes = names.map((name, at) => {
      const input = make("input", { type: "checkbox" });
      input.checked = chosen.includes(at);
      input.addEventListener("input", () => {
        if (input.checked) chosen.push(at);
        else chosen.splice(chosen.indexOf(at), 1);
        boxes.forEach(([each]) => { each.disabled = !each.checked && chosen.length >= MOST; });
        show();
      });
      return [input, make("label", {}, input, ` ${name}`)];
    });
    const [target, targetLabel] = choice("Target", of.targets.map((name) => [name, name]));
    const [clip, clipLabel] = choice("Clip", of.clips.map((each, at) => [at, each.name]));
    const result = make("div", { class: "compared" });
    // One row of dots for each system, with the reference at zero.
    const dots = (label, rows, width = Math.max(300, Math.min(460, box.clientWidth || 460))) => {
      const values = rows.flatMap(([, each]) => each.map(([value]) => value)), most = Math.max(0.025, ...values.map(Math.abs)) * 1.1;
      const x = (value) => width / 2 * (1 + value / most);
      const svg = draw2("svg", { viewBox: `0 0 ${width} ${rows.length * 26 + 26}`, role: "img", "aria-label": label });
      const step = [0.01, 0.02, 0.05, 0.1, 0.2, 0.5].find((each) => most / each <= 3) || 1;
      for (let at = -Math.floor(most / step); at * step <= most; at += 1) {
        svg.append(draw2("path", { class: at ? "grid" : "axis", d: `M${x(at * step)} 0V${rows.length * 26 + 6}` }));
        svg.append(draw2("text", { x: x(at * step), y: rows.length * 26 + 20, "text-anchor": "middle" }, at ? `${at > 0 ? "+" : "−"}${Math.abs(at * step).toFixed(2)}` : "0"));
      }
      rows.forEach(([at, each], row) => each.forEach(([value, words]) => svg.append(mark(at, x(value), row * 26 + 14, draw2("title", {}, `${names[at]}, ${words}: ${signedThree(value)}`)))));
      return svg;
    };
    const trace = (clipOf, name, at) => at < 0 ? unpacked(clipOf.truth[name]) : unpacked(clipOf.traces[name][at]);
    const path = (values, x, y) => values.map((value, at) => value === null ? "" : `${at && values[at - 1] !== null ? "L" : "M"}${x(at).toFixed(1)} ${y(value).toFixed(1)}`).join("");
    const line = (d, paint, wide = 1.6, dashes = "none") => draw2("path", { d, stroke: paint, "stroke-width": wide, "stroke-dasharray": dashes, fill: "none" });
    const overTime = (clipOf, name) => {
      const wide = Math.max(300, Math.min(760, box.clientWidth || 760)), inner = wide - 60; // letters keep their size on a phone
      const known = chosen.filter((at) => clipOf.traces[name][at]);
      const truth = trace(clipOf, name, -1), lines = known.map((at) => trace(clipOf, name, at));
      const [low, high] = bounds([truth, ...lines].flat().filter((value) => value !== null));
      const { svg, y } = chart(`${name} of ${clipOf.name} over time: annotation and ${known.map((at) => names[at]).join(", ")}`, low, high, wide, 220);
      const x = (at) => 50 + inner * at / Math.max(1, truth.length - 1), seconds = (time) => 50 + inner * time / clipOf.seconds;
      clipOf.spans.forEach(([kind, start, end]) => svg.append(draw2("rect", { x: seconds(start), width: seconds(end) - seconds(start), y: 8, height: 186, class: "event" }, draw2("title", {}, kind)), ...(seconds(end) - seconds(start) > 6.5 * kind.length ? [draw2("text", { x: (seconds(start) + seconds(end)) / 2, y: 18, "text-anchor": "middle" }, kind)] : [])));
      svg.append(line(path(truth, x, y), "currentColor", 2.2));
      known.forEach((at, index) => svg.append(line(path(lines[index], x, y), colours[at], 1.6, strokes[at])));
      svg.append(draw2("text", { x: 50, y: 214 }, "0 s"), draw2("text", { x: wide - 10, y: 214, "text-anchor": "end" }, `${clipOf.seconds} s`));
      // Where in time one wins: squared error of the reference minus that of each other, over a twentieth of the clip.
      const width = Math.max(1, Math.round(truth.length / 20));
      const smooth = (values) => values.map((_, at) => {
        const part = values.slice(Math.max(0, at - width), at + width + 1).filter((value) => value !== null);
        return part.length ? average(part) : null;
      });
      const error = (values) => values.map((value, at) => value === null || truth[at] === null ? null : (value - truth[at]) ** 2);
      const errors = lines.map(error);
      const wins = known.slice(1).map((at, index) => [at, smooth(errors[index + 1].map((value, time) => value === null || errors[0][time] === null ? null : errors[0][time] - value))]);
      const parts = [svg];
      if (wins.length) {
        const most = Math.max(0.005, ...wins.flatMap(([, values]) => values.map((value) => Math.abs(value || 0)))) * 1.05;
        const below = draw2("svg", { viewBox: `0 0 ${wide} 118`, role: "img", "aria-label": `Above the line the other system is nearer to the annotation, below it ${names[known[0]]}` });
        const yOf = (value) => 62 - 54 * value / most;
        clipOf.spans.forEach(([, start, end]) => below.append(draw2("rect", { x: seconds(start), width: seconds(end) - seconds(start), y: 8, height: 108, class: "event" })));
        below.append(draw2("path", { class: "axis", d: `M50 62H${wide - 10}` }));
        wins.forEach(([at, values]) => below.append(line(path(values, x, yOf), colours[at], 1.6, strokes[at])));
        parts.push(below, make("p", { class: "legend" }, `Above the line: nearer to the annotation than ${names[known[0]]}.`));
      }
      return parts;
    };
    const table = (heads, rows) => make("div", { class: "scroll", role: "region", tabindex: 0, "aria-label": heads[0] }, make("table", {}, make("thead", {}, make("tr", {}, ...heads.map((head, at) => make("th", at ? { scope: "col", class: "num" } : { scope: "col" }, head)))), make("tbody", {}, ...rows.map((row) => make("tr", {}, ...row.map(([text, best], at) => at ? make("td", { class: `num${best ? " best" : ""}` }, text) : make("th", { scope: "row" }, text)))))));
    const show = () => {
      if (chosen.length < 2) {
        result.replaceChildren(make("p", {}, "Choose two to five systems."));
        return;
      }
      const [first, ...others] = chosen, name = target.value, base = scores(name, first);
      const verdicts = others.map((at) => {
        const [a, b] = first < at ? [first, at] : [at, first], pair = of.pairs[`${a},${b}`];
        if (!pair) return `${names[first]} and ${names[at]}: no fold and seed in common.`;
        const [text, p, sign] = pair;
        const says = sign === null ? "too few seeds or videos to say" : sign === 0 ? "not distinguishable" : sign > 0 ? `${names[a]} beats ${names[b]}` : `${names[b]} beats ${names[a]}`;
        return `${names[a]} minus ${names[b]}, all targets: ${text}, p ${p.startsWith("<") ? p : `= ${p}`}: ${says}.`;
      });
      const runs = others.map((at) => [at, [...scores(name, at)].filter(([place]) => base.has(place)).map(([place, score]) => [score - base.get(place), `fold ${place.replace(",", ", seed ")}`])]);
      const reference = unpacked(of.by_video[name][first]);
      const videos = others.map((at) => [at, unpacked(of.by_video[name][at]).flatMap((score, video) => score === null || reference[video] === null ? [] : [[score - reference[video], of.videos[video]]])]);
      const won = videos.map(([at, each]) => `${names[at]} has the higher CCC in ${each.filter(([value]) => value > 0).length} of ${each.length} videos`);
      const rows = of.events.map(([event, frames, errors]) => {
        const own = chosen.map((at) => errors[name][at]), least = Math.min(...own.filter((value) => value !== null));
        return [[`${event} (${frames.toLocaleString("en")} frames)`], ...own.map((value) => [value === null ? "–" : value.toFixed(4), value === least])];
      });
      const parts = [
        make("p", { class: "key" }, ...chosen.map(key)),
        ...verdicts.map((words) => make("p", {}, words)),
        make("div", { class: "pair" },
          make("div", {}, make("h4", {}, `${name} CCC minus that of ${names[first]}, by fold and seed`), dots(`Difference by fold and seed, ${name}`, runs)),
          make("div", {}, make("h4", {}, `${name} CCC minus that of ${names[first]}, by video`), dots(`Difference by video, ${name}`, videos), make("p", { class: "legend" }, `${won.join("; ")}. Mean over the runs that scored a video.`))),
      ];
      if (of.clips.length) parts.push(make("h4", {}, `${name} of ${of.clips[clip.value].name}, mean over seeds, and where in time one is nearer`), ...overTime(of.clips[clip.value], name));
      if (rows.length) parts.push(make("h4", {}, `Mean squared error of ${name} by what happens in the frames`), table(["Frames", ...chosen.map((at) => names[at])], rows), make("p", { class: "legend" }, "Planted events, and what is measured of the annotation: the quarter of the frames of a clip in which it changes fastest, and that in which it is farthest from its mean. First fold, mean prediction over seeds. The table describes; the rule above decides."));
      result.replaceChildren(...parts);
    };
    [target, clip].forEach((each) => each.addEventListener("input", show));
    box.append(make("fieldset", {}, make("legend", {}, `Systems, two to ${MOST}; the first one chosen is the reference`), ...boxes.map(([, label]) => label)), make("p", { class: "tools" }, targetLabel, ...(of.clips.length ? [clipLabel] : [])), result);
    show();
  };
  // Built when the part is opened.
  const comparison = document.getElementById("part-compare");
  const buildComparison = () => all("[data-compare]").forEach((box) => {
    const of = data.compare && data.compare[box.dataset.compare];
    if (of && !box.firstChild) compareSystems(box, of);
  });
  if (comparison) comparison.addEventListener("toggle", () => comparison.open && buildComparison());

