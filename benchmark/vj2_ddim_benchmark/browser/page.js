// Widgets of the kit: built from a specification, put into a state, read from the DOM.
const app = new Framework7({
  el: '#app', theme: new URLSearchParams(location.search).get('theme'),
  touch: {tapHold: true, tapHoldDelay: 240}, swipeout: {removeElements: false},
});
app.views.create('.view-main', {browserHistory: false});
document.addEventListener('contextmenu', (event) => event.preventDefault());

const ORDERS = ['012', '021', '102', '120', '201', '210'];
const SHEET = 3;  // states of an action sheet that is closed; the same follow for the open one
const levels = (root, spec, change) =>
  ({el: root.firstChild, min: 0, max: 5, step: 1, value: 0, on: {change}});
const MODAL = '.actions-modal.modal-in';

const all = (root, selector) => [...root.querySelectorAll(selector)];
const input = (root) => root.querySelector('input');
const box = (element, inset = 0) => {
  const {x, y, width, height} = element.getBoundingClientRect();
  return [x + inset, y, width - 2 * inset, height];
};
const boxes = (selector) => (root) => all(root, selector).map((each) => box(each));
const wide = (inside) => `<div class="wide">${inside}</div>`;
const list = (rows, kind = '') =>
  `<div class="list list-strong ${kind}"><ul>${rows.join('')}</ul></div>`;
const inner = (words, after = '') =>
  `<div class="item-inner"><div class="item-title">${words}</div>
   <div class="item-after">${after}</div></div>`;
const row = (words, after) => `<div class="item-content">${inner(words, after)}</div>`;
const ACTIVE = 'button-active';
const option = (kind, words, name = '') =>
  `<li><label class="item-${kind} item-${kind}-icon-start item-content">
   <input type="${kind}" name="${name}"><i class="icon icon-${kind}"></i>${inner(words)}</label></li>`;
const none = () => undefined;
const listen = (root, spec, changed) => { root.addEventListener('change', changed); };
const ticked = {  // one box to tick
  make: listen,
  show(root, value) { input(root).checked = Boolean(value); },
  read: (root) => Number(input(root).checked),
};

