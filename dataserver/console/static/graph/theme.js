// Colours of the page for what is drawn on a canvas, and patterns made of them.

const NAMES = [
  "bg",
  "fg",
  "muted",
  "line",
  "accent",
  "normal",
  "warning",
  "critical",
  "unknown",
];

export class Theme {
  constructor() {
    this._hatches = new Map();
    this._watchers = new Set();
    this.refresh();
    const changed = () => {
      this.refresh();
      for (const watcher of this._watchers) watcher();
    };
    matchMedia("(prefers-color-scheme: dark)").addEventListener("change", changed);
    new MutationObserver(changed).observe(document.documentElement, {
      attributeFilter: ["data-theme", "class"],
    });
  }

  /** Call it whenever the colours change. */
  watch(watcher) {
    this._watchers.add(watcher);
  }

  refresh() {
    this._hatches.clear();
    const style = getComputedStyle(document.documentElement);
    for (const name of NAMES) {
      this[name] = style.getPropertyValue(`--${name}`).trim() || "gray";
    }
    this.isDark = this._isDark();
    this.font = style.getPropertyValue("--graph-font").trim() || "system-ui, sans-serif";
  }

  /** The colour of a status; what is not known has none. */
  status(name) {
    return { normal: this.normal, warning: this.warning, critical: this.critical }[name]
      ?? (name === "unknown" ? this.unknown : this.line);
  }

  /** A hatching in this colour, for a canvas of this pixel ratio. */
  hatch(colour, ratio) {
    const key = `${colour} ${ratio}`;
    let pattern = this._hatches.get(key);
    if (pattern === undefined) {
      pattern = this._hatched(colour, Math.round(7 * ratio), ratio);
      this._hatches.set(key, pattern);
    }
    return pattern;
  }

  /** The fill of a band: one for each text, the same every time. */
  band(text) {
    let hash = 2166136261;
    for (let place = 0; place < text.length; place += 1) {
      hash = Math.imul(hash ^ text.charCodeAt(place), 16777619) >>> 0;
    }
    return `hsl(${hash % 360} 45% ${this.isDark ? 28 : 82}%)`;
  }

  _hatched(colour, size, ratio) {
    const tile = document.createElement("canvas");
    tile.width = size;
    tile.height = size;
    const context = tile.getContext("2d");
    context.strokeStyle = colour;
    context.lineWidth = 1.2 * ratio;
    context.beginPath();
    for (const shift of [-size, 0, size]) {
      context.moveTo(shift, size);
      context.lineTo(shift + size, 0);
    }
    context.stroke();
    return context.createPattern(tile, "repeat");
  }

  _isDark() {
    const probe = document.createElement("canvas").getContext("2d", { willReadFrequently: true });
    probe.fillStyle = this.bg;
    probe.fillRect(0, 0, 1, 1);
    const [red, green, blue] = probe.getImageData(0, 0, 1, 1).data;
    return red * 0.3 + green * 0.6 + blue * 0.1 < 128;
  }
}
