// Has MiniWoB++'s pages pose one episode that nothing ends, and tells what is seen and can be touched.
// Runs before a page's own scripts; all in pixels of the page, whose uppermost 50 are its instruction.
(() => {
  const TOP = 50, SIDE = 160, SCALE = 2;  // of what is seen, and how often that goes into 320
  const NOT_SEEN = ['query', 'click-canvas', 'reward-display', 'sync-task-cover'];
  const STYLE = 'body { overflow: hidden } * { caret-color: transparent !important }' +
    '#click-canvas, #reward-display { display: none }';  // these show beside the task what was clicked
  const NATIVE = 'a, button, input, textarea, option, label';
  const PRESSED = ['mousedown', 'touchstart', 'pointerdown'];

  const heard = new WeakMap();  // what elements listen to
  const listen = EventTarget.prototype.addEventListener;
  EventTarget.prototype.addEventListener = function (type, ...given) {
    if (this instanceof Node) heard.set(this, (heard.get(this) || new Set()).add(type));
    return listen.call(this, type, ...given);
  };
  const hears = (element, types) => types.some((type) => heard.get(element)?.has(type));

  const seen = () => {  // elements that are drawn, in the document's order
    const found = [];
    const visit = (element) => {
      if (NOT_SEEN.includes(element.id) || element.matches('script, style')) return;
      if (getComputedStyle(element).display === 'none') return;
      found.push(element);
      for (const child of element.children) visit(child);
    };
    visit(document.body);
    return found;
  };
  const ownText = (element) => [...element.childNodes]
    .filter((node) => node.nodeType === Node.TEXT_NODE).map((node) => node.data.trim()).join(' ');
  const words = (element) => {
    const style = getComputedStyle(element);
    const colors = [style.color, style.backgroundColor, style.borderTopColor, style.fill, style.stroke];
    const {value, checked, selected} = element;
    return [element.tagName, ownText(element), style.visibility, style.opacity, ...colors,
      typeof value === 'object' ? '' : value, checked, selected, element.matches(':focus-visible')].join('|');
  };
  const places = (element) => {
    const {left, top, width, height} = element.getBoundingClientRect();
    return [left, top, width, height, element.scrollLeft, element.scrollTop];
  };
  const selection = () => {
    const chosen = getSelection();
    const range = chosen.rangeCount && !chosen.isCollapsed ? chosen.getRangeAt(0) : null;
    const boxes = range ? [...range.getClientRects()] : [];
    return [boxes[0]?.left || 0, boxes[0]?.top || 0, boxes.at(-1)?.right || 0, boxes.at(-1)?.bottom || 0];
  };

  const boxOf = (element) => {  // what of it lies within what is seen: left, top, width, height
    const box = element.getBoundingClientRect();
    const left = Math.max(box.left, 0), top = Math.max(box.top, TOP);
    return [left, top, Math.min(box.right, SIDE) - left, Math.min(box.bottom, TOP + SIDE) - top];
  };
  const uncovered = (element, [left, top, width, height]) => {
    if (width < 3 || height < 3 || getComputedStyle(element).visibility !== 'visible') return false;
    const hit = document.elementFromPoint(left + width / 2, top + height / 2);
    return hit !== null && (element.contains(hit) || hit.contains(element));
  };
  const uses = (element, box) => {  // what gestures an element may obey
    const cursor = getComputedStyle(element).cursor, parent = element.parentElement;
    const found = [];
    if (box[2] * box[3] > 0.3 * SIDE * SIDE) {
      if (hears(element, ['click', ...PRESSED])) found.push('area');
    } else {
      if (element.matches(NATIVE) || hears(element, ['click', 'focus', 'mouseup'])
        || cursor === 'pointer') found.push('tap');
      if (hears(element, PRESSED) || hears(parent, PRESSED) || /resize|move|grab/.test(cursor)) {
        found.push('drag');
      }
    }
    if (element.scrollHeight > element.clientHeight + 4 && element.clientHeight > 20
      && getComputedStyle(element).overflowY !== 'visible') found.push('scroll');
    return found;
  };

  window.miniwob = {
    reward: null,  // of the first touch that would have ended the episode
    start(seed) {
      document.head.appendChild(document.createElement('style')).textContent = STYLE;
      core.endEpisode = (reward) => { this.reward ??= reward; };
      Math.seedrandom(String(seed));
      core.startEpisodeReal();
      clearTimeout(core.EP_TIMER);
      core.clearTimer();
    },
    // What is seen, each element by what it looks like and by where it is.
    state() {
      const elements = seen();
      return [elements.map(words).join('\n'), [...elements.flatMap(places), ...selection()]];
    },
    // [use, left, top, width, height], in 320ths of what is seen.
    targets(mouse) {
      const found = hears(document, PRESSED) ? [['area', 0, 0, SCALE * SIDE, SCALE * SIDE]] : [];
      for (const element of seen()) {
        const [left, top, width, height] = boxOf(element);
        if (element === document.body || !uncovered(element, [left, top, width, height])) continue;
        const scaled = [left, top - TOP, width, height].map((each) => SCALE * each);
        const able = uses(element, [left, top, width, height]);
        if (mouse && !able.length && ownText(element)) able.push('text');
        for (const use of able) found.push([use, ...scaled]);
      }
      return found;
    },
  };
})();
