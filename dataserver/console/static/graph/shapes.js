// How a module's history is drawn, by its shape: a line in steps, up and down, texts.

import uPlot from "../vendor/uPlot.esm.js";
import { holding } from "./steps.js";
import { counted, duration, number, plain, short } from "./texts.js";

const START = (item) => item.start;

/** Nothing of this is uPlot's to draw; it keeps the axes and the cursor. */
const UNSEEN = { paths: () => null, points: { show: false } };

class Shape {
  constructor(graph) {
    this.graph = graph;
  }

  /** The times that uPlot knows. */
  times() {
    const { start, until } = this.graph;
    return [start, Math.max(until, start + 1)];
  }

  data() {
    return [this.times(), this.times().map(() => null)];
  }

  series() {
    return [{}, UNSEEN];
  }

  legend() {
    return [];
  }

  draw() {}
}

export class NumberShape extends Shape {
  height = 260;

  data() {
    const { points, columns, until, is_exact: isExact } = this.graph;
    if (isExact) {
      if (points.length === 0) return super.data();
      const last = points[points.length - 1];
      return [
        [...points.map((point) => point.time), Math.max(until, last.time)],
        [...points.map((point) => point.value), last.value],
      ];
    }
    if (columns.length === 0) return super.data();
    const last = columns[columns.length - 1];
    return [
      [...columns.map(START), last.end],
      [...columns.map((column) => column.mean), last.mean],
      [...columns.map((column) => column.minimum), last.minimum],
      [...columns.map((column) => column.maximum), last.maximum],
    ];
  }

  series(theme) {
    const line = {
      stroke: () => theme.accent,
      width: 1.5,
      paths: uPlot.paths.stepped({ align: 1 }),
      points: { show: false },
    };
    return this.graph.is_exact ? [{}, line] : [{}, line, UNSEEN, UNSEEN];
  }

  scale() {
    return { range: (_, low, high) => range(low, high) };
  }

  /** Whether some of a zone can be seen. */
  reaches({ low, high }) {
    const { points, columns, is_exact: isExact } = this.graph;
    const lows = isExact ? points.map((point) => point.value) : columns.map((each) => each.minimum);
    const highs = isExact ? lows : columns.map((each) => each.maximum);
    const [bottom, top] = range(extreme(lows, Math.min), extreme(highs, Math.max));
    return (low ?? bottom) < top && (high ?? top) > bottom;
  }

  axis() {
    return { values: (_, marks) => marks.map(short) };
  }

  /** From least to greatest of each column, behind the line of means. */
  draw(layer) {
    const { columns, is_exact: isExact } = this.graph;
    if (isExact) return;
    const { context, theme, ratio } = layer;
    context.fillStyle = theme.accent;
    context.globalAlpha = 0.35;
    for (const { start, end, minimum, maximum } of columns) {
      if (minimum === null) continue;
      const top = layer.y(maximum);
      layer.column(start, end, top, Math.max(layer.y(minimum), top + ratio));
    }
    context.globalAlpha = 1;
  }

  legend() {
    const { step, is_exact: isExact } = this.graph;
    if (isExact) return [["line", "value, holds until the next one"]];
    return [
      ["line", `mean over time, of ${duration(step)} each`],
      ["range", "least to greatest"],
    ];
  }

  /** The value at a time, in words. */
  at(time) {
    const { points, columns, module, is_exact: isExact } = this.graph;
    if (isExact) {
      const point = holding(points, time, (each) => each.time);
      return point === undefined ? "no value yet" : number(point.value, module.unit);
    }
    const column = holding(columns, time, START);
    if (column === undefined || column.mean === null) return "no value yet";
    const { minimum, maximum, mean, changes } = column;
    if (minimum === maximum) return number(mean, module.unit);
    const range = `${number(minimum)} to ${number(maximum, module.unit)}`;
    return `mean ${number(mean, module.unit)}, ${range}, ${counted(changes, "change", "changes")}`;
  }
}

/** The least or greatest of values, null where there is none. */
function extreme(values, choose) {
  return values.reduce((one, other) => (other === null ? one : choose(one ?? other, other)), null);
}

