// Zooming and moving by links, buttons and keys; the mouse is the plot's.

const HELP =
  "Drag over the graph to zoom in, double-click or Escape to go back; with the keyboard on the " +
  "graph: arrow keys move, + and − zoom, Shift with an arrow key reads values, " +
  "Home and End read the first and the last one.";

const ACTIONS = [
  ["earlier", "Earlier", "‹"],
  ["closer", "Zoom in", "+"],
  ["wider", "Zoom out", "−"],
  ["later", "Later", "›"],
];

const KEYS = {
  ArrowLeft: "earlier",
  ArrowRight: "later",
  "+": "closer",
  "=": "closer",
  "-": "wider",
  "−": "wider",
  Escape: "back",
};

const READING = { ArrowLeft: -1, ArrowRight: 1 };

/** The links that the server made, which work without us too, and the buttons beside them. */
export class Controls {
  /** `act(name)`, `choose(seconds)`, `read(step or "first" or "last")`. */
  constructor(ranges, { act, choose }) {
    this._links = [...ranges.querySelectorAll("a[data-seconds]")];
    for (const link of this._links) {
      link.addEventListener("click", (event) => {
        if (event.button !== 0 || event.ctrlKey || event.metaKey || event.shiftKey) return;
        event.preventDefault();
        choose(Number(link.dataset.seconds));
      });
    }
    const buttons = document.createElement("span");
    buttons.className = "graph-buttons";
    for (const [name, title, sign] of ACTIONS) {
      const button = document.createElement("button");
      button.type = "button";
      button.textContent = sign;
      button.title = title;
      button.setAttribute("aria-label", title);
      button.dataset.action = name;
      button.addEventListener("click", () => act(name));
      buttons.append(button);
    }
    ranges.append(buttons);
  }

  /** Mark the link that says what is shown. */
  mark(span) {
    for (const link of this._links) {
      const isShown = span.isLive && Math.abs(Number(link.dataset.seconds) - span.seconds) < 2;
      if (isShown) link.setAttribute("aria-current", "true");
      else link.removeAttribute("aria-current");
    }
  }
}

/** Keys on the focused plot. */
export function listenToKeys(element, { act, read }) {
  element.addEventListener("keydown", (event) => {
    if (event.ctrlKey || event.metaKey || event.altKey) return;
    if (event.shiftKey && event.key in READING) read(READING[event.key]);
    else if (event.key === "Home") read("first");
    else if (event.key === "End") read("last");
    else if (event.key in KEYS) act(KEYS[event.key]);
    else return;
    event.preventDefault();
  });
}

/** What the keys and the mouse do, for whoever looks for it. */
export function help() {
  const details = document.createElement("details");
  details.className = "graph-help";
  const summary = document.createElement("summary");
  summary.textContent = "Mouse and keys";
  const text = document.createElement("p");
  text.textContent = HELP;
  details.append(summary, text);
  return details;
}
