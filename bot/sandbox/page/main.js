// The page: who you are, where you are, and everything that arrives while you watch.

import { act, follow, look } from './api.js';
import { blocks } from './blocks.js';
import { composer } from './composer.js';
import { h } from './dom.js';
import { avatar, message } from './messages.js';
import { showModals } from './modal.js';
import { know } from './text.js';
import { language, speak, t } from './words.js';

const $ = (id) => document.getElementById(id);
const query = new URLSearchParams(location.search);
const place = { person: query.get('person') ?? 'U_ANNA', room: query.get('room') ?? 'C_COPY', thread: query.get('thread') };
const state = { messages: new Map(), statuses: new Map(), prompts: new Map(), chosen: new Map(), unread: new Set(), asked: new Set() };
let source = null;
let chosenLanguage = null;

const desk = {
  get person() { return place.person; },
  users: {}, shortcuts: [],
  status: (channel, ts) => state.statuses.get(`${channel}/${ts}`) ?? '',
  chosen: (ts, actionId) => state.chosen.get(`${place.person}/${ts}/${actionId}`),
  openThread,
  async press(one, blockId, actionId, value, remember) {
    const done = await attempt('press', { channel: one.channel, ts: one.ts, action_id: actionId, block_id: blockId, value });
    if (done && remember) {
      state.chosen.set(`${place.person}/${one.ts}/${actionId}`, value);
      refresh(one.ts);
    }
  },
  react: (one, name, add) => attempt('react', { channel: one.channel, ts: one.ts, name, add }),
  shortcut: (one, callbackId) => attempt('shortcut', { channel: one.channel, ts: one.ts, callback_id: callbackId }),
};

function fail(error) {
  const text = error.code === 'operation_timeout' ? t('noAnswer') : t('failed') + error.message;
  const toast = h('p', { class: 'toast' }, text);
  $('toasts').append(toast);
  setTimeout(() => toast.remove(), 6000);
}

async function attempt(name, body) {
  try {
    return await act(name, { person: place.person, ...body });
  } catch (error) {
    fail(error);
    return null;
  }
}

// Arriving ------------------------------------------------------------------------------------------------------

async function enter(person) {
  source?.close();
  const seen = await look(person);
  place.person = person;
  desk.users = Object.fromEntries(seen.people.map((user) => [user.id, user]));
  desk.shortcuts = seen.shortcuts;
  state.channels = seen.channels;
  state.connections = seen.connections;
  state.home = seen.home;
  state.messages = new Map(seen.messages.map((one) => [`${one.channel}/${one.ts}`, one]));
  state.statuses = new Map(seen.statuses.map((one) => [`${one.channel}/${one.thread_ts}`, one.status]));
  state.prompts = new Map(seen.prompts.map((one) => [one.channel, one]));
  state.unread.clear();
  speak(chosenLanguage ?? (desk.users[person].locale.startsWith('zh') ? 'zh' : 'en'));
  know(Object.fromEntries(seen.people.map((user) => [user.id, user.real_name])), Object.fromEntries(seen.channels.map((one) => [one.id, one.name])));
  if (place.room !== 'home' && !seen.channels.some((one) => one.id === place.room)) {
    place.room = place.room.startsWith('D_') ? seen.channels.find((one) => one.is_im).id : 'C_COPY';
    place.thread = null;
  }
  drawAll();
  showModals(seen.modals, { person, fail });
  source = follow(person, seen.seq, change, connected);
}

function connected(up) {
  document.body.toggleAttribute('data-offline', !up);
  $('offline')?.toggleAttribute('hidden', up);
}

function change(news) {
  switch (news.kind) {
    case 'message': return arrived(news);
    case 'message_deleted':
      state.messages.delete(`${news.channel}/${news.ts}`);
      return drawRooms();
    case 'status': {
      const key = `${news.channel}/${news.thread_ts}`;
      if (news.status) state.statuses.set(key, news.status);
      else state.statuses.delete(key);
      clearTimeout(statusTimers.get(key));
      if (news.status) statusTimers.set(key, setTimeout(() => change({ ...news, status: '' }), news.seconds * 1000));
      drawStatus();
      return refresh(news.thread_ts);
    }
    case 'prompts':
      state.prompts.set(news.channel, news);
      return drawFoot();
    case 'modals': return showModals(news.views, { person: place.person, fail });
    case 'home':
      state.home = news;
      return place.room === 'home' && drawRoom();
    case 'connections':
      state.connections = news.count;
      return drawSide();
    case 'closing': return source.close();
  }
}
const statusTimers = new Map();

function arrived(one) {
  const key = `${one.channel}/${one.ts}`;
  const known = state.messages.has(key);
  state.messages.set(key, one);
  if (known) return refresh(one.ts);
  if (one.channel !== place.room) {
    if (one.user !== place.person) state.unread.add(one.channel);
    return drawSide();
  }
  // Asking @Copydesk opens the thread in which it answers; that is where the draft streams.
  if (!isReply(one) && one.user === place.person) state.asked.add(one.ts);
  if (isReply(one) && one.user === 'U_COPYDESK' && !place.thread && state.asked.delete(one.thread_ts)) return openThread(one.channel, one.thread_ts);
  const [list, inThread] = isReply(one) ? [$('thread-body'), true] : [$('room-body'), false];
  if (isReply(one) && one.thread_ts !== place.thread) return;
  keepAtEnd(list, () => {
    list.querySelector('.empty')?.remove();
    list.append(message(one, desk, { inThread }));
  });
  drawStatus();
}

