// Graphs of modules and of agents' packets.
//
// A container <div class="graph" data-graph="module" ...> says what to draw:
//   data-graph    "module" or "access"
//   data-url      where the record is asked for, with from, to and width
//   data-label    what it is, for those who do not see it
//   data-zone     the server's time zone, an IANA name
//   data-start, data-end, data-live, data-now   the span at first, in epoch seconds
//   data-refresh  seconds after which a span that ends now is asked for again
// and holds the links of ranges (.graph-ranges); without this file they are all there is.

import { AccessPicture } from "./graph/access.js";
import { Clock } from "./graph/clock.js";
import { Controls, help, listenToKeys } from "./graph/controls.js";
import { Loader } from "./graph/loader.js";
import { Marks } from "./graph/marks.js";
import { ModulePicture } from "./graph/module.js";
import { makePlot } from "./graph/plot.js";
import { showShares } from "./graph/shares.js";
import { Span } from "./graph/span.js";
import { Theme } from "./graph/theme.js";

const PICTURES = { module: ModulePicture, access: AccessPicture };
const NARROWEST = 50;
const WIDEST = 4000;
/** Between two looks at what is live, in seconds, whatever the module's interval is. */
const [SOONEST, LATEST] = [10, 300];

class Graph {
  constructor(element, theme) {
    const { dataset } = element;
    this._element = element;
    this._theme = theme;
    this._clock = new Clock(dataset.zone);
    this._ahead = Number(dataset.now) - Date.now() / 1000;
    this._span = new Span(Number(dataset.start), Number(dataset.end), dataset.live === "true");
    this._first = this._span;
    this._picture = null;
    this._plot = null;
    this._build();
    this._loader = new Loader(dataset.url, {
      busy: () => this._state("loading"),
      data: (record) => this._show(record),
      failure: (message, seconds) => this._fail(message, seconds),
    });
    this._watch();
    this._ask(true);
  }

  get _now() {
    return Math.floor(Date.now() / 1000 + this._ahead);
  }

  // -- what is shown ------------------------------------------------------------

  _act(name) {
    const span = this._span.at(this._now);
    if (name === "earlier") this._go(span.moved(-0.5, this._now));
    if (name === "later") this._go(span.moved(0.5, this._now));
    if (name === "closer") this._go(span.zoomed(0.5, this._now));
    if (name === "wider") this._go(span.zoomed(2, this._now));
    if (name === "back") this._go(this._first);
  }

  _go(span) {
    this._span = span.at(this._now);
    const address = new URL(location.href);
    this._span.keep(address.searchParams);
    history.replaceState(history.state, "", address);
    this._controls.mark(this._span);
    // What is there already is moved at once; what the server says replaces it.
    this._plot?.setData(this._picture.data());
    this._placeMarks();
    this._ask(false);
  }

  _ask(isAtOnce) {
    clearTimeout(this._refresh);
    this._loader.ask({ ...this._span.query, width: this._width }, isAtOnce);
  }

  get _width() {
    // While a failure is shown in its place, the plot has no width.
    const css = this._plot?.over.clientWidth || this._element.clientWidth - 80;
    const pixels = Math.round(css * Math.min(devicePixelRatio, 2));
    return Math.min(Math.max(pixels, NARROWEST), WIDEST);
  }

  _show(record) {
    this._picture = new PICTURES[this._element.dataset.graph](record);
    if (this._span.isLive) {
      this._ahead = record.end - Date.now() / 1000;
      this._span = this._span.at(record.end);
    }
    this._shown = this._width;
    this._failure.hidden = true;
    this._holder.hidden = false;
    this._draw();
    this._headline.textContent = this._picture.headline();
    this._tellLegend();
    this._tell(null);
    if (record.shares !== undefined) {
      for (const section of document.querySelectorAll(".shares")) {
        showShares(section, record.shares);
      }
    }
    // Links to what is shown, in other forms.
    for (const link of document.querySelectorAll("a[data-span]")) {
      link.search = new URLSearchParams({ from: record.start, to: record.end });
    }
    this._element.dataset.shown = `${record.start} ${record.end}`;
    this._state("ready");
    this._wait();
  }

  _draw() {
    const picture = this._picture;
    if (this._plot !== null && this._kind === picture.kind) {
      this._plot.setData(picture.data());
    } else {
      this._plot?.destroy();
      this._kind = picture.kind;
      this._plot = makePlot(this._holder, picture, {
        clock: this._clock,
        theme: this._theme,
        span: () => this._span,
        current: () => this._picture,
        on: {
          select: (start, end) => this._go(Span.between(start, end, this._now)),
          back: () => this._act("back"),
          cursor: (time) => this._read(time),
        },
      });
      this._plot.over.append(this._marks.element);
    }
    this._placeMarks();
  }

  _placeMarks() {
    // uPlot applies its scales in a microtask of its own.
    queueMicrotask(() => {
      if (this._plot !== null) this._marks.place(this._plot, this._picture.marks);
    });
  }

