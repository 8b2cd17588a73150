// Time that stands still between frames: dates, timers, animation frames and chance of a page.
// Injected before anything else runs; `clock.advance(ms)` moves it once a frame.
(() => {
  const EPOCH = 1700000000000;
  const HEARTBEATS = 40;  // what has run so often runs for ever, and no rest waits for it
  const timers = new Map();
  const errors = [];
  let now = 0, lastId = 0, seed = 1, frames = [];

  const WallDate = Date;
  window.Date = class extends WallDate {
    constructor(...given) { super(...(given.length ? given : [EPOCH + now])); }
    static now() { return EPOCH + now; }
  };
  performance.now = () => now;
  Math.random = () => {  // a linear congruence, its high bits
    seed = (Math.imul(seed, 1664525) + 1013904223) >>> 0;
    return (seed >>> 5) / 2 ** 27;
  };

  const later = (call, delay, given, period) => {
    timers.set(++lastId, {due: now + Math.max(delay || 0, 0), call: () => call(...given), period, runs: 0});
    return lastId;
  };
  window.setTimeout = (call, delay, ...given) => later(call, +delay, given, 0);
  window.setInterval = (call, delay, ...given) => later(call, +delay, given, Math.max(+delay || 0, 1));
  window.clearTimeout = window.clearInterval = (id) => { timers.delete(id); };
  window.requestAnimationFrame = (call) => { frames.push({id: ++lastId, call}); return lastId; };
  window.cancelAnimationFrame = (id) => { frames = frames.filter((each) => each.id !== id); };
  const idle = {didTimeout: false, timeRemaining: () => 9};
  window.requestIdleCallback = (call) => setTimeout(call, 1, idle);
  window.cancelIdleCallback = window.clearTimeout;

  const guarded = (call, ...given) => {
    try { call(...given); } catch (error) { errors.push(String(error?.stack || error)); }
  };
  const failed = (event) => errors.push(event.message || 'a file that does not load');
  window.addEventListener('error', failed, true);
  window.addEventListener('unhandledrejection', (event) => errors.push(String(event.reason)));

  let roots = [document];  // where things move; a document does not tell of its shadows
  const attachShadow = Element.prototype.attachShadow;
  Element.prototype.attachShadow = function (how) {
    const root = attachShadow.call(this, how);
    roots.push(root);
    return root;
  };

  const next = (runs = Infinity) => {  // the timer that is due first, of two at once the older
    let first = null;
    for (const [id, timer] of timers) {
      if (timer.runs < runs && (!first || timer.due < first[1].due)) first = [id, timer];
    }
    return first;
  };
  window.clock = {
    seed(value) { seed = value >>> 0; },
    // Run what is due; says how many things move, when the next timer is due, and what went wrong.
    advance(time) {
      for (let first = next(); first && first[1].due <= time; first = next()) {
        const [id, timer] = first;
        now = Math.max(now, timer.due);
        timer.runs += 1;
        if (timer.period) timer.due += timer.period; else timers.delete(id);
        guarded(timer.call);
      }
      now = time;
      const called = frames;
      frames = [];
      for (const each of called) guarded(each.call, now);
      roots = roots.filter((each) => each === document || each.isConnected);
      const moving = roots.reduce((sum, each) => sum + each.getAnimations().length, frames.length);
      const due = next(HEARTBEATS)?.[1].due;
      return [moving, due === undefined ? 0 : Math.max(due - now, 0.1), errors.splice(0)];
    },
  };
})();
