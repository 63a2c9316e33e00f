// The share of time in each status, for the span that is seen: a bar and its table.

import { percent } from "./texts.js";

const ORDER = ["normal", "warning", "critical", "unknown", "not known"];

/** Fill `section` (it has a bar and a table's body) from shares by status, 0 to 1. */
export function showShares(section, shares) {
  const shown = ORDER.filter((status) => shares[status] > 0);
  section.querySelector(".shares-bar").replaceChildren(
    ...shown.map((status) => {
      const part = document.createElement("span");
      part.className = `share ${status.replace(" ", "-")}`;
      part.style.flexGrow = shares[status];
      return part;
    }),
  );
  section.querySelector("tbody").replaceChildren(
    ...shown.map((status) => {
      const row = document.createElement("tr");
      const name = document.createElement("th");
      name.scope = "row";
      name.className = `share-name ${status.replace(" ", "-")}`;
      name.textContent = status;
      const share = document.createElement("td");
      share.textContent = percent(shares[status]);
      row.append(name, share);
      return row;
    }),
  );
  section.hidden = shown.length === 0;
}
