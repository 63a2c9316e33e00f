// Times in the server's zone: texts for people, marks for the axis.

import uPlot from "../vendor/uPlot.esm.js";

const DAY = 86400;
const MONTH = 28 * DAY;
const YEAR = 365 * DAY;

/** The zone if this browser knows it, else UTC: better said than shown wrongly. */
function usable(name) {
  try {
    new Intl.DateTimeFormat("en", { timeZone: name });
    return name;
  } catch {
    return "UTC";
  }
}

export class Clock {
  constructor(zone) {
    this.zone = usable(zone);
    this._parts = new Intl.DateTimeFormat("en-GB", {
      timeZone: this.zone,
      hourCycle: "h23",
      year: "numeric",
      month: "2-digit",
      day: "2-digit",
      hour: "2-digit",
      minute: "2-digit",
      second: "2-digit",
    });
  }

  /** What the axis needs: a Date whose local fields are those of the zone. */
  date(seconds) {
    return uPlot.tzDate(new Date(seconds * 1000), this.zone);
  }

  /** `2026-11-22 10:30:00`. */
  text(seconds) {
    const { day, time } = this._fields(seconds);
    return `${day} ${time}`;
  }

  /** Both ends; the day is said once where it is the same. */
  span(start, end) {
    const from = this._fields(start);
    const to = this._fields(end);
    const tail = from.day === to.day ? to.time : `${to.day} ${to.time}`;
    return `${from.day} ${from.time} – ${tail}`;
  }

  /** Labels of the axis for marks that are `step` seconds apart: no longer than they need be. */
  labels(marks, step) {
    const length = step >= YEAR ? 4 : 7;
    if (step >= MONTH) return marks.map((mark) => this._fields(mark).day.slice(0, length));
    let last = "";
    return marks.map((mark) => {
      const { day, time } = this._fields(mark);
      // What is the same for several marks stands below the first of them only.
      let [above, below] = [step < 60 ? time : time.slice(0, 5), day];
      if (step >= DAY) [above, below] = [day.slice(5), day.slice(0, 4)];
      const isNew = below !== last;
      last = below;
      return isNew ? `${above}\n${below}` : above;
    });
  }

  _fields(seconds) {
    const found = {};
    for (const { type, value } of this._parts.formatToParts(new Date(seconds * 1000))) {
      found[type] = value;
    }
    return {
      day: `${found.year.padStart(4, "0")}-${found.month}-${found.day}`,
      time: `${found.hour}:${found.minute}:${found.second}`,
    };
  }
}
