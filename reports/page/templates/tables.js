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
        const words = (cell) => cell.matches(".missing") ? "" : cell.textContent.trim().toLowerCase().replace(/^–$/, "");
        const value = ({ cells: { [column]: cell } }) => cell.dataset.sort ?? words(cell);
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

