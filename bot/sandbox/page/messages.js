// One message as people see it, in a channel or in a thread.

import { blocks } from './blocks.js';
import { h } from './dom.js';
import { emoji, mrkdwn } from './text.js';
import { language, t } from './words.js';

export function avatar(user) {
  if (!user || user.is_bot) return h('img', { src: '/page/mark.svg', alt: '', class: 'avatar' });
  const parts = user.real_name.split(' ');
  const initials = parts.length > 1 ? parts[0][0] + parts[1][0] : user.real_name[0];
  return h('span', { class: 'avatar', 'data-avatar': user.id, 'aria-hidden': 'true' }, initials);
}

function time(ts) {
  const when = new Date(Number(ts) * 1000);
  const shown = when.toLocaleTimeString(language === 'zh' ? 'zh-CN' : 'en-GB', { hour: '2-digit', minute: '2-digit' });
  return h('time', { datetime: when.toISOString(), title: when.toLocaleString() }, shown);
}

// `desk` is what main.js offers: person, users, shortcuts, press, react, shortcut, openThread, status, chosen.
export function message(one, desk, { inThread = false } = {}) {
  const author = desk.users[one.user];
  const isRoot = !one.thread_ts || one.thread_ts === one.ts;
  const status = !inThread && isRoot ? desk.status(one.channel, one.ts) : '';
  const context = {
    viewId: one.ts,
    press: (blockId, actionId, value, remember) => desk.press(one, blockId, actionId, value, remember),
    chosen: (actionId) => desk.chosen(one.ts, actionId),
  };
  const shown = one.blocks.filter((block) => block.type !== 'rich_text' || author?.is_bot);
  return h('article', {
    class: `message ${one.streaming ? 'streaming' : ''} ${one.ephemeral ? 'ephemeral' : ''}`,
    'data-ts': one.ts, 'data-user': one.user, 'data-streaming': String(Boolean(one.streaming)), tabindex: -1,
    'aria-busy': one.streaming ? 'true' : undefined,
  },
    avatar(author),
    h('div', { class: 'body' },
      one.ephemeral && h('p', { class: 'only-you' }, '👁 ', t('onlyYou')),
      h('div', { class: 'by' }, h('b', {}, author?.real_name ?? one.user), author?.is_bot && h('span', { class: 'badge' }, t('app')),
        time(one.ts), one.edited && h('span', { class: 'faint' }, t('edited'))),
      one.tasks.map((task) => h('p', { class: `task ${task.status}` }, task.title, task.details && h('small', {}, ' ', task.details))),
      shown.length ? h('div', { class: 'blocks' }, blocks(shown, context)) : one.text && h('div', { class: 'text' }, mrkdwn(one.text)),
      one.streaming && h('p', { class: 'writing' }, h('i'), h('i'), h('i'), h('span', {}, t('writing'))),
      (one.files ?? []).map(file),
      reactions(one, desk),
      !inThread && isRoot && one.reply_count && h('button', {
        type: 'button', class: 'replies', 'data-open-thread': one.ts, onclick: () => desk.openThread(one.channel, one.ts),
      }, (one.reply_users ?? []).slice(0, 3).map((id) => avatar(desk.users[id])), t('replies', one.reply_count)),
      status && h('p', { class: 'writing' }, h('i'), h('i'), h('i'), h('span', {}, `Copydesk ${status}`))),
    !one.ephemeral && tools(one, desk, inThread));
}

function file(one) {
  const address = `/files/${one.id}`;
  const picture = one.mimetype.startsWith('image/');
  return h('figure', { class: 'picture', 'data-file': one.id },
    h('figcaption', {}, h('a', { href: address, target: '_blank', rel: 'noopener' }, one.title)),
    picture && h('img', { src: address, alt: one.alt_txt || one.title, loading: 'lazy' }));
}

function reactions(one, desk) {
  if (!one.reactions?.length) return null;
  return h('div', { class: 'reactions' }, one.reactions.map(({ name, users, count }) => {
    const mine = users.includes(desk.person);
    return h('button', {
      type: 'button', class: 'reaction', 'aria-pressed': String(mine), 'data-reaction': name,
      title: users.map((id) => desk.users[id]?.real_name ?? id).join(', '),
      'aria-label': `${emoji(name)} ${count}`, onclick: () => desk.react(one, name, !mine),
    }, emoji(name), ' ', String(count));
  }));
}

function tools(one, desk, inThread) {
  const react = (name) => h('button', {
    type: 'button', class: 'icon', 'data-react': name, 'aria-label': t('react', emoji(name)), title: t('react', emoji(name)),
    onclick: () => desk.react(one, name, !one.reactions?.some((each) => each.name === name && each.users.includes(desk.person))),
  }, emoji(name));
  const menu = h('details', { class: 'menu' },
    h('summary', { class: 'icon', 'aria-label': t('more'), title: t('more'), 'data-menu': one.ts }, '⋯'),
    h('div', { class: 'menu-items', role: 'menu' }, desk.shortcuts.map((each) => h('button', {
      type: 'button', role: 'menuitem', 'data-shortcut': each.callback_id,
      onclick: () => { menu.open = false; desk.shortcut(one, each.callback_id); },
    }, each.name))));
  return h('div', { class: 'tools' }, react('+1'), react('-1'),
    !inThread && h('button', {
      type: 'button', class: 'icon', 'aria-label': t('reply'), title: t('reply'), 'data-reply': one.ts,
      onclick: () => desk.openThread(one.channel, one.ts, true),
    }, '💬'), menu);
}
