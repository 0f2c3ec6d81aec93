// The line that people write in: Enter sends, @ completes Copydesk, / completes the command.

import { h } from './dom.js';
import { t } from './words.js';

const OFFERS = [
  { starts: '@', text: '@Copydesk ', label: '@Copydesk', help: 'mentionHelp' },
  { starts: '/', text: '/copy ', label: '/copy', help: 'mentionHelp', onlyFirst: true },
];

export function composer({ label, name, onSend }) {
  const box = h('textarea', { rows: 1, 'aria-label': label, placeholder: label, 'data-composer': name, autocomplete: 'off' });
  const send = h('button', { type: 'submit', class: 'send', 'aria-label': t('send'), title: t('send'), disabled: true }, '➤');
  const list = h('ul', { class: 'offers', role: 'listbox', hidden: true });
  const form = h('form', { class: 'composer' }, list, box, send);
  let offered = [];

  const settle = () => {
    send.disabled = !box.value.trim();
    box.style.height = 'auto';
    box.style.height = `${Math.min(180, box.scrollHeight)}px`;
  };
  const offer = () => {
    const before = box.value.slice(0, box.selectionStart);
    const word = /(^|\s)([@/]\w*)$/.exec(before)?.[2] ?? '';
    offered = word ? OFFERS.filter((one) => one.label.toLowerCase().startsWith(word.toLowerCase()) && (!one.onlyFirst || before === word)) : [];
    list.hidden = !offered.length;
    list.replaceChildren(...offered.map((one) => h('li', {
      role: 'option', 'aria-selected': 'true', 'data-offer': one.label,
      onmousedown: (event) => { event.preventDefault(); complete(one); },
    }, h('b', {}, one.label), ' ', h('span', { class: 'faint' }, t(one.help)))));
  };
  const complete = (one) => {
    const at = box.selectionStart;
    const before = box.value.slice(0, at).replace(/[@/]\w*$/, one.text);
    box.value = before + box.value.slice(at);
    box.setSelectionRange(before.length, before.length);
    offer();
    settle();
  };
  box.addEventListener('input', () => { settle(); offer(); });
  box.addEventListener('blur', () => { list.hidden = true; });
  box.addEventListener('keydown', (event) => {
    // An input method's own Enter chooses characters; it must not send.
    if (event.isComposing) return;
    if (!list.hidden && (event.key === 'Tab' || event.key === 'Enter')) {
      event.preventDefault();
      complete(offered[0]);
    } else if (event.key === 'Escape' && !list.hidden) list.hidden = true;
    else if (event.key === 'Enter' && !event.shiftKey) {
      event.preventDefault();
      form.requestSubmit();
    }
  });
  form.addEventListener('submit', async (event) => {
    event.preventDefault();
    const text = box.value.trim();
    if (!text) return;
    box.value = '';
    offer();
    settle();
    if (!(await onSend(text))) {
      box.value = text;
      settle();
    }
  });
  return h('div', {}, form, h('p', { class: 'hint' }, t('hint')));
}