// Each kind: its HTML; `make` gives it life and may return its part of the kit; `show` puts it into
// a state; `read` says what that is; `targets` are the boxes to touch.
const KINDS = {
  toggle: {
    ...ticked,
    html: (spec) => list([`<li>${row(spec.label, `<label class="toggle">
      <input type="checkbox"><span class="toggle-icon"></span></label>`)}</li>`]),
    make(root, spec, changed) {
      listen(root, spec, changed);
      return app.toggle.create({el: root.querySelector('.toggle')});
    },
    targets: boxes('.toggle'),
  },
  checkbox: {
    ...ticked,
    html: (spec) => list([option('checkbox', spec.label)]),
    targets: boxes('label'),
  },
  radio: {
    html: (spec, index) => list(spec.options.map((words) => option('radio', words, `radio-${index}`))),
    make: listen,
    show(root, value) { all(root, 'input')[value].checked = true; },
    read: (root) => all(root, 'input').findIndex((each) => each.checked),
    targets: boxes('label'),
  },
  segment: {
    html: (spec) => wide(`<p class="segmented segmented-strong">${
      spec.options.map((words) => `<button class="button">${words}</button>`).join('')
    }<span class="segmented-highlight"></span></p>`),
    make(root, spec, changed) {
      all(root, 'button').forEach((each, index) => each.addEventListener('click', () => {
        this.show(root, index);
        changed();
      }));
    },
    show(root, value) {
      all(root, 'button').forEach((each, index) => each.classList.toggle(ACTIVE, index === value));
    },
    read: (root) => all(root, 'button').findIndex((each) => each.classList.contains(ACTIVE)),
    targets: boxes('button'),
  },
  range: {
    html: () => wide('<div class="range-slider"></div>'),
    make: (...given) => app.range.create(levels(...given)),
    show(root, value, part) { part.setValue(value); },
    read: (root, part) => part.value,
    targets: (root, part) => [box(part.el, part.knobWidth / 2)],
  },
  stepper: {
    html: () => wide(`<div class="stepper stepper-fill"><div class="stepper-button-minus"></div>
      <div class="stepper-input-wrap"><input type="text" value="0" readonly></div>
      <div class="stepper-button-plus"></div></div>`),
    make: (...given) => app.stepper.create(levels(...given)),
    show(root, value, part) { part.setValue(value); },
    read: (root) => Number(input(root).value),
    targets: boxes('.stepper-button-minus, .stepper-button-plus'),
  },
  swipeout: {
    html: (spec) => list([`<li class="swipeout"><div class="swipeout-content">${row(spec.label)}</div>
      <div class="swipeout-actions-left"><a class="color-green">${spec.options[0]}</a></div>
      <div class="swipeout-actions-right"><a class="color-red">${spec.options[1]}</a></div></li>`]),
    make: none,
    show(root, value) {
      if (value) app.swipeout.open(root.querySelector('.swipeout'), value === 1 ? 'left' : 'right');
    },
    read(root) {
      if (!root.querySelector('.swipeout-opened')) return 0;
      return root.querySelector('.swipeout-actions-left.swipeout-actions-opened') ? 1 : 2;
    },
    targets: boxes('.swipeout'),
  },
  accordion: {
    html: (spec) => list([`<li class="accordion-item"><a class="item-link">${row(spec.label)}</a>
      <div class="accordion-item-content"><div class="block">${spec.options.join(' ')}</div></div>
      </li>`], 'accordion-list'),
    make: none,
    show(root, value) { if (value) app.accordion.open(root.querySelector('.accordion-item')); },
    read: (root) => Number(Boolean(root.querySelector('.accordion-item-opened'))),
    targets: boxes('a'),
  },
  swiper: {
    html: (spec) => `<swiper-container init="false">${spec.options.map((words, index) =>
      `<swiper-slide style="background:hsl(${spec.hue + 70 * index},60%,75%)">${words}</swiper-slide>`
    ).join('')}</swiper-container>`,
    make(root, spec, changed) {
      Object.assign(root, {pagination: spec.bullets && {clickable: true}, speed: 250});
      root.addEventListener('swiperslidechange', changed);
      root.initialize();
      return root.swiper;
    },
    show(root, value, part) { part.slideTo(value, 0); },
    read: (root, part) => part.activeIndex,
    targets: (root, part) => [root, ...(part.pagination.bullets || [])].map((each) => box(each)),
  },
  actions: {
    html: () => wide('<button class="button button-fill"></button>'),
    make(root, {label, options}) {
      const choose = (chosen) => {
        root.dataset.chosen = chosen;
        root.firstChild.textContent = chosen ? `${label}: ${options[chosen - 1]}` : label;
      };
      const button = (chosen) => ({text: options[chosen - 1], onClick: () => choose(chosen)});
      const part = Object.assign(app.actions.create({buttons: [1, 2].map(button)}), {choose});
      root.firstChild.addEventListener('click', () => part.open());
      return part;
    },
    show(root, value, part) {
      part.choose(value % SHEET);
      if (value >= SHEET) part.open(false);
    },
    read: (root) => Number(root.dataset.chosen) + SHEET * Boolean(document.querySelector(MODAL)),
    targets: (root) => [box(root.firstChild), ...boxes(`${MODAL} .actions-button`)(document)],
  },
  sortable: {
    html: (spec) => list(spec.options.map((words, index) =>
      `<li data-index="${index}">${row(words)}<div class="sortable-handler"></div></li>`),
    'sortable sortable-enabled'),
    make: none,
    show(root, value) {
      const rows = [...ORDERS[value]].map((index) => root.querySelector(`[data-index="${index}"]`));
      root.firstChild.append(...rows);
    },
    read: (root) => ORDERS.indexOf(all(root, 'li').map((each) => each.dataset.index).join('')),
    targets: boxes('.sortable-handler'),
  },
  hold: {
    html: (spec) => wide(`<button class="button button-tonal">${spec.label}</button>`),
    make(root) {
      root.firstChild.addEventListener('taphold', () => this.show(root, !this.read(root)));
    },
    show(root, value) {
      root.firstChild.classList.toggle('button-fill', Boolean(value));
      root.firstChild.classList.toggle('button-tonal', !value);
    },
    read: (root) => Number(root.firstChild.classList.contains('button-fill')),
    targets: boxes('button'),
  },
};

const read = (each) => each.kind.read(each.root, each.part);
let widgets = [], building = false;
window.page = {
  clear() {  // what the kit would keep
    if (app.swipeout.el) app.swipeout.close(app.swipeout.el);
    widgets.forEach((each) => {
      if (each.part?.opened) each.part.close(false);
      each.part?.destroy?.();
    });
    all(document, '.actions-modal, .actions-backdrop').forEach((each) => each.remove());
    document.documentElement.classList.remove('with-modal-actions');
    widgets = [];
  },
  build(spec, state) {
    this.clear();
    building = true;
    document.documentElement.classList.toggle('dark', spec.dark);
    app.setColorTheme(spec.color);
    const content = document.querySelector('.page-content');
    content.style.setProperty('--gap', `${spec.gap}px`);
    content.style.padding = `${spec.top}px ${spec.side}px 0`;
    content.innerHTML = spec.widgets.map((each, index) => KINDS[each.kind].html(each, index)).join('');
    widgets = spec.widgets.map((each, index) => {
      const widget = {spec: each, kind: KINDS[each.kind], root: content.children[index]};
      widget.part = widget.kind.make(widget.root, each, () => this.follow(widget));
      return widget;
    });
    widgets.forEach((each, index) => each.kind.show(each.root, state[index], each.part));
    building = false;
  },
  follow(changed) {  // widgets of one value show what the touched one shows
    if (building) return;
    const value = read(changed);
    for (const each of widgets) {
      const alike = each.spec.value === changed.spec.value;
      if (alike && read(each) !== value) each.kind.show(each.root, value, each.part);
    }
  },
  state: () => widgets.map(read),
  targets: () => widgets.map((each) => each.kind.targets(each.root, each.part)),
};
