// Events as buttons on the time axis: pointed at or focused, they tell their text.

import { plain } from "./texts.js";

/** Marks nearer to each other than this many pixels are one button. */
const NEAR = 9;
const TOLD = 4;
const WEIGHT = { 4: "critical", 3: "warning", 6: "critical", 5: "warning", 2: "normal" };

export class Marks {
  /** `tell(text or null)`: what the button that is pointed at says. */
  constructor(clock, tell) {
    this._clock = clock;
    this._tell = tell;
    this.element = document.createElement("div");
    this.element.className = "graph-marks";
    this.element.setAttribute("role", "group");
    this.element.setAttribute("aria-label", "Events");
    this.element.addEventListener("keydown", (event) => this._key(event));
    // Whoever presses here wants the event, not a span.
    this.element.addEventListener("mousedown", (event) => event.stopPropagation());
    this.element.addEventListener("dblclick", (event) => event.stopPropagation());
  }

  place(plot, marks) {
    const groups = [];
    for (const mark of marks) {
      const left = plot.valToPos(mark.time, "x");
      if (left < 0 || left > plot.over.clientWidth) continue;
      const last = groups[groups.length - 1];
      if (last !== undefined && left - last.left < NEAR) last.marks.push(mark);
      else groups.push({ left, marks: [mark] });
    }
    const focused = [...this.element.children].indexOf(document.activeElement);
    this.element.replaceChildren(...groups.map((group, place) => this._button(group, place)));
    this.element.hidden = groups.length === 0;
    if (focused >= 0) this.element.children[Math.min(focused, groups.length - 1)]?.focus();
  }

  _button({ left, marks }, place) {
    const button = document.createElement("button");
    const worst = marks.reduce((one, other) => (other.severity > one.severity ? other : one));
    const text = this._text(marks);
    button.type = "button";
    button.className = `graph-mark ${WEIGHT[worst.severity] ?? "plain"}`;
    button.style.left = `${left}px`;
    button.title = text;
    button.setAttribute("aria-label", text);
    button.tabIndex = place === 0 ? 0 : -1;
    for (const kind of ["mouseenter", "focus"]) {
      button.addEventListener(kind, () => this._tell(text));
    }
    for (const kind of ["mouseleave", "blur"]) {
      button.addEventListener(kind, () => this._tell(null));
    }
    return button;
  }

  _text(marks) {
    const told = marks
      .slice(-TOLD)
      .map((mark) => `${this._clock.text(mark.time)} ${plain(mark.text || mark.type)}`);
    const more = marks.length - told.length;
    return (more > 0 ? [`${more} more`, ...told] : told).join(" · ");
  }

  /** One stop for Tab; the arrows go from mark to mark. */
  _key(event) {
    const step = { ArrowLeft: -1, ArrowRight: 1 }[event.key];
    const buttons = [...this.element.children];
    const place = buttons.indexOf(document.activeElement);
    if (step === undefined || place < 0) return;
    event.preventDefault();
    event.stopPropagation();
    const next = buttons[(place + step + buttons.length) % buttons.length];
    for (const button of buttons) button.tabIndex = button === next ? 0 : -1;
    next.focus();
  }
}
