// The graph of an agent's packets: bars against what was expected, holes where it was silent.

import { Layer } from "./layers.js";
import { silenceLegend } from "./module.js";
import { within } from "./steps.js";
import { counted, number, percent, short } from "./texts.js";

export class AccessPicture {
  constructor(graph) {
    this.graph = graph;
    this.marks = [];
    const { columns, end } = graph;
    this.until = columns.length > 0 ? columns[columns.length - 1].end : end;
  }

  kind = "access";
  height = 200;
  bottomRoom = 0;

  data() {
    const { columns, start, end } = this.graph;
    if (columns.length === 0) {
      return [[start, Math.max(end, start + 1)], [null, null], [null, null]];
    }
    return [
      columns.map((column) => column.start),
      columns.map((column) => column.packets),
      columns.map((column) => column.expected),
    ];
  }

  series() {
    const unseen = { paths: () => null, points: { show: false } };
    return [{}, unseen, unseen];
  }

  scale() {
    return { range: (_, low, high) => [0, high === null || high <= 0 ? 1 : high * 1.15] };
  }

  axis() {
    return {
      values: (_, marks) => marks.map(short),
      incrs: [1, 2, 5, 10, 20, 50, 100, 200, 500, 1e3, 2e3, 5e3, 1e4, 2e4, 5e4, 1e5, 1e6, 1e7],
    };
  }

  drawBehind(plot, theme) {
    const layer = new Layer(plot, theme);
    const { start, end, silences } = this.graph;
    layer.clipped(() => layer.silences(silences, start, end));
  }

  drawShape(plot, theme) {
    const layer = new Layer(plot, theme);
    const { columns } = this.graph;
    const floor = layer.y(0);
    layer.clipped(() => {
      layer.context.fillStyle = theme.accent;
      for (const { start, end, packets } of columns) {
        if (packets === 0) continue;
        const gap = layer.x(end) - layer.x(start) > 4 * layer.ratio ? layer.ratio : 0;
        layer.column(start, end, layer.y(packets), floor, gap);
      }
      this._expected(layer, theme);
    });
  }

  drawOver() {}

  _expected(layer, theme) {
    const { context, ratio } = layer;
    context.strokeStyle = theme.fg;
    context.lineWidth = 1.2 * ratio;
    context.setLineDash([5 * ratio, 4 * ratio]);
    context.beginPath();
    let isDrawn = false;
    for (const { start, end, expected } of this.graph.columns) {
      const y = layer.y(expected);
      // One line where it can be: dashes begin anew with each.
      if (expected > 0 && isDrawn) context.lineTo(layer.x(start), y);
      else if (expected > 0) context.moveTo(layer.x(start), y);
      if (expected > 0) context.lineTo(layer.x(end), y);
      isDrawn = expected > 0;
    }
    context.stroke();
    context.setLineDash([]);
  }

  legend() {
    const { silences, start, end } = this.graph;
    return [
      ["bar", "packets"],
      ["expected", "expected"],
      ...silenceLegend(silences, start, end),
    ];
  }

  headline() {
    const { share, expected, packets } = this.graph;
    if (share === null) {
      return packets > 0
        ? counted(packets, "packet arrived", "packets arrived")
        : "no packet was expected in this span";
    }
    const due = counted(Math.round(expected), "expected packet", "expected packets");
    return `${percent(share)} of ${due} arrived`;
  }

  at(time) {
    const { columns, silences } = this.graph;
    const column = within(columns, time);
    const found = [];
    if (column !== undefined) {
      const { packets, expected } = column;
      const due = number(Math.round(expected * 10) / 10);
      found.push(`${counted(packets, "packet", "packets")}, ${due} expected`);
    }
    if (within(silences.spans, time)) found.push("no packet");
    if (silences.known_since === null || time < silences.known_since) {
      found.push("packets not known");
    }
    return found;
  }

  now() {
    return null;
  }
}
