// A step function looked up: what holds at a time.

/** The last of `items` that begins no later than `time`; undefined before the first. */
export function holding(items, time, begin) {
  let low = 0;
  let high = items.length;
  while (low < high) {
    const middle = (low + high) >> 1;
    if (begin(items[middle]) <= time) low = middle + 1;
    else high = middle;
  }
  return items[low - 1];
}

/** The span that `time` lies in, if any. */
export function within(spans, time) {
  const found = holding(spans, time, (span) => span.start);
  return found !== undefined && time < found.end ? found : undefined;
}