function isReply(one) {
  return Boolean(one.thread_ts && one.thread_ts !== one.ts);
}

// Drawing -------------------------------------------------------------------------------------------------------

function remember() {
  const params = new URLSearchParams({ person: place.person, room: place.room });
  if (place.thread) params.set('thread', place.thread);
  history.replaceState(null, '', `?${params}`);
}

function drawAll() {
  remember();
  drawSide();
  drawRooms();
}

function drawRooms() {
  drawRoom();
  drawThread();
}

function drawSide() {
  const people = Object.values(desk.users).filter((user) => !user.is_bot);
  const go = (room, label, sign) => h('button', {
    type: 'button', class: `go ${state.unread.has(room) ? 'unread' : ''}`, 'data-channel': room,
    'aria-current': place.room === room ? 'page' : undefined, onclick: () => visit(room),
  }, h('span', { class: 'sign', 'aria-hidden': 'true' }, sign), label);
  const dm = state.channels.find((one) => one.is_im);
  const up = state.connections > 0;
  $('side').replaceChildren(
    h('div', { class: 'brand' }, h('img', { src: '/page/mark.svg', alt: '' }), h('b', {}, 'Copydesk'),
      h('button', { type: 'button', class: 'icon burger', 'aria-label': t('menu'), onclick: () => $('side').classList.toggle('open') }, '☰')),
    h('div', { class: 'side-part' },
      h('h2', {}, t('you')),
      h('div', { class: 'people', role: 'group', 'aria-label': t('you') }, people.map((user) => h('button', {
        type: 'button', class: 'person', 'data-person': user.id, 'aria-pressed': String(user.id === place.person),
        onclick: () => { chosenLanguage = null; place.thread = null; enter(user.id).catch(fail); },
      }, avatar(user), h('span', {}, h('b', {}, user.real_name), h('small', {}, t(user.role)))))),
      h('h2', {}, t('channels')),
      state.channels.filter((one) => !one.is_im).map((one) => go(one.id, one.name, '#')),
      h('h2', {}, t('dm')), go(dm.id, 'Copydesk', '●'),
      h('h2', {}, t('apps')), go('home', `Copydesk · ${t('home')}`, '⌂'),
      h('div', { class: 'side-foot' },
        h('p', { class: `link ${up ? 'up' : ''}`, 'data-connected': String(up) }, up ? t('connected') : t('disconnected')),
        h('div', { class: 'languages', role: 'group', 'aria-label': t('language') }, [['en', 'English'], ['zh', '中文']].map(([code, name]) => h('button', {
          type: 'button', 'data-language': code, 'aria-pressed': String(language === code),
          onclick: () => { chosenLanguage = code; speak(code); drawAll(); },
        }, name))))));
}

function roomName() {
  if (place.room === 'home') return `Copydesk · ${t('home')}`;
  const channel = state.channels.find((one) => one.id === place.room);
  return channel.is_im ? 'Copydesk' : `#${channel.name}`;
}

function inRoom() {
  return [...state.messages.values()].filter((one) => one.channel === place.room).sort((a, b) => Number(a.ts) - Number(b.ts));
}

function drawRoom() {
  document.title = `${roomName()} – ${t('workspace')}`;
  const topic = place.room === 'C_COPY' ? t('channelTopic') : '';
  $('room-head').replaceChildren(h('h1', {}, roomName()), h('span', { class: 'faint' }, topic),
    h('span', { id: 'offline', class: 'offline', hidden: !document.body.hasAttribute('data-offline') }, t('offline')));
  const body = $('room-body');
  body.setAttribute('aria-label', roomName());
  if (place.room === 'home') {
    const view = state.home;
    const context = view && {
      viewId: view.id,
      press: (blockId, actionId, value) => attempt('press', { view_id: view.id, action_id: actionId, block_id: blockId, value }),
    };
    body.replaceChildren(h('div', { class: 'home blocks', 'data-home': '' }, view ? blocks(view.blocks, context) : h('p', { class: 'empty' }, t('emptyHome'))));
  } else {
    const roots = inRoom().filter((one) => !isReply(one));
    const empty = h('p', { class: 'empty' }, place.room.startsWith('D_') ? t('emptyDm') : t('noMessages'));
    body.replaceChildren(...(roots.length ? roots.map((one) => message(one, desk)) : [empty]));
  }
  drawFoot();
  body.scrollTop = place.room === 'home' ? 0 : body.scrollHeight;
}

