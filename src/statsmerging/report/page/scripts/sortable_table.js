"use strict";
// A table whose headings sort it. Rows stand in groups that keep their order; a group's rows are
// sorted among themselves.

const NEXT_ORDER = {
  numeric: { none: "descending", descending: "ascending", ascending: "none" },
  text: { none: "ascending", ascending: "descending", descending: "none" },
};

const collator = new Intl.Collator("en", { numeric: true });

/**
 * A table in a container of its own that scrolls sideways.
 *
 * A column is {label, numeric, title}; a cell {value, text, node, class}, where `value` sorts
 * and `node` or `text` is shown; a row {cells, class}; a group {title, rows}.
 */
class SortableTable {
  constructor(caption, columns, groups = []) {
    this.columns = columns;
    this.sorted = { column: null, order: "none" };
    this.headings = columns.map((column, index) => this.heading(column, index));
    this.table = element(
      "table",
      {},
      element("caption", {}, caption),
      element("thead", {}, element("tr", {}, this.headings)),
    );
    this.element = scrollable(caption, this.table);
    this.show(groups);
  }

  /** Replace the rows, of each group at most so many; the order chosen by the reader stays. */
  show(groups, most = Infinity) {
    this.groups = groups;
    this.most = most;
    this.table.querySelectorAll("tbody").forEach((body) => body.remove());
    this.table.append(
      ...groups.filter((group) => group.rows.length).map((group) => this.body(group)),
    );
  }

  heading(column, index) {
    const button = element(
      "button",
      { type: "button", onclick: () => this.sortBy(index), title: column.title },
      element("span", {}, column.label),
      element("span", { class: "arrow", "aria-hidden": "true" }),
    );
    const kind = column.numeric ? "number" : null;
    return element("th", { scope: "col", class: kind, "aria-sort": "none" }, button);
  }

  sortBy(index) {
    const kind = this.columns[index].numeric ? "numeric" : "text";
    const before = this.sorted.column === index ? this.sorted.order : "none";
    this.sorted = { column: index, order: NEXT_ORDER[kind][before] };
    this.headings.forEach((heading, other) =>
      heading.setAttribute("aria-sort", other === index ? this.sorted.order : "none"),
    );
    this.show(this.groups, this.most);
  }

  body(group) {
    const span = { scope: "rowgroup", colspan: this.columns.length };
    const title = group.title
      ? element("tr", { class: "group" }, element("th", span, element("span", {}, group.title)))
      : null;
    return element(
      "tbody",
      {},
      title,
      this.inOrder(group.rows)
        .slice(0, this.most)
        .map((row) => this.row(row)),
    );
  }

  inOrder(rows) {
    const { column, order } = this.sorted;
    if (order === "none") return rows;
    const sign = order === "ascending" ? 1 : -1;
    const value = (row) => row.cells[column].value;
    return [...rows].sort((a, b) => compareValues(value(a), value(b), sign));
  }

  row(row) {
    const cells = row.cells.map((cell, index) => {
      const kind = [this.columns[index].numeric ? "number" : null, cell.class];
      const attributes = { class: kind.filter(Boolean).join(" ") || null, title: cell.title };
      if (index === 0) attributes.scope = "row";
      const shown = cell.node ?? cell.text ?? valueText(cell.value ?? undefined);
      return element(index === 0 ? "th" : "td", attributes, shown);
    });
    return element("tr", { class: row.class }, cells);
  }
}

/** Numbers by size, other values as text; what is missing comes last in either order. */
function compareValues(a, b, sign) {
  const missing = (value) => value === null || value === undefined || value === "";
  if (missing(a) || missing(b)) return Number(missing(a)) - Number(missing(b));
  if (typeof a === "number" && typeof b === "number") return sign * (a - b);
  return sign * collator.compare(valueText(a), valueText(b));
}

/** A region that the keyboard can reach and scroll. */
function scrollable(label, ...children) {
  const attributes = { class: "scroll", role: "region", "aria-label": label, tabindex: "0" };
  return element("div", attributes, children);
}
