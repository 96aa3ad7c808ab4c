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

  // A link opens the setting and the block of its target.
  const reveal = (target) => {
    const within = target.closest("[data-setting]");
    if (within && within.hidden) showSetting(within.dataset.setting);
    for (let each = target; each; each = each.parentElement) {
      if (each.tagName !== "DETAILS") continue;
      if (each.classList.contains("cells")) build(each);
      each.open = true;
    }
    // A figure that a menu has hidden.
    const choice = target.hidden && all("[data-clips]").find((each) => [...each.options].some((option) => option.value === target.id));
    if (choice) {
      choice.value = target.id;
      choice.dispatchEvent(new Event("input"));
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
    plots.forEach((plot, element) => draw(element));
    show();
  });
  window.addEventListener("afterprint", () => {
    if (before) root.dataset.theme = before;
    else delete root.dataset.theme;
    show();
  });
  // The contents mark the part that is being read.
  const places = all("#contents a").map((link) => [link, document.getElementById(link.hash.slice(1))]).filter(([, part]) => part);
  const markPlace = () => {
    const passed = places.filter(([, part]) => part.getBoundingClientRect().top < window.innerHeight * 0.35);
    const here = (passed[passed.length - 1] || places[0])[0];
    places.forEach(([link]) => {
      if (link === here) link.setAttribute("aria-current", "location");
      else link.removeAttribute("aria-current");
    });
  };
  window.addEventListener("scroll", markPlace, { passive: true });
  const openAll = document.getElementById("open-all");
  openAll.hidden = false;
  const parts = all("details.part, details.one");
  const sayOpen = () => { openAll.textContent = parts.every((each) => each.open) ? "Close all" : "Open all"; };
  openAll.addEventListener("click", () => {
    const open = parts.some((each) => !each.open);
    parts.forEach((each) => { each.open = open; });
  });
  parts.forEach((each) => each.addEventListener("toggle", () => { sayOpen(); markPlace(); }));

  // One tooltip for all heads, because a table that scrolls would cut off its own.
  const help = document.getElementById("help");
  const helps = JSON.parse(document.getElementById("helps").textContent);
  let explained = null;
  const showHelp = (head) => {
    explained = head;
    help.textContent = helps[head.dataset.help];
    help.hidden = false;
    head.setAttribute("aria-describedby", "help");
    const box = head.getBoundingClientRect(), width = help.offsetWidth;
    help.style.left = `${Math.max(8, Math.min(box.left, window.innerWidth - width - 8))}px`;
    help.style.top = `${box.bottom + 6 + help.offsetHeight > window.innerHeight ? box.top - help.offsetHeight - 6 : box.bottom + 6}px`;
  };
  const hideHelp = () => {
    explained = null;
    help.hidden = true;
  };
  all("[data-help]").forEach((head) => {
    ["mouseenter", "focus"].forEach((name) => head.addEventListener(name, () => showHelp(head)));
    ["mouseleave", "blur"].forEach((name) => head.addEventListener(name, hideHelp));
  });
  document.addEventListener("keydown", (event) => { if (event.key === "Escape") hideHelp(); });
  window.addEventListener("scroll", () => explained && showHelp(explained), { passive: true });

  show();
  openTarget();
  markPlace();
  idle(drawNext);

  // Served: the page polls for a new version, and reloads with the scroll position and choices of the reader.
  if (!live) {
    root.dataset.ready = "";
    return;
  }
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
  root.dataset.ready = "";
  ask();
  setInterval(ask, 2000);
})();
