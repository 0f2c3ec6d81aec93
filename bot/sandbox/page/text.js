// Slack's two ways to write formatted text, mrkdwn and Markdown, as DOM nodes.

import { h } from './dom.js';

const EMOJI = {
  '+1': '👍', thumbsup: '👍', '-1': '👎', thumbsdown: '👎', white_check_mark: '✅', x: '❌', eyes: '👀', tada: '🎉',
  heart: '❤️', fire: '🔥', sparkles: '✨', warning: '⚠️', rocket: '🚀', pencil2: '✏️', memo: '📝', bulb: '💡',
  chart_with_upwards_trend: '📈', bar_chart: '📊', hourglass_flowing_sand: '⏳', wave: '👋', smile: '😄', star: '⭐',
  thinking_face: '🤔', point_right: '👉', lock: '🔒', raised_hands: '🙌', pray: '🙏', clap: '👏', rewind: '⏪',
  leftwards_arrow_with_hook: '↩️', arrows_counterclockwise: '🔄', trophy: '🏆', books: '📚', bell: '🔔', no_entry: '⛔',
  large_green_circle: '🟢', large_yellow_circle: '🟡', red_circle: '🔴', information_source: 'ℹ️', seedling: '🌱',
};
let names = { users: {}, channels: {} };

export function know(users, channels) {
  names = { users, channels };
}

export function emoji(name) {
  return EMOJI[name] ?? `:${name}:`;
}

function unescape(text) {
  return text.replaceAll('&lt;', '<').replaceAll('&gt;', '>').replaceAll('&amp;', '&');
}

function link(address, label) {
  if (!/^(https?:|mailto:)/i.test(address)) return label;
  return h('a', { href: address, target: '_blank', rel: 'noopener noreferrer' }, label);
}

function withEmoji(text) {
  return text.replace(/:([a-z0-9_+-]+):/g, (whole, name) => EMOJI[name] ?? whole);
}

// mrkdwn -------------------------------------------------------------------------------------------------------

