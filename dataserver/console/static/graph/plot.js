// uPlot, set up for one kind of picture: axes in the server's zone, the cursor, zooming by mouse.

import uPlot from "../vendor/uPlot.esm.js";

/** Pixels that a drag must span to be one. */
const DRAG = 6;
const LEFT = 62;

/** `on.select(start, end)`, `on.back()`, `on.cursor(time or null)`. */
export function makePlot(holder, picture, { clock, theme, span, current, on }) {
  const grid = { stroke: () => theme.line, width: 1 };
  const axis = {
    stroke: () => theme.muted,
    font: `12px ${theme.font}`,
    grid,
    ticks: grid,
  };
  const hasValues = picture.axis().show !== false;
  const options = {
    width: Math.max(holder.clientWidth, 120),
    height: picture.height,
    tzDate: (seconds) => clock.date(seconds),
    padding: [8, 34, picture.bottomRoom, hasValues ? 0 : 34],
    legend: { show: false },
    cursor: {
      y: false,
      points: { show: false },
      drag: { x: true, y: false, setScale: false, dist: DRAG },
      bind: { dblclick: () => () => on.back() },
    },
    scales: {
      x: { time: true, range: () => [span().start, span().end] },
      y: picture.scale(),
    },
    axes: [
      {
        ...axis,
        size: 42,
        gap: 4,
        space: 84,
        values: (_, marks, __, ___, step) => clock.labels(marks, step),
      },
      { ...axis, size: LEFT, ...picture.axis() },
    ],
    series: picture.series(theme),
    hooks: {
      drawClear: [(plot) => current().drawBehind(plot, theme)],
      drawAxes: [(plot) => current().drawShape(plot, theme)],
      draw: [(plot) => current().drawOver(plot, theme)],
      setCursor: [(plot) => on.cursor(timeAt(plot))],
      setSelect: [
        (plot) => {
          const { left, width } = plot.select;
          if (width < DRAG) return;
          plot.setSelect({ left: 0, top: 0, width: 0, height: 0 }, false);
          on.select(plot.posToVal(left, "x"), plot.posToVal(left + width, "x"));
        },
      ],
    },
  };
  return new uPlot(options, picture.data(), holder);
}

function timeAt(plot) {
  const { left } = plot.cursor;
  return left === undefined || left < 0 ? null : plot.posToVal(left, "x");
}
