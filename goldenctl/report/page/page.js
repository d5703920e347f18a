"use strict";
(() => {
  const $ = (selector, root = document) => root.querySelector(selector);
  const $$ = (selector, root = document) => [...root.querySelectorAll(selector)];
  const make = (name, text = "") => Object.assign(document.createElement(name), { textContent: text });

  // Theme: as the system has it, or as chosen; remembered where storage is allowed.
  const toggle = make("button");
  const names = { auto: "Theme: system", light: "Theme: light", dark: "Theme: dark" };
  const show = (theme) => {
    if (theme === "auto") delete document.documentElement.dataset.theme;
    else document.documentElement.dataset.theme = theme;
    toggle.textContent = names[theme];
  };
  let theme = "auto";
  try { theme = localStorage.getItem("goldenctl-theme") || "auto"; } catch { /* not allowed */ }
  if (!(theme in names)) theme = "auto";
  toggle.id = "theme";
  toggle.type = "button";
  toggle.addEventListener("click", () => {
    const order = Object.keys(names);
    theme = order[(order.indexOf(theme) + 1) % order.length];
    show(theme);
    try { localStorage.setItem("goldenctl-theme", theme); } catch { /* not allowed */ }
  });
  show(theme);
  $(".top").append(toggle);

  // Commands can be copied.
  for (const pre of $$("pre")) {
    const button = make("button", "Copy");
    button.type = "button";
    button.addEventListener("click", async () => {
      try {
        await navigator.clipboard.writeText(pre.textContent);
        button.textContent = "Copied";
      } catch {
        getSelection().selectAllChildren(pre);
        button.textContent = "Selected";
      }
      setTimeout(() => { button.textContent = "Copy"; }, 2000);
    });
    pre.after(button);
  }

  // The map: arrow keys move, Enter or a click shows the op's numbers below.
  const panel = $("#op");
  const heads = $$("#tensors thead th").map((head) => head.textContent.trim());
  const describe = (cell) => {
    const row = $(cell.getAttribute("href"));
    if (!row || !panel) return;
    panel.replaceChildren(make("h3", row.dataset.name), make("dl"));
    [...row.cells].forEach((source, i) => {
      if (i === 1 || !source.textContent.trim()) return;
      const box = make("div");
      box.append(make("dt", heads[i]), make("dd", i ? source.textContent : row.dataset.state));
      panel.lastChild.append(box);
    });
    const picture = row.dataset.pic && document.getElementById(row.dataset.pic);
    if (picture) {
      const link = make("a", "See where and how it is wrong");
      if (row.dataset.state === "passed") link.textContent = "See its errors";
      link.href = "#" + picture.id;
      link.addEventListener("click", () => { picture.open = true; });
      panel.append(link);
    }
    for (const other of $$(".map a[aria-current]")) other.removeAttribute("aria-current");
    cell.setAttribute("aria-current", "true");
  };
  for (const map of $$(".map")) {
    const cells = $$("a", map);
    const place = (cell) => {
      const box = $("rect", cell);
      return [Number(box.getAttribute("x")), Number(box.getAttribute("y"))];
    };
    const enter = (cell) => {
      for (const other of cells) other.tabIndex = -1;
      cell.tabIndex = 0;
    };
    const step = (from, dx, dy) => {
      const [x, y] = place(from);
      let best = null;
      for (const cell of cells) {
        const [cx, cy] = place(cell);
        const along = dx ? (cx - x) * dx : (cy - y) * dy;
        const aside = dx ? Math.abs(cy - y) : Math.abs(cx - x);
        const cost = along + aside * 50;
        if (along > 0 && (dy || aside === 0) && (!best || cost < best.cost)) best = { cell, cost };
      }
      return best && best.cell;
    };
    const keys = { ArrowLeft: [-1, 0], ArrowRight: [1, 0], ArrowUp: [0, -1], ArrowDown: [0, 1] };
    for (const cell of cells) {
      cell.addEventListener("click", (event) => {
        event.preventDefault();
        enter(cell);
        describe(cell);
      });
      cell.addEventListener("keydown", (event) => {
        let next = null;
        if (event.key in keys) next = step(cell, ...keys[event.key]);
        else if (event.key === "Home") next = cells[0];
        else if (event.key === "End") next = cells[cells.length - 1];
        else if (event.key === " ") { event.preventDefault(); describe(cell); return; } else return;
        event.preventDefault();
        if (next) { enter(next); next.focus(); }
      });
    }
    const first = cells.find((cell) => cell.dataset.first) || cells[0];
    if (first) enter(first);
    if (first && first.dataset.first) {
      describe(first);
    }
  }

  // The table of all tensors: filter and sort.
  const table = $("#tensors");
  if (table) {
    const rows = $$("tbody tr", table);
    const filter = $("#filter");
    const wrong = $("#wrong");
    const count = $("#count");
    const apply = () => {
      const text = filter.value.trim().toLowerCase();
      let shown = 0;
      for (const row of rows) {
        row.hidden = (wrong.checked && row.dataset.ok === "1") || !row.dataset.name.toLowerCase().includes(text);
        shown += row.hidden ? 0 : 1;
      }
      count.textContent = `${shown} of ${rows.length} shown`;
    };
    filter.addEventListener("input", apply);
    wrong.addEventListener("change", apply);
    $(".tools").hidden = false;
    apply();
    $$("thead th", table).forEach((head, column) => {
      const button = make("button", head.textContent);
      button.type = "button";
      head.replaceChildren(button);
      button.addEventListener("click", () => {
        const down = head.getAttribute("aria-sort") !== "descending";
        for (const other of $$("th", table)) other.removeAttribute("aria-sort");
        head.setAttribute("aria-sort", down ? "descending" : "ascending");
        const key = (row) => {
          const cell = row.cells[column];
          return cell.dataset.v === undefined ? cell.textContent : Number(cell.dataset.v);
        };
        const sorted = rows.map((row) => [key(row), row]).sort(([a], [b]) => (a < b ? -1 : a > b ? 1 : 0));
        if (down) sorted.reverse();
        $("tbody", table).append(...sorted.map(([, row]) => row));
      });
    });
  }

  // What is wider than the screen says so, also when it is opened or the window turned.
  const wider = $$(".scroll").map((area) => {
    const hint = make("p", "wider than the screen: scroll sideways →");
    hint.className = "more";
    area.before(hint);
    return () => { hint.hidden = area.scrollWidth <= area.clientWidth + 1; };
  });
  const measure = () => { for (const each of wider) each(); };
  addEventListener("resize", measure);
  for (const each of $$("details")) each.addEventListener("toggle", measure);
  measure();

  // A link into something closed opens it; paper shows the figures opened.
  const open = () => {
    let target = null;
    try { target = location.hash.length > 1 && document.getElementById(decodeURIComponent(location.hash.slice(1))); } catch { /* no name */ }
    for (let at = target; at; at = at.parentElement) if (at.tagName === "DETAILS") at.open = true;
    if (target) target.scrollIntoView();
  };
  addEventListener("hashchange", open);
  open();
  addEventListener("beforeprint", () => { for (const each of $$("details.pic, #commands details")) each.open = true; });
})();
