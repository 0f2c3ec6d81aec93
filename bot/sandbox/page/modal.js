// Modals as real dialogs: opened, updated and closed by the app, filled in and submitted by a person.

import { act } from './api.js';
import { blocks, valuesOf } from './blocks.js';
import { h } from './dom.js';
import { textObject } from './text.js';
import { clientError, t } from './words.js';

let open = null; // { view, dialog }

// Show the top view of the stack; what a person typed survives an update of the same inputs, as in Slack.
export function showModals(views, { person, fail }) {
  const view = views[views.length - 1];
  if (open && view && open.view.id === view.id && open.view.hash === view.hash) return;
  const kept = open && view && open.view.id === view.id ? valuesOf(open.dialog, open.view.blocks) : {};
  if (open) {
    const old = open.dialog;
    open = null;
    old.close();
    old.remove();
  }
  if (!view) return;
  const dialog = build(view, person, fail, kept);
  open = { view, dialog };
  document.body.append(dialog);
  dialog.showModal();
  (dialog.querySelector('textarea, input, select') ?? dialog.querySelector('button'))?.focus();
}

function build(view, person, fail, kept) {
  const context = {
    viewId: view.id,
    press: (blockId, actionId, value) =>
      act('press', { person, view_id: view.id, action_id: actionId, block_id: blockId, value }).catch(fail),
  };
  const list = view.blocks.map((block) => withKept(block, kept));
  const close = () => act('close', { person, view_id: view.id }).catch(fail);
  const form = h('form', { novalidate: true, onsubmit: (event) => { event.preventDefault(); submit(); } },
    h('div', { class: 'dialog-head' }, h('h2', { id: 'modal-title' }, textObject(view.title)),
      h('button', { type: 'button', class: 'icon', 'aria-label': t('close'), 'data-modal-close': '', onclick: close }, '✕')),
    h('div', { class: 'dialog-body' }, blocks(list, context)),
    h('div', { class: 'dialog-foot' },
      h('button', { type: 'button', class: 'button', onclick: close }, view.close ? textObject(view.close) : t('cancel')),
      view.submit && h('button', { type: 'submit', class: 'button primary', 'data-modal-submit': '' }, textObject(view.submit))));
  const dialog = h('dialog', {
    class: 'modal', 'aria-labelledby': 'modal-title', 'data-view-id': view.id, 'data-callback-id': view.callback_id,
    oncancel: (event) => { event.preventDefault(); close(); },
  }, form);
  form.addEventListener('keydown', (event) => {
    if (event.key === 'Enter' && (event.metaKey || event.ctrlKey)) form.requestSubmit();
  });

  async function submit() {
    const button = form.querySelector('[data-modal-submit]');
    if (!button || button.disabled) return;
    button.disabled = true;
    try {
      const { errors } = await act('submit', { person, view_id: view.id, values: valuesOf(form, view.blocks) });
      showErrors(form, errors);
    } catch (error) {
      fail(error);
    } finally {
      button.disabled = false;
    }
  }
  return dialog;
}

function showErrors(form, errors) {
  let first = null;
  for (const place of form.querySelectorAll('[data-error-for]')) {
    const text = errors[place.dataset.errorFor];
    const control = place.parentElement.querySelector('[data-action-id]');
    place.hidden = !text;
    place.textContent = text ? clientError(text) : '';
    control.toggleAttribute('aria-invalid', Boolean(text));
    if (text && !first) first = control;
  }
  first?.focus();
}

function withKept(block, kept) {
  const value = block.type === 'input' ? kept[block.block_id]?.[block.element.action_id] : undefined;
  if (value === undefined || value === null) return block;
  const element = { ...block.element };
  const option = (one) => element.options.find((candidate) => candidate.value === one);
  if (!element.options) element.initial_value = value;
  else if (Array.isArray(value)) element.initial_options = value.map(option).filter(Boolean);
  else if (option(value)) element.initial_option = option(value);
  return { ...block, element };
}
