for (const table of document.querySelectorAll("table.sortable")) {
  const body = table.tBodies[0];
  table.querySelectorAll("thead th").forEach((head, column) => {
    const button = document.createElement("button");
    button.append(...head.childNodes);
    head.append(button);
    button.onclick = () => {
      const down = head.getAttribute("aria-sort") !== "descending";
      table.querySelectorAll("thead th").forEach(other => other.removeAttribute("aria-sort"));
      head.setAttribute("aria-sort", down ? "descending" : "ascending");
      const value = row => {
        const cell = row.cells[column];
        return cell.dataset.v === undefined ? cell.textContent.replaceAll(",", "") : cell.dataset.v;
      };
      const rows = [...body.rows].filter(row => !row.classList.contains("sum"));
      rows.sort((a, b) => value(a).localeCompare(value(b), "en", {numeric: true}) || 0);
      const numbers = rows.every(row => value(row) !== "" && !isNaN(value(row)));
      if (numbers) rows.sort((a, b) => value(a) - value(b));
      if (down) rows.reverse();
      body.prepend(...rows);
    };
  });
}