function drawFoot() {
  if (place.room === 'home') return $('room-foot').replaceChildren();
  const prompts = place.room.startsWith('D_') ? state.prompts.get(place.room) : null;
  const typed = $('room-foot').querySelector('textarea')?.value;
  $('room-foot').replaceChildren(
    ...(prompts ? [h('div', { class: 'prompts', role: 'group', 'aria-label': prompts.title },
      prompts.title && h('span', { class: 'faint' }, prompts.title),
      prompts.prompts.map((one) => h('button', { type: 'button', class: 'button', 'data-prompt': one.title, onclick: () => send(one.message) }, one.title)))] : []),
    composer({ label: t('composeIn', roomName()), name: 'room', onSend: (text) => send(text) }));
  if (typed) {
    $('room-foot').querySelector('textarea').value = typed;
    $('room-foot').querySelector('textarea').dispatchEvent(new Event('input'));
  }
}

function drawThread() {
  const root = place.thread && state.messages.get(`${place.room}/${place.thread}`);
  $('thread').hidden = !root;
  document.body.toggleAttribute('data-thread', Boolean(root));
  if (!root) return;
  $('thread').setAttribute('aria-label', t('thread'));
  $('thread-head').replaceChildren(h('h2', {}, t('thread')), h('span', { class: 'faint' }, roomName()),
    h('button', { type: 'button', class: 'icon', 'aria-label': t('close'), 'data-close-thread': '', onclick: () => { place.thread = null; remember(); drawThread(); } }, '✕'));
  const replies = inRoom().filter((one) => isReply(one) && one.thread_ts === place.thread);
  const body = $('thread-body');
  body.replaceChildren(message(root, desk, { inThread: true }), h('hr'), ...replies.map((one) => message(one, desk, { inThread: true })));
  $('thread-foot').replaceChildren(composer({ label: t('composeReply'), name: 'thread', onSend: (text) => send(text, place.thread) }));
  drawStatus();
  body.scrollTop = body.scrollHeight;
}

function drawStatus() {
  const body = $('thread-body');
  body.querySelector('#status')?.remove();
  const status = place.thread && desk.status(place.room, place.thread);
  if (!status) return;
  keepAtEnd(body, () => body.append(h('p', { id: 'status', class: 'writing', role: 'status', 'data-status': '' }, h('i'), h('i'), h('i'), h('span', {}, `Copydesk ${status}`))));
}

function refresh(ts) {
  const one = state.messages.get(`${place.room}/${ts}`);
  for (const [id, inThread] of [['room-body', false], ['thread-body', true]]) {
    const old = one && $(id).querySelector(`[data-ts="${CSS.escape(ts)}"]`);
    if (!old) continue;
    const focused = old.contains(document.activeElement) ? document.activeElement.dataset : null;
    keepAtEnd($(id), () => old.replaceWith(message(one, desk, { inThread })));
    if (focused?.actionId) $(id).querySelector(`[data-ts="${CSS.escape(ts)}"] [data-action-id="${CSS.escape(focused.actionId)}"]${focused.value ? `[data-value="${CSS.escape(focused.value)}"]` : ''}`)?.focus();
  }
}

function keepAtEnd(list, work) {
  const atEnd = list.scrollHeight - list.scrollTop - list.clientHeight < 80;
  work();
  if (atEnd) list.scrollTop = list.scrollHeight;
}

// Pictures arrive after the message that holds them and push its end out of sight.
for (const id of ['room-body', 'thread-body']) {
  let atEnd = true;
  $(id).addEventListener('scroll', () => { atEnd = $(id).scrollHeight - $(id).scrollTop - $(id).clientHeight < 80; });
  $(id).addEventListener('load', () => { if (atEnd && place.room !== 'home') $(id).scrollTop = $(id).scrollHeight; }, true);
}

// Going places and speaking ------------------------------------------------------------------------------------

function visit(room) {
  place.room = room;
  place.thread = null;
  state.unread.delete(room);
  $('side').classList.remove('open');
  drawAll();
  if (room === 'home') attempt('home', {});
  else {
    if (room.startsWith('D_')) attempt('conversation', {});
    $('room-foot').querySelector('textarea').focus();
  }
}

function openThread(channel, ts, write = false) {
  place.room = channel;
  place.thread = ts;
  remember();
  drawThread();
  if (write) $('thread-foot').querySelector('textarea').focus();
}

async function send(text, thread = null) {
  const command = /^(\/\w+)\s*([\s\S]*)$/.exec(text);
  if (command) return attempt('slash', { command: command[1], text: command[2], channel: place.room });
  const sent = await attempt('say', { channel: place.room, text, thread_ts: thread });
  if (sent && !thread && place.thread && place.thread !== sent.ts) {
    place.thread = null;
    drawThread();
  }
  return sent;
}

document.addEventListener('keydown', (event) => {
  if (event.key === 'Escape' && place.thread && !document.querySelector('dialog[open]')) document.querySelector('[data-close-thread]')?.click();
});
document.addEventListener('click', (event) => {
  for (const menu of document.querySelectorAll('details.menu[open]')) if (!menu.contains(event.target)) menu.open = false;
});

enter(place.person).catch(() => enter('U_ANNA'));
if (place.room === 'home') act('home', { person: place.person }).catch(fail);
