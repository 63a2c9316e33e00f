// Which span of time is shown: what zooming and moving make of it, how a URL says it.

const SHORTEST = 60;
const LONGEST = 100 * 366 * 86400;
const UNITS = [
  [604800, "w"],
  [86400, "d"],
  [3600, "h"],
  [60, "m"],
];

/** Seconds as the server reads them: 604800 is 1w. */
function spelled(seconds) {
  const [size, name] = UNITS.find(([unit]) => seconds % unit === 0) ?? [1, "s"];
  return `${seconds / size}${name}`;
}

/** [start, end) in epoch seconds; a live one ends now, whenever that is. */
export class Span {
  constructor(start, end, isLive) {
    this.start = start;
    this.end = end;
    this.isLive = isLive;
    Object.freeze(this);
  }

  /** The last so many seconds. */
  static last(seconds, now) {
    const length = Math.round(Math.min(Math.max(seconds, SHORTEST), LONGEST));
    return new Span(Math.max(0, now - length), now, true);
  }

  /** Any two times, in either order; what ends now or later is live. */
  static between(one, other, now) {
    const length = Math.min(Math.max(Math.abs(other - one), SHORTEST), LONGEST);
    const middle = (one + other) / 2;
    const end = Math.round(middle + length / 2);
    const start = Math.max(0, Math.round(middle - length / 2));
    return end >= now ? Span.last(length, now) : new Span(start, Math.max(end, SHORTEST), false);
  }

  get seconds() {
    return this.end - this.start;
  }

  /** `factor` times as long, about `at`; a live one keeps its end. */
  zoomed(factor, now, at = this.isLive ? this.end : (this.start + this.end) / 2) {
    return Span.between(
      at - (at - this.start) * factor,
      at + (this.end - at) * factor,
      now,
    );
  }

  /** Moved by so many of its lengths; never into the future. */
  moved(lengths, now) {
    const by = this.seconds * lengths;
    return Span.between(this.start + by, this.end + by, now);
  }

  /** A live one as of `now`. */
  at(now) {
    return this.isLive ? Span.last(this.seconds, now) : this;
  }

  /** What the server is asked for. */
  get query() {
    return this.isLive
      ? { from: `-${spelled(this.seconds)}`, to: "now" }
      : { from: String(this.start), to: String(this.end) };
  }

  /** Put into the page's own address, so that it can be sent to somebody. */
  keep(parameters) {
    const { from, to } = this.query;
    parameters.set("from", from);
    if (this.isLive) parameters.delete("to");
    else parameters.set("to", to);
  }
}
