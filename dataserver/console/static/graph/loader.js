// Asking the server: one question at a time, the newest; asked again while the server is away.

const SETTLE = 150;
const PAUSES = [3, 5, 10, 20, 30, 60];

export class Loader {
  /** `on.data(record)`, `on.busy()`, `on.failure(message, seconds or null)`. */
  constructor(url, on) {
    this._url = url;
    this._on = on;
    this._timer = null;
    this._abort = null;
    this._failures = 0;
  }

  /** Ask for this, at once or when nothing else has been asked for a moment. */
  ask(query, isAtOnce = false) {
    this._stop();
    this._failures = 0;
    this._later(query, isAtOnce ? 0 : SETTLE);
  }

  _stop() {
    clearTimeout(this._timer);
    this._abort?.abort();
  }

  _later(query, milliseconds) {
    this._timer = setTimeout(() => this._fetch(query), milliseconds);
  }

  async _fetch(query) {
    const abort = new AbortController();
    this._abort = abort;
    this._on.busy();
    let answer;
    try {
      const url = `${this._url}?${new URLSearchParams(query)}`;
      answer = await this._answer(url, abort.signal);
    } catch {
      answer = { failure: "the console does not answer", isPassing: true };
    }
    if (abort.signal.aborted) return;
    if (answer.failure === undefined) {
      this._failures = 0;
      this._on.data(answer.record);
    } else if (answer.isPassing) {
      const pause = PAUSES[Math.min(this._failures, PAUSES.length - 1)];
      this._failures += 1;
      this._on.failure(answer.failure, pause);
      this._later(query, pause * 1000);
    } else {
      this._on.failure(answer.failure, null);
    }
  }

  async _answer(url, signal) {
    const response = await fetch(url, { signal, headers: { Accept: "application/json" } });
    if (response.ok) return { record: await response.json() };
    const failure = await response
      .json()
      .then((body) => String(body.error))
      .catch(() => `the console answered ${response.status}`);
    return { failure, isPassing: response.status >= 500 };
  }
}
