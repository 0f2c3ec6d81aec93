// data_visualization blocks as plain SVG.

import { h, svg } from './dom.js';

const COLOURS = ['#0f766e', '#d97706', '#4f46e5', '#be185d', '#65a30d', '#64748b'];
const WIDTH = 560;
const HEIGHT = 240;
const LEFT = 44;
const BOTTOM = 40;
const TOP = 14;

export function chart(block) {
  const { chart: data, title } = block;
  const drawing = data.type === 'pie' ? pie(data.segments) : axes(data);
  const legend = (data.type === 'pie' ? data.segments.map((s) => `${s.label}: ${number(s.value)}`) : data.series.map((s) => s.name))
    .map((name, i) => h('li', {}, svg('svg', { viewBox: '0 0 10 10', class: 'swatch', 'aria-hidden': 'true' },
      svg('rect', { width: 10, height: 10, rx: 2, fill: COLOURS[i % 6] })), name));
  return h('figure', { class: 'chart', 'data-chart': data.type },
    h('figcaption', {}, title), h('div', { class: 'drawing', tabindex: 0 }, drawing), h('ul', { class: 'legend' }, legend));
}

function number(value) {
  return Number(value.toFixed(2)).toString();
}

// A round step, so that the grid's labels are round too.
function scale(values) {
  const low = Math.min(0, ...values);
  const high = Math.max(...values, low + 1e-9);
  const rough = (high - low) / 4;
  const size = 10 ** Math.floor(Math.log10(rough));
  const step = [1, 2, 2.5, 5, 10].map((times) => times * size).find((candidate) => candidate >= rough);
  const ticks = [];
  for (let tick = Math.floor(low / step) * step; ; tick += step) {
    ticks.push(tick);
    if (tick >= high - step * 1e-6) break;
  }
  return ticks;
}

function axes({ type, series, axis_config: axis }) {
  const ticks = scale(series.flatMap((one) => one.data.map((point) => point.value)));
  const [low, high] = [ticks[0], ticks[ticks.length - 1]];
  const y = (value) => TOP + (HEIGHT - TOP - BOTTOM) * (1 - (value - low) / (high - low));
  const slot = (WIDTH - LEFT - 8) / axis.categories.length;
  const x = (index) => LEFT + slot * (index + 0.5);
  const parts = ticks.map((tick) => [
    svg('line', { x1: LEFT, x2: WIDTH - 8, y1: y(tick), y2: y(tick), class: 'grid' }),
    svg('text', { x: LEFT - 6, y: y(tick) + 4, class: 'tick end' }, number(tick)),
  ]);
  const most = Math.max(4, Math.floor(slot / 6.5));
  axis.categories.forEach((name, i) => {
    const short = name.length > most ? name.slice(0, most - 1) + '…' : name;
    parts.push(svg('text', { x: x(i), y: HEIGHT - BOTTOM + 16, class: 'tick middle' }, short, svg('title', {}, name)));
  });
  if (axis.x_label) parts.push(svg('text', { x: (LEFT + WIDTH) / 2, y: HEIGHT - 6, class: 'tick middle' }, axis.x_label));
  series.forEach((one, s) => {
    const colour = COLOURS[s % 6];
    const label = (point) => svg('title', {}, `${one.name}, ${point.label}: ${number(point.value)}`);
    if (type === 'bar') {
      const width = Math.min(34, (slot * 0.76) / series.length);
      one.data.forEach((point, i) => {
        const left = x(i) + (s - series.length / 2) * width;
        const [from, to] = [y(Math.max(0, point.value)), y(Math.min(0, point.value))];
        parts.push(svg('rect', { x: left + 1, y: from, width: width - 2, height: Math.max(1, to - from), rx: 2, fill: colour }, label(point)));
        if (width > 22) parts.push(svg('text', { x: left + width / 2, y: from - 4, class: 'tick middle value' }, number(point.value)));
      });
      return;
    }
    const points = one.data.map((point, i) => `${x(i)},${y(point.value)}`).join(' ');
    if (type === 'area') {
      const floor = y(Math.max(0, low));
      parts.push(svg('polygon', { points: `${x(0)},${floor} ${points} ${x(one.data.length - 1)},${floor}`, fill: colour, opacity: 0.2 }));
    }
    parts.push(svg('polyline', { points, fill: 'none', stroke: colour, 'stroke-width': 2.5, 'stroke-linejoin': 'round' }));
    one.data.forEach((point, i) => parts.push(svg('circle', { cx: x(i), cy: y(point.value), r: 3.5, fill: colour }, label(point))));
  });
  return svg('svg', { viewBox: `0 0 ${WIDTH} ${HEIGHT}`, role: 'img', 'aria-label': axis.y_label ?? '' }, parts.flat());
}

function pie(segments) {
  const total = segments.reduce((sum, one) => sum + one.value, 0) || 1;
  let turn = 0;
  const around = 2 * Math.PI * 50;
  const arcs = segments.map((one, i) => {
    const share = one.value / total;
    const arc = svg('circle', {
      cx: 100, cy: 80, r: 50, fill: 'none', stroke: COLOURS[i % 6], 'stroke-width': 36,
      'stroke-dasharray': `${share * around} ${around}`, 'stroke-dashoffset': -turn * around, transform: 'rotate(-90 100 80)',
    }, svg('title', {}, `${one.label}: ${number(one.value)}`));
    turn += share;
    return arc;
  });
  return svg('svg', { viewBox: '0 0 200 160', class: 'pie', role: 'img' }, arcs);
}