  _fail(message, seconds) {
    const again = seconds === null ? "" : ` Trying again in ${seconds} s.`;
    this._failure.textContent = `No graph: ${message}.${again}`;
    this._failure.hidden = false;
    this._holder.hidden = true;
    this._state("error");
  }

  _state(state) {
    this._element.dataset.state = state;
    this._element.setAttribute("aria-busy", String(state === "loading"));
  }

  /** What ends now is looked at again after a while, if anybody looks. */
  _wait() {
    clearTimeout(this._refresh);
    if (!this._span.isLive) return;
    const seconds = Number(this._element.dataset.refresh) || LATEST;
    const pause = Math.min(Math.max(seconds, SOONEST), LATEST);
    this._refresh = setTimeout(() => {
      this._isDue = document.hidden;
      if (!this._isDue) this._ask(true);
    }, pause * 1000);
  }

  // -- what is told ---------------------------------------------------------------

  _read(time) {
    if (this._picture === null || this._isOnMark) return;
    this._time = time;
    if (time === null) {
      this._tell(null);
      return;
    }
    const whole = Math.floor(time);
    this._tell([this._clock.text(whole), ...this._picture.at(whole)].join(" · "));
  }

  /** A text, or what there is now. */
  _tell(text) {
    let shown = text;
    if (shown === null && this._time != null) {
      const whole = Math.floor(this._time);
      shown = [this._clock.text(whole), ...this._picture.at(whole)].join(" · ");
    }
    if (shown === null) {
      const { until } = this._picture;
      const now = this._picture.now();
      shown = now === null ? "" : [this._clock.text(until), ...now].join(" · ");
    }
    this._readout.textContent = shown;
    // A band is narrower than its text: all of it is told where it is pointed at.
    if (this._plot !== null) this._plot.over.title = text === null ? "" : shown;
  }

  _tellLegend() {
    const items = this._picture.legend().map(([swatch, words]) => {
      const item = document.createElement("li");
      const sign = document.createElement("span");
      sign.className = `swatch ${swatch}`;
      sign.setAttribute("aria-hidden", "true");
      item.append(sign, words);
      return item;
    });
    const zone = document.createElement("li");
    zone.className = "graph-zone";
    zone.textContent = `times: ${this._clock.zone}`;
    this._legend.replaceChildren(...items, zone);
  }

  /** Reading with the keyboard: one step is a hundredth of the width. */
  _step(to) {
    const plot = this._plot;
    if (plot === null) return;
    const width = plot.over.clientWidth;
    const last = Math.max(plot.valToPos(this._picture.until, "x") - 1, 0);
    const at = plot.cursor.left >= 0 ? plot.cursor.left : last;
    const left = { first: 0, last }[to] ?? at + (to * width) / 100;
    plot.setCursor({ left: Math.min(Math.max(left, 0), width - 1), top: 1 });
  }

  // -- the page ---------------------------------------------------------------------

  _build() {
    const { dataset } = this._element;
    this._headline = made("p", "graph-headline");
    this._failure = made("p", "graph-failure");
    this._failure.setAttribute("role", "status");
    this._failure.hidden = true;
    this._holder = made("div", "graph-plot");
    this._holder.tabIndex = 0;
    this._holder.setAttribute("role", "application");
    this._holder.setAttribute("aria-label", `Graph of ${dataset.label}`);
    this._readout = made("p", "graph-readout");
    this._readout.setAttribute("aria-live", "polite");
    this._legend = made("ul", "graph-legend");
    const parts = [this._headline, this._failure, this._holder, this._readout, this._legend];
    this._element.append(...parts, help());
    const act = (name) => this._act(name);
    this._controls = new Controls(this._element.querySelector(".graph-ranges"), {
      act,
      choose: (seconds) => this._go(Span.last(seconds, this._now)),
    });
    this._controls.mark(this._span);
    listenToKeys(this._holder, { act, read: (to) => this._step(to) });
    this._marks = new Marks(this._clock, (text) => {
      this._isOnMark = text !== null;
      this._tell(text);
    });
  }

  _watch() {
    this._theme.watch(() => this._plot?.redraw());
    new ResizeObserver(() => this._resize()).observe(this._holder);
    document.addEventListener("visibilitychange", () => {
      if (document.hidden || !this._isDue) return;
      this._isDue = false;
      this._ask(true);
    });
  }

  _resize() {
    const { clientWidth: width } = this._holder;
    if (this._plot === null || width === 0 || width === this._plot.width) return;
    this._plot.setSize({ width, height: this._plot.height });
    this._placeMarks();
    // As its scales, its size.  Columns of a graph that is nearly as wide as before will do.
    queueMicrotask(() => {
      if (Math.abs(this._width - this._shown) > this._shown / 10) this._ask(false);
    });
  }
}

function made(tag, name) {
  const element = document.createElement(tag);
  element.className = name;
  return element;
}

const theme = new Theme();
for (const element of document.querySelectorAll(".graph[data-graph]")) new Graph(element, theme);
