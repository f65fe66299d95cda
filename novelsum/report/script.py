"""The one script of a page: it searches and sorts the list of all picks, from a block of JSON beside it.

It loads nothing and is allowed by its hash alone. What it shows of the input it sets as text, never as markup.
"""

SCRIPT = """
"use strict";
(() => {
  const data = JSON.parse(document.getElementById("picks-data").textContent), rows = data.rows;
  const list = document.getElementById("picks-list"), body = list.tBodies[0];
  const find = document.getElementById("picks-find"), count = document.getElementById("picks-count");
  const more = document.getElementById("picks-more"), at = {}, step = 50;
  data.columns.forEach((name, place) => { at[name] = place; });
  const told = text => text === null ? "" : typeof text === "string" ? text :
    text.map(turn => (turn[0] ? turn[0] + ": " : "") + turn[1]).join(" ");
  let searched = null, found = rows, shown = step, key = "pick", down = false;
  const words = row => [row[at.id], row[at.group] || "", told(row[at.text])].join(" ").toLowerCase();
  const digits = (value, few) => value === null ? "\\u2013" :
    few ? value.toLocaleString("en-US") : value === 0 ? "0" :
    Math.abs(value) >= 1000 ? Math.round(value).toLocaleString("en-US") : value.toPrecision(3);
  const cell = (name, row) => {
    const made = document.createElement(name === "pick" ? "th" : "td"), value = row[at[name]];
    made.className = name;
    made.setAttribute("role", name === "pick" ? "rowheader" : "cell");
    if (name === "pick") made.scope = "row";
    if (name === "text" || name === "id" || name === "group") {
      const inner = document.createElement("bdi");
      made.append(inner);
      if (name === "text" && value !== null && typeof value !== "string") {
        value.forEach(([role, said]) => {
          if (role) {
            const label = document.createElement("b");
            label.className = "role";
            label.textContent = role + ":";
            inner.append(label, " ");
          }
          inner.append(said + " ");
        });
      } else if (name === "text") inner.textContent = value === null ? "" : value;
      else (value || "").split(/(?<=[_:/.-])/).forEach((part, place) => {
        if (place) inner.append(document.createElement("wbr"));
        inner.append(part);
      });
    } else made.textContent = digits(value, name === "pick" || name === "length");
    return made;
  };
  const line = row => {
    const made = document.createElement("tr");
    made.setAttribute("role", "row");
    columns.forEach(name => made.append(cell(name, row)));
    return made;
  };
  const buttons = [...list.querySelectorAll("thead [data-key]")];
  const columns = [...list.querySelectorAll("thead th")].map(head => head.dataset.column);
  const compare = (a, b) => {
    const x = a[at[key]], y = b[at[key]];
    if (x === y) return a[at.pick] - b[at.pick];
    if (x === null || y === null) return x === null ? 1 : -1;
    return (x < y ? -1 : 1) * (down ? -1 : 1);
  };
  const say = () => {
    const many = n => n.toLocaleString("en-US"), few = Math.min(shown, found.length);
    count.textContent = (find.value.trim() ? many(found.length) + " of " + many(rows.length) + " picks found" :
      many(rows.length) + " picks") + (few < found.length ? ", the first " + many(few) + " shown" : "");
    more.hidden = few >= found.length;
  };
  const draw = () => { body.replaceChildren(...found.slice(0, shown).map(line)); say(); };
  const search = () => {
    const asked = find.value.toLowerCase().split(/\\s+/).filter(Boolean);
    searched = searched || rows.map(words);
    const chosen = rows.filter((row, place) => asked.every(word => searched[place].includes(word)));
    found = chosen.sort(compare);
    shown = step;
    draw();
  };
  buttons.forEach(head => {
    const button = document.createElement("button");
    button.type = "button";
    button.append(...head.childNodes);
    head.append(button);
    button.addEventListener("click", () => {
      down = key === head.dataset.key ? !down : head.dataset.down === "1";
      key = head.dataset.key;
      buttons.forEach(other => other.setAttribute("aria-sort",
        other !== head ? "none" : down ? "descending" : "ascending"));
      search();
    });
  });
  buttons.forEach(head => head.setAttribute("aria-sort", head.dataset.key === "pick" ? "ascending" : "none"));
  let waiting = 0;
  find.addEventListener("input", () => {
    clearTimeout(waiting);
    waiting = setTimeout(search, rows.length > 3000 ? 150 : 0);
  });
  more.addEventListener("click", () => {
    const before = Math.min(shown, found.length);
    shown += 4 * step;
    body.append(...found.slice(before, shown).map(line));
    say();
    const next = body.rows[before];
    if (more.hidden && next) { next.tabIndex = -1; next.focus({preventScroll: true}); }
  });
  document.getElementById("picks-tools").hidden = false;
  document.getElementById("picks-plain").hidden = true;
  draw();
})();
"""