/** What the axis of values spans: all there is, with room above and below. */
function range(low, high) {
  if (low === null || high === null) return [0, 1];
  if (low !== high) return uPlot.rangeNum(low, high, 0.1, true);
  const room = Math.max(Math.abs(low) * 0.1, Number.MIN_VALUE * 1e20) || 1;
  return [low - room, high + room];
}

export class BooleanShape extends Shape {
  height = 170;

  scale() {
    return { range: [0, 1] };
  }

  axis() {
    return { splits: [0.25, 0.75], values: () => ["down", "up"], grid: { show: false } };
  }

  draw(layer) {
    for (const { start, end, isUp, isDown } of this._stretches()) {
      if (isUp) this._band(layer, start, end, 0.92, 0.54, layer.theme.normal);
      if (isDown) this._band(layer, start, end, 0.46, 0.08, layer.theme.critical);
    }
  }

  legend() {
    return [
      ["up", "up"],
      ["down", "down"],
    ];
  }

  at(time) {
    const { points, columns, is_exact: isExact } = this.graph;
    if (isExact) {
      const point = holding(points, time, (each) => each.time);
      return point === undefined ? "no value yet" : state(point.value);
    }
    const column = holding(columns, time, START);
    if (column === undefined || column.mean === null) return "no value yet";
    const { minimum, maximum, last, changes } = column;
    if (minimum === maximum) return state(last);
    return `up and down, ${counted(changes, "change", "changes")}, at the end ${state(last)}`;
  }

  _stretches() {
    const { points, columns, until, is_exact: isExact } = this.graph;
    if (isExact) {
      return points.map(({ time, value }, place) => ({
        start: time,
        end: points[place + 1]?.time ?? until,
        isUp: value !== 0,
        isDown: value === 0,
      }));
    }
    return columns
      .filter((column) => column.minimum !== null)
      .map(({ start, end, minimum, maximum }) => ({
        start,
        end,
        isUp: minimum !== 0 || maximum !== 0,
        isDown: minimum <= 0 && maximum >= 0,
      }));
  }

  _band(layer, start, end, top, bottom, colour) {
    layer.context.fillStyle = colour;
    layer.context.globalAlpha = 0.8;
    layer.column(start, end, layer.y(top), layer.y(bottom));
    layer.context.globalAlpha = 1;
  }
}

function state(value) {
  if (value === 0) return "down";
  return value === 1 ? "up" : `up (${number(value)})`;
}

export class TextShape extends Shape {
  height = 140;

  scale() {
    return { range: [0, 1] };
  }

  axis() {
    return { show: false };
  }

  draw(layer) {
    const { context, theme, ratio } = layer;
    const [top, bottom] = [layer.y(0.85), layer.y(0.15)];
    for (const band of this.graph.bands) {
      const { start, end, changes } = band;
      const isOne = changes === 1;
      context.fillStyle = isOne ? theme.band(band.text) : theme.line;
      layer.column(start, end, top, bottom);
      if (!isOne) {
        context.fillStyle = theme.hatch(theme.muted, ratio);
        context.globalAlpha = 0.4;
        layer.column(start, end, top, bottom);
        context.globalAlpha = 1;
      }
      // Where one ends and the next begins is seen without their colours, too.
      context.fillStyle = theme.muted;
      layer.column(start, start, top, bottom);
      layer.label(label(band), start, end, top, bottom);
    }
  }

  legend() {
    return this.graph.bands.some((band) => band.changes > 1)
      ? [["many", "several texts, too close to be told apart"]]
      : [];
  }

  at(time) {
    const band = holding(this.graph.bands, time, START);
    if (band === undefined) return "no value yet";
    const { text, changes } = band;
    return changes > 1 ? `${label(band)}, the last: “${plain(text)}”` : `“${plain(text)}”`;
  }
}

function label({ text, changes }) {
  return changes > 1 ? counted(changes, "change", "changes") : plain(text);
}

export const SHAPES = { number: NumberShape, boolean: BooleanShape, text: TextShape };
