// Numbers and durations as people read them.

const PLAIN = new Intl.NumberFormat("en-US", { maximumSignificantDigits: 7 });
const WHOLE = new Intl.NumberFormat("en-US", { maximumFractionDigits: 0 });
const SHORT = new Intl.NumberFormat("en-US", { maximumSignificantDigits: 4, notation: "compact" });
// Of what came from a packet nothing may turn the text around it, or break its line.
const BREAKS = /[\t\n\v\f\r\p{Zl}\p{Zp}]+/gu;
const ODD = /[\p{Cc}\p{Cf}\p{Cs}\p{Co}]/gu;

/** A value, with its unit if it has one. */
export function number(value, unit = "") {
  const size = Math.abs(value);
  const text =
    size !== 0 && (size >= 1e15 || size < 1e-4) ? value.toPrecision(6) : PLAIN.format(value);
  return unit ? `${text} ${plain(unit)}` : text;
}

export function whole(value) {
  return WHOLE.format(value);
}

/** For the axis: as short as may be. */
export function short(value) {
  const size = Math.abs(value);
  if (size >= 1e15 || (size !== 0 && size < 1e-4)) return value.toExponential(2);
  return size >= 1e5 ? SHORT.format(value) : PLAIN.format(value);
}

/** A part (0 to 1) in percent, rounded down: "100 %" is said of all, not of nearly all. */
export function percent(part) {
  const tenths = Math.floor(part * 1000 + 1e-9);
  if (tenths === 0 && part > 0) return "less than 0.1 %";
  return `${tenths % 10 === 0 && tenths === 1000 ? "100" : (tenths / 10).toFixed(1)} %`;
}

/** `3 min`, `2 h 5 min`: the two largest units. */
export function duration(seconds) {
  const units = [
    [86400, "d"],
    [3600, "h"],
    [60, "min"],
    [1, "s"],
  ];
  let left = Math.round(seconds);
  const found = [];
  for (const [size, name] of units) {
    const count = Math.floor(left / size);
    if (count > 0) found.push(`${count} ${name}`);
    else if (found.length > 0) break;
    left -= count * size;
    if (found.length === 2) break;
  }
  return found.length > 0 ? found.join(" ") : "0 s";
}

/** One change, two changes. */
export function counted(count, one, many) {
  return `${whole(count)} ${count === 1 ? one : many}`;
}

/** A text from a packet in one line, every character of it seen: those that are not by number. */
export function plain(text) {
  return text.replace(BREAKS, " ").replace(ODD, (each) => {
    const code = each.codePointAt(0).toString(16);
    return `\\u${code.padStart(4, "0")}`;
  });
}
