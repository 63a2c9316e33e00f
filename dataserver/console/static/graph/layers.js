// What several graphs draw on the canvas, behind their lines or below them.

const STRIP = 8;
/** Room below the axis for the strip of statuses, in CSS pixels. */
export const STRIP_ROOM = STRIP + 6;

/** One plot, with what is needed to draw on it in times and values. */
export class Layer {
  constructor(plot, theme) {
    this.plot = plot;
    this.theme = theme;
    this.context = plot.ctx;
    this.box = plot.bbox;
    this.ratio = devicePixelRatio;
  }

  x(time) {
    return this.plot.valToPos(time, "x", true);
  }

  y(value) {
    return this.plot.valToPos(value, "y", true);
  }

  /** Draw within the plotting area only. */
  clipped(draw) {
    const { context, box } = this;
    context.save();
    context.beginPath();
    context.rect(box.left, box.top, box.width, box.height);
    context.clip();
    draw();
    context.restore();
  }

  /**
   * A span of time at full height, or between two heights; at least a pixel wide, and of whole
   * pixels: neighbours leave no seam.
   */
  column(start, end, top = this.box.top, bottom = this.box.top + this.box.height, gap = 0) {
    const { left, width } = this.box;
    const from = Math.round(Math.max(this.x(start), left));
    const to = Math.round(Math.min(this.x(end), left + width)) - gap;
    if (to < left || from > left + width) return;
    this.context.fillRect(from, top, Math.max(to - from, 1), Math.max(bottom - top, 1));
  }

  /** The spans in which the agent sent nothing, and the time of which nothing is known. */
  silences({ known_since: since, spans }, start, until) {
    const { context, theme } = this;
    const known = Math.min(since ?? until, until);
    context.fillStyle = theme.line;
    context.globalAlpha = 0.35;
    if (known > start) this.column(start, known);
    context.globalAlpha = 1;
    for (const { start: from, end: to } of spans) {
      context.globalAlpha = 0.12;
      context.fillStyle = theme.unknown;
      this.column(from, to);
      context.globalAlpha = 0.6;
      context.fillStyle = theme.hatch(theme.unknown, this.ratio);
      this.column(from, to);
    }
    context.globalAlpha = 1;
  }

  /** The values in which the module is in warning or critical. */
  zones(zones, start, end) {
    const { context, theme, box } = this;
    for (const { status, low, high } of zones) {
      const top = high === null ? box.top : Math.max(this.y(high), box.top);
      const bottom = low === null ? box.top + box.height : this.y(low);
      const floor = Math.min(bottom, box.top + box.height);
      if (floor <= top) continue;
      context.fillStyle = theme.status(status);
      context.globalAlpha = theme.isDark ? 0.2 : 0.13;
      this.column(start, end, top, floor);
    }
    context.globalAlpha = 1;
  }

  /** Where those begin and end. */
  edges(zones, start, end) {
    const { context, theme, ratio } = this;
    context.globalAlpha = 0.8;
    for (const { status, low, high } of zones) {
      context.fillStyle = theme.status(status);
      for (const edge of [low, high]) {
        const y = edge === null ? -1 : Math.round(this.y(edge));
        if (y >= 0) this.column(start, end, y, y + ratio);
      }
    }
    context.globalAlpha = 1;
  }

  /** The statuses, below the axis. */
  strip(statuses) {
    const { context, theme, ratio } = this;
    const bottom = context.canvas.height - 2 * ratio;
    const top = bottom - STRIP * ratio;
    for (const { start, end, status } of statuses) {
      if (status === null) continue;
      context.fillStyle = theme.status(status);
      this.column(start, end, top, bottom);
      if (status !== "unknown") continue;
      context.fillStyle = theme.hatch(theme.bg, ratio);
      this.column(start, end, top, bottom);
    }
  }

  /** Thin lines where something happened. */
  lines(times) {
    const { context, theme, box, ratio } = this;
    context.save();
    context.strokeStyle = theme.muted;
    context.globalAlpha = 0.6;
    context.setLineDash([2 * ratio, 3 * ratio]);
    context.lineWidth = ratio;
    context.beginPath();
    for (const time of times) {
      const x = Math.round(this.x(time)) + 0.5;
      context.moveTo(x, box.top);
      context.lineTo(x, box.top + box.height);
    }
    context.stroke();
    context.restore();
  }

  /** A text in a band, cut where the band ends. */
  label(text, start, end, top, bottom) {
    const { context, theme, box, ratio } = this;
    const left = Math.max(this.x(start), box.left);
    const right = Math.min(this.x(end), box.left + box.width);
    const pad = 4 * ratio;
    if (right - left < 4 * pad) return;
    context.save();
    context.beginPath();
    context.rect(left, top, right - left - pad, bottom - top);
    context.clip();
    context.font = `${12 * ratio}px ${theme.font}`;
    context.textBaseline = "middle";
    context.textAlign = "left";
    context.direction = "ltr";
    context.fillStyle = theme.fg;
    context.fillText(text, left + pad, (top + bottom) / 2);
    context.restore();
  }
}