const EDGE = '[\\s.,:;!?()\'"，。！？、：；（）“”]';
const MRKDWN = [
  [/```\n?([\s\S]+?)\n?```/, (m) => h('pre', {}, h('code', {}, unescape(m[1])))],
  [/`([^`\n]+)`/, (m) => h('code', {}, unescape(m[1]))],
  [/<@(\w+)(?:\|[^>]*)?>/, (m) => h('span', { class: 'mention' }, '@' + (names.users[m[1]] ?? m[1]))],
  [/<#(\w+)(?:\|([^>]*))?>/, (m) => h('span', { class: 'mention' }, '#' + (names.channels[m[1]] ?? m[2] ?? m[1]))],
  [/<!(channel|here|everyone)(?:\|[^>]*)?>/, (m) => h('span', { class: 'mention loud' }, '@' + m[1])],
  [/<!date\^\d+\^[^|>]*\|([^>]*)>/, (m) => unescape(m[1])],
  [/<((?:https?|mailto):[^|>]+)(?:\|([^>]*))?>/, (m) => link(unescape(m[1]), unescape(m[2] ?? m[1]))],
  [new RegExp(`(?<=^|${EDGE}|[*_~])\\*(?=\\S)([^*\\n]+?)\\*(?=$|${EDGE}|[*_~])`), (m) => h('b', {}, inline(m[1], MRKDWN))],
  [new RegExp(`(?<=^|${EDGE}|[*_~])_(?=\\S)([^_\\n]+?)_(?=$|${EDGE}|[*_~])`), (m) => h('i', {}, inline(m[1], MRKDWN))],
  [new RegExp(`(?<=^|${EDGE}|[*_~])~(?=\\S)([^~\\n]+?)~(?=$|${EDGE}|[*_~])`), (m) => h('s', {}, inline(m[1], MRKDWN))],
];

export function mrkdwn(text) {
  const nodes = [];
  let quote = null;
  for (const line of text.split(/(```[\s\S]*?```)|\n/).filter((part) => part !== undefined)) {
    if (line.startsWith('&gt;')) {
      if (!quote) nodes.push((quote = h('blockquote')));
      else quote.append(h('br'));
      quote.append(...inline(line.replace(/^&gt;\s?/, ''), MRKDWN));
      continue;
    }
    if (nodes.length && !quote) nodes.push(h('br'));
    quote = null;
    nodes.push(...inline(line, MRKDWN));
  }
  return nodes;
}

export function textObject(object) {
  if (!object) return [];
  return object.type === 'mrkdwn' ? mrkdwn(object.text) : [withEmoji(object.text)];
}

// Each rule takes the earliest match in what is left; the rest goes on to the next.
function inline(text, rules) {
  const nodes = [];
  while (text) {
    let first = null;
    for (const [pattern, make] of rules) {
      const match = pattern.exec(text);
      if (match && (!first || match.index < first.match.index)) first = { match, make };
    }
    if (!first) {
      nodes.push(plain(text));
      break;
    }
    if (first.match.index) nodes.push(plain(text.slice(0, first.match.index)));
    nodes.push(first.make(first.match));
    text = text.slice(first.match.index + first.match[0].length);
  }
  return nodes;
}

function plain(text) {
  return withEmoji(unescape(text));
}

// Markdown -----------------------------------------------------------------------------------------------------

const MARKDOWN = [
  [/`([^`\n]+)`/, (m) => h('code', {}, m[1])],
  [/\[([^\]\n]+)\]\(([^)\s]+)\)/, (m) => link(m[2], m[1])],
  [/\*\*(?=\S)([\s\S]+?)\*\*/, (m) => h('b', {}, inline(m[1], MARKDOWN))],
  [/(?<![*\w])\*(?=\S)([^*\n]+?)\*(?!\*)/, (m) => h('i', {}, inline(m[1], MARKDOWN))],
  [/(?<!\w)_(?=\S)([^_\n]+?)_(?!\w)/, (m) => h('i', {}, inline(m[1], MARKDOWN))],
  [/~~([^~\n]+)~~/, (m) => h('s', {}, inline(m[1], MARKDOWN))],
  [/\\([\\`*_{}[\]()#+\-.!~>|/=])/, (m) => m[1]],
  [/<@(\w+)>/, (m) => h('span', { class: 'mention' }, '@' + (names.users[m[1]] ?? m[1]))],
];

export function markdown(text) {
  const nodes = [];
  const lines = text.split('\n');
  for (let i = 0; i < lines.length; ) {
    const line = lines[i];
    const take = (pattern) => {
      const taken = [];
      while (i < lines.length && pattern.test(lines[i])) taken.push(lines[i++].replace(pattern, ''));
      return taken;
    };
    if (/^\s*$/.test(line)) i += 1;
    else if (/^```/.test(line)) {
      const end = lines.findIndex((other, at) => at > i && /^```/.test(other));
      const stop = end < 0 ? lines.length : end;
      nodes.push(h('pre', {}, h('code', {}, lines.slice(i + 1, stop).join('\n'))));
      i = stop + 1;
    } else if (/^#{1,6}\s/.test(line)) {
      nodes.push(h('p', { class: 'heading' }, inline(line.replace(/^#+\s+/, ''), MARKDOWN)));
      i += 1;
    } else if (/^(---+|\*\*\*+)\s*$/.test(line)) {
      nodes.push(h('hr'));
      i += 1;
    } else if (/^>\s?/.test(line)) nodes.push(h('blockquote', {}, markdown(take(/^>\s?/).join('\n'))));
    else if (/^\s*[-*•]\s+/.test(line)) {
      nodes.push(h('ul', {}, take(/^\s*[-*•]\s+/).map((item) => h('li', {}, inline(item, MARKDOWN)))));
    } else if (/^\s*\d+[.)]\s+/.test(line)) {
      nodes.push(h('ol', {}, take(/^\s*\d+[.)]\s+/).map((item) => h('li', {}, inline(item, MARKDOWN)))));
    } else if (/^\|.*\|\s*$/.test(line)) nodes.push(pipeTable(take(/^(?=\|)/)));
    else {
      const paragraph = [];
      while (i < lines.length && !/^\s*$|^```|^#{1,6}\s|^>|^\s*[-*•]\s|^\s*\d+[.)]\s|^\|/.test(lines[i])) {
        if (paragraph.length) paragraph.push(h('br'));
        paragraph.push(...inline(lines[i++], MARKDOWN));
      }
      if (!paragraph.length) paragraph.push(...inline(lines[i++], MARKDOWN));
      nodes.push(h('p', {}, paragraph));
    }
  }
  return nodes;
}

function pipeTable(lines) {
  const rows = lines
    .filter((line) => !/^\|[\s:|-]+\|\s*$/.test(line))
    .map((line) => line.trim().replace(/^\||\|$/g, '').split('|').map((cell) => cell.trim()));
  return h('div', { class: 'table' }, h('table', {}, rows.map((row, number) =>
    h('tr', {}, row.map((cell) => h(number ? 'td' : 'th', {}, inline(cell, MARKDOWN)))))));
}
