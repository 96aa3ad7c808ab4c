
  // Taking out: a table as text in four formats with the columns that a reader chooses, a figure as a file for print.
  const cellText = (cell) => {
    const copy = cell.cloneNode(true);
    all("sup", copy).forEach((mark) => mark.replaceWith(`^${mark.textContent}`));
    all("svg", copy).forEach((picture) => picture.remove());
    return copy.textContent.trim().replace(/\s+/g, " ");
  };
  const gridOf = (table) => {
    const rows = [...table.tHead.rows], last = [...rows[rows.length - 1].cells], groups = [];
    if (rows.length > 1) for (const head of rows[0].cells) groups.push(...Array(Number(head.dataset.width || head.colSpan)).fill(head.textContent.trim()));
    const kept = last.map((head, at) => at).filter((at) => !last[at].classList.contains("picture"));
    return {
      heads: kept.map((at) => (groups[at] ? `${groups[at]}: ` : "") + cellText(last[at])),
      shown: kept.map((at) => !last[at].hidden),
      right: kept.map((at) => last[at].classList.contains("num")),
      rows: [...table.tBodies[0].rows].filter((row) => !row.hidden).map((row) => kept.map((at) => cellText(row.cells[at]))),
      bold: [...table.tBodies[0].rows].filter((row) => !row.hidden).map((row) => kept.map((at) => row.cells[at].classList.contains("best"))),
    };
  };
  const only = (grid, chosen) => {
    const pick = (row) => row.filter((_, at) => chosen.includes(at));
    return { heads: pick(grid.heads), right: pick(grid.right), rows: grid.rows.map(pick), bold: grid.bold.map(pick) };
  };
  const LATEX = { "\\": "\\textbackslash{}", "{": "\\{", "}": "\\}", $: "\\$", "&": "\\&", "#": "\\#", _: "\\_", "%": "\\%", "^": "\\textasciicircum{}", "~": "\\textasciitilde{}", "<": "\\textless{}", ">": "\\textgreater{}", "|": "\\textbar{}", "−": "$-$", "±": "$\\pm$", "→": "$\\rightarrow$", "–": "--", "\u202f": "\\,", "×": "$\\times$", "[": "{[}", "]": "{]}", "“": "``", "”": "''", "’": "'", '"': "''" };
  const latex = (text) => [...text].map((letter) => LATEX[letter] || (/[ -~À-ÏÑ-ÖØ-Ýß-ïñ-öø-ýÿ]/.test(letter) ? letter : `{[}U+${letter.codePointAt(0).toString(16).toUpperCase().padStart(4, "0")}{]}`)).join("");
  const markdown = (text) => text.replace(/&/g, "&amp;").replace(/</g, "&lt;").replace(/>/g, "&gt;").replace(/([\\`*_[\]|#~$])/g, "\\$1");
  // A spreadsheet would run a text that begins like a formula; a number keeps its minus sign.
  const csv = (text) => {
    const plain = text.replace(/^−(?=[\d.]+$)/, "-");
    const safe = /^\s*[=+\-@＝＋－＠]/.test(plain) && !/^[+-][\d.]+$/.test(plain) ? `'${plain}` : plain;
    return /[",\n]/.test(safe) ? `"${safe.replace(/"/g, '""')}"` : safe;
  };
  const written = {
    text: (grid) => {
      const lines = [grid.heads, ...grid.rows];
      const wide = grid.heads.map((_, at) => Math.max(...lines.map((row) => [...row[at]].length)));
      const pad = (text, at) => grid.right[at] ? text.padStart(wide[at]) : text.padEnd(wide[at]);
      return lines.map((row) => row.map(pad).join("  ").trimEnd()).join("\n");
    },
    csv: (grid) => [grid.heads, ...grid.rows].map((row) => row.map(csv).join(",")).join("\n"),
    markdown: (grid) => [
      `| ${grid.heads.map(markdown).join(" | ")} |`,
      `|${grid.right.map((right) => right ? " ---: " : " --- ").join("|")}|`,
      ...grid.rows.map((row, at) => `| ${row.map((text, column) => grid.bold[at][column] ? `**${markdown(text)}**` : markdown(text)).join(" | ")} |`),
    ].join("\n"),
    latex: (grid, words, name) => [
      "% needs \\usepackage{booktabs,graphicx}",
      "\\begin{table}[t]", "\\centering\\small", `\\caption{${latex(words)}}`, `\\label{tab:${name}}`,
      "\\resizebox{\\ifdim\\width>\\linewidth\\linewidth\\else\\width\\fi}{!}{%", `\\begin{tabular}{${grid.right.map((right) => right ? "r" : "l").join("")}}`, "\\toprule",
      `${grid.heads.map(latex).join(" & ")} \\\\`, "\\midrule",
      ...grid.rows.map((row, at) => `${row.map((text, column) => grid.bold[at][column] ? `\\textbf{${latex(text)}}` : latex(text)).join(" & ")} \\\\`),
      "\\bottomrule", "\\end{tabular}}", "\\end{table}",
    ].join("\n"),
  };
  const ENDS = { text: "txt", csv: "csv", markdown: "md", latex: "tex" };
  const dialog = make("dialog", { id: "take-out", "aria-label": "Take out" });
  document.body.append(dialog);
  const close = make("button", { type: "button", class: "take" }, "Close");
  close.addEventListener("click", () => dialog.close());
  const choice = (label, options) => {
    const select = make("select", {}, ...options.map(([value, words]) => make("option", { value }, words)));
    return [select, make("label", {}, `${label} `, select)];
  };
  const save = (name, address) => make("a", { download: name, href: address }).click();
  const takeTable = (table) => {
    const grid = gridOf(table), name = table.dataset.table || "table";
    // The label of an embedded corpus goes with the table, also where it stands once for several of them.
    const said = table.caption.textContent.trim();
    const labels = [...new Set(all(".badge", table.closest("details.part") || root).map((badge) => badge.textContent))];
    const words = [said, ...labels.filter((label) => !said.toLowerCase().includes(label.toLowerCase()) && !table.dataset.table)].join(" ");
    const [format, formatLabel] = choice("Format", [["text", "Text"], ["csv", "CSV"], ["markdown", "Markdown"], ["latex", "LaTeX, booktabs"]]);
    const boxes = grid.heads.map((head, at) => {
      const box = make("input", { type: "checkbox" });
      box.checked = grid.shown[at];
      return [box, make("label", {}, box, ` ${head}`)];
    });
    const preview = make("textarea", { readonly: "", rows: 12, "aria-label": "The table as text" });
    const show = () => {
      const part = only(grid, boxes.flatMap(([box], at) => box.checked ? [at] : []));
      const body = written[format.value](part, words, name);
      preview.value = format.value === "latex" || format.value === "csv" ? body : `${words}\n\n${body}`;
    };
    const copy = make("button", { type: "button", class: "take" }, "Copy");
    copy.addEventListener("click", async () => {
      preview.select();
      try {
        await navigator.clipboard.writeText(preview.value);
      } catch {
        document.execCommand("copy"); // a page from a file may not use the clipboard otherwise
      }
      copy.textContent = "Copied";
    });
    const file = make("button", { type: "button", class: "take" }, "Save");
    file.addEventListener("click", () => save(`${name}.${ENDS[format.value]}`, `data:text/plain;charset=utf-8,${encodeURIComponent(preview.value)}`));
    [format, ...boxes.map(([box]) => box)].forEach((each) => each.addEventListener("input", () => { copy.textContent = "Copy"; show(); }));
    show();
    dialog.replaceChildren(make("h2", {}, "Take this table out"), make("p", {}, formatLabel), make("fieldset", {}, make("legend", {}, "Columns"), ...boxes.map(([, label]) => label)), preview, make("p", { class: "actions" }, copy, file, close));
    dialog.showModal();
  };

  // A figure for print: white, in the width of one or two columns of a paper, without what surrounds it on the page.
  const PAPER = { "--ink": "#1c1f23", "--muted-line": "#cfd3d8" };
  const forPrint = (plot, wide, words) => {
    const width = wide ? 687 : 336, layout = structuredClone(plot.layout), axis = { gridcolor: "#d9dce0", linecolor: "#5d646d", tickcolor: "#5d646d", zerolinecolor: "#5d646d" };
    const lines = traces(plot, false, (name) => PAPER[name]).map((trace) => ({ ...trace, showlegend: Boolean(trace.name) }));
    const count = lines.filter((trace) => trace.showlegend).length, named = count > 1;
    const margin = { ...layout.margin, b: (layout.margin.b || 40) + 14 + (named ? 20 * Math.ceil(count / (wide ? 5 : 2)) : 0) };
    return { data: lines, layout: {
      ...layout, width, height: layout.height + margin.b - (layout.margin.b || 40), margin, paper_bgcolor: "#fff", plot_bgcolor: "#fff",
      showlegend: named, legend: { orientation: "h", y: -0.22, font: { size: 9 } }, font: { size: 10.67, color: "#1c1f23", family: "Helvetica, Arial, sans-serif" },
      xaxis: { ...layout.xaxis, ...axis }, yaxis: { ...layout.yaxis, ...axis },
      annotations: [...(layout.annotations || []), ...(words ? [{ text: words, showarrow: false, xref: "paper", yref: "paper", x: 0, y: 0, xanchor: "left", yanchor: "top", yshift: -margin.b + 14, font: { size: 7.5, color: "#5d646d" } }] : [])],
    } };
  };
  const takeFigure = async (id) => {
    const figure = document.getElementById(id), panels = all(".plot", figure);
    const [panel, panelLabel] = choice("Panel", panels.map((each, at) => [each.id, (each.parentElement.querySelector("h4") || {}).textContent || `${at + 1}`]));
    const [width, widthLabel] = choice("Width", [["", "one column, 3.5 in"], ["two", "two columns, 7.16 in"]]);
    const says = make("p", { class: "source", role: "status" }, data.figures[id].note);
    const made = (format, scale) => {
      const { data: lines, layout } = forPrint(plots.get(document.getElementById(panel.value)), width.value, data.figures[id].label);
      return window.Plotly.toImage({ data: lines, layout }, { format, width: layout.width, height: layout.height, scale });
    };
    const name = () => `${panel.value.replace("plot-", "")}${width.value ? "-two-columns" : ""}`;
    const button = (words, work) => {
      const each = make("button", { type: "button", class: "take" }, words);
      each.addEventListener("click", async () => {
        await plotly();
        await work();
      });
      return each;
    };
    const svg = button("SVG", async () => save(`${name()}.svg`, await made("svg", 1)));
    const png = button("PNG, 300 dpi", async () => save(`${name()}.png`, await made("png", 3.125)));
    const pdf = button("PDF", async () => {
      const text = decodeURIComponent((await made("svg", 1)).replace("data:image/svg+xml,", ""));
      const picture = make("div", { id: "print-figure" });
      picture.append(document.importNode(new DOMParser().parseFromString(text, "image/svg+xml").documentElement, true));
      const [w, h] = ["width", "height"].map((side) => Number(picture.firstChild.getAttribute(side)));
      const rule = make("style", {}, `@page { size: ${w / 96}in ${h / 96}in; margin: 0; }`);
      root.classList.add("printing-figure");
      document.body.append(picture);
      document.head.append(rule);
      window.addEventListener("afterprint", () => {
        root.classList.remove("printing-figure");
        picture.remove();
        rule.remove();
      }, { once: true });
      says.textContent = "Choose \"Save as PDF\": the sheet has the size of the figure, and its fonts are embedded.";
      window.print();
    });
    dialog.replaceChildren(make("h2", {}, "Take this figure out"), ...(panels.length > 1 ? [make("p", {}, panelLabel)] : []), make("p", {}, widthLabel), says, make("p", { class: "actions" }, svg, png, pdf, close));
    dialog.showModal();
  };
  all("[data-take-figure]").forEach((button) => {
    button.hidden = false;
    button.addEventListener("click", () => takeFigure(button.dataset.takeFigure));
  });
  all("table[data-table], #claims table.sortable, #overview table").forEach((table) => {
    const button = make("button", { type: "button", class: "take" }, "Take out");
    button.addEventListener("click", () => takeTable(table));
    table.closest(".scroll").before(make("p", { class: "take-row" }, button));
  });

