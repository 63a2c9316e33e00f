// The graph of a module: its shape, with silences, thresholds, events and statuses.

import { Layer, STRIP_ROOM } from "./layers.js";
import { SHAPES } from "./shapes.js";
import { within } from "./steps.js";
import { counted } from "./texts.js";

export class ModulePicture {
  constructor(graph) {
    this.graph = graph;
    this.marks = graph.marks;
    this.until = graph.until;
    this._shape = new SHAPES[graph.shape](graph);
  }

  /** A plot made for one picture serves all others of its kind. */
  get kind() {
    return `${this.graph.shape} ${this.graph.is_exact}`;
  }

  get height() {
    return this._shape.height;
  }

  get bottomRoom() {
    return STRIP_ROOM;
  }

  data() {
    return this._shape.data();
  }

  series(theme) {
    return this._shape.series(theme);
  }

  scale() {
    return this._shape.scale();
  }

  axis() {
    return this._shape.axis();
  }

  drawBehind(plot, theme) {
    const layer = new Layer(plot, theme);
    const { start, until, end, silences, zones, shape } = this.graph;
    layer.clipped(() => {
      if (shape === "number") layer.zones(zones, start, end);
      layer.silences(silences, start, until);
    });
  }

  drawShape(plot, theme) {
    const layer = new Layer(plot, theme);
    const { start, end, zones, shape } = this.graph;
    layer.clipped(() => {
      // Over the grid, whose lines lie where thresholds like to be.
      if (shape === "number") layer.edges(zones, start, end);
      this._shape.draw(layer);
    });
  }

  drawOver(plot, theme) {
    const layer = new Layer(plot, theme);
    layer.clipped(() => layer.lines(this.marks.map((mark) => mark.time)));
    layer.strip(this.graph.statuses);
  }

  /** Of what the legend tells: [swatch, words]; only what can be seen. */
  legend() {
    const { silences, start, until, statuses, zones, marks } = this.graph;
    const found = this._shape.legend();
    if (this.graph.shape === "number") {
      for (const status of ["warning", "critical"]) {
        if (zones.some((zone) => zone.status === status && this._shape.reaches(zone))) {
          found.push([`zone-${status}`, `values that are ${status}`]);
        }
      }
    }
    found.push(...silenceLegend(silences, start, until));
    for (const status of ["normal", "warning", "critical", "unknown"]) {
      if (statuses.some((span) => span.status === status)) found.push([status, status]);
    }
    if (marks.length > 0) found.push(["event", "event"]);
    return found;
  }

  /** In words: everything that a sighted reader sees. */
  headline() {
    const { changes, marks, has_more_marks: hasMore } = this.graph;
    const events = hasMore
      ? `the newest ${marks.length} events`
      : counted(marks.length, "event", "events");
    return `${counted(changes, "value", "values")} stored in this span, ${events}`;
  }

  /** What there is at a time. */
  at(time) {
    const { statuses, silences, until } = this.graph;
    if (time >= until) return ["not yet"];
    const found = [this._shape.at(time)];
    const status = within(statuses, time)?.status;
    if (status) found.push(status);
    if (within(silences.spans, time)) found.push("no packet");
    if (silences.known_since === null || time < silences.known_since) {
      found.push("packets not known");
    }
    return found;
  }

  /** What it says where nobody points at anything. */
  now() {
    const { start, until } = this.graph;
    return until > start ? this.at(until - 1) : ["not yet"];
  }
}

export function silenceLegend({ known_since: since, spans }, start, until) {
  const found = [];
  if (spans.length > 0) found.push(["silence", "no packet"]);
  if (until > start && (since === null || since > start)) {
    found.push(["not-known", "packets not known"]);
  }
  return found;
}
