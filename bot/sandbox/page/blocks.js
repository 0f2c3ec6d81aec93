// Block Kit as DOM. `press(blockId, actionId, value)` is what buttons and menus call; it may be missing in a preview.

import { chart } from './chart.js';
import { h } from './dom.js';
import { markdown, mrkdwn, textObject } from './text.js';
import { t } from './words.js';

export function blocks(list, context) {
  return list.map((block) => {
    const make = BLOCKS[block.type];
    const node = make ? make(block, context) : h('div', { class: 'unknown' }, block.type);
    node.setAttribute('data-block-id', block.block_id ?? '');
    node.classList.add('block');
    return node;
  });
}

const BLOCKS = {
  section: (block, context) => h('div', { class: 'section' },
    h('div', { class: 'grow' },
      block.text && h('div', { class: 'text' }, textObject(block.text)),
      block.fields && h('div', { class: 'fields' }, block.fields.map((field) => h('div', {}, textObject(field))))),
    block.accessory && element(block.accessory, block, context)),
  header: (block) => h('h3', { class: 'header' }, textObject(block.text)),
  markdown: (block) => h('div', { class: 'markdown' }, markdown(block.text)),
  divider: () => h('hr'),
  context: (block) => h('div', { class: 'context' }, block.elements.map((part) =>
    part.type === 'image' ? picture(part, 'tiny') : h('span', {}, textObject(part)))),
  context_actions: (block, context) => h('div', { class: 'actions quiet' }, block.elements.map((part) => element(part, block, context))),
  actions: (block, context) => h('div', { class: 'actions' }, block.elements.map((part) => element(part, block, context))),
  image: (block) => h('figure', { class: 'picture' }, block.title && h('figcaption', {}, textObject(block.title)), picture(block)),
  table: (block) => table(block),
  data_table: (block) => table(block),
  data_visualization: (block) => chart(block),
  rich_text: (block) => h('div', { class: 'text' }, block.elements.map(richText)),
  input: (block, context) => input(block, context),
};

function picture(image, kind = '') {
  const source = image.image_url ?? image.slack_file?.url ?? `/files/${image.slack_file?.id}`;
  return h('img', { src: source, alt: image.alt_text, class: kind, loading: 'lazy' });
}

function table(block) {
  const side = (column) => block.column_settings?.[column]?.align;
  return h('div', { class: 'table', tabindex: 0 }, h('table', {}, block.rows.map((row, number) =>
    h('tr', {}, row.map((cell, column) => h(number ? 'td' : 'th', { class: side(column) ?? (cell.type === 'raw_number' ? 'right' : '') },
      cell.type === 'rich_text' ? cell.elements.map(richText) : String(cell.text ?? cell.value ?? '')))))));
}

function richText(part) {
  const inside = () => (part.elements ?? []).map(richText);
  switch (part.type) {
    case 'rich_text_list': return h(part.style === 'ordered' ? 'ol' : 'ul', {}, part.elements.map((item) => h('li', {}, richText(item))));
    case 'rich_text_quote': return h('blockquote', {}, inside());
    case 'rich_text_preformatted': return h('pre', {}, inside());
    case 'user': return h('span', {}, mrkdwn(`<@${part.user_id}>`));
    case 'emoji': return h('span', {}, mrkdwn(`:${part.name}:`));
    case 'link': return h('span', {}, mrkdwn(`<${part.url}|${part.text ?? part.url}>`));
    case 'text': {
      const tag = part.style?.code ? 'code' : part.style?.bold ? 'b' : part.style?.italic ? 'i' : part.style?.strike ? 's' : 'span';
      return h(tag, {}, part.text);
    }
    default: return h('span', {}, inside());
  }
}

// Elements that act at once ---------------------------------------------------------------------------------------

function element(part, block, context) {
  switch (part.type) {
    case 'button': return button(part, block, context);
    case 'feedback_buttons': return feedback(part, block, context);
    case 'icon_button': return button({ ...part, text: part.text }, block, context, 'icon');
    case 'image': return picture(part, 'accessory');
    case 'overflow':
    case 'static_select': return select(part, { onchange: (event) => event.target.value && context.press(block.block_id, part.action_id, event.target.value) });
    case 'radio_buttons':
    case 'checkboxes': return choices(part, part.action_id + block.block_id, (values) =>
      context.press(block.block_id, part.action_id, part.type === 'checkboxes' ? values : values[0]));
    default: return h('span', { class: 'unknown' }, part.type);
  }
}

function button(part, block, context, kind = '') {
  const press = async (event) => {
    const target = event.currentTarget;
    if (part.confirm && !(await confirmed(part.confirm))) return;
    await busy(target, () => context.press(block.block_id, part.action_id, part.value));
    if (part.url) window.open(part.url, '_blank', 'noopener');
  };
  return h('button', {
    type: 'button', class: `button ${part.style ?? ''} ${kind}`, 'data-action-id': part.action_id, 'data-value': part.value,
    'aria-label': part.accessibility_label, onclick: press,
  }, textObject(part.text));
}

function feedback(part, block, context) {
  const chosen = context.chosen?.(part.action_id);
  const one = (name, sign) => {
    const { text, value, accessibility_label: label } = part[`${name}_button`];
    return h('button', {
      type: 'button', class: 'button feedback', 'data-action-id': part.action_id, 'data-value': value, 'data-feedback': name,
      'aria-label': label, 'aria-pressed': String(chosen === value),
      onclick: (event) => busy(event.currentTarget, () => context.press(block.block_id, part.action_id, value, true)),
    }, h('span', { 'aria-hidden': 'true' }, sign), ' ', textObject(text));
  };
  return h('span', { class: 'feedbacks' }, one('positive', '👍'), one('negative', '👎'));
}

async function busy(target, work) {
  target.setAttribute('aria-busy', 'true');
  target.disabled = true;
  try {
    await work();
  } finally {
    target.disabled = false;
    target.removeAttribute('aria-busy');
  }
}

function confirmed(confirm) {
  return new Promise((resolve) => {
    const close = (answer) => () => { dialog.close(); dialog.remove(); resolve(answer); };
    const dialog = h('dialog', { class: 'confirm', oncancel: close(false), 'aria-label': confirm.title.text },
      h('h2', {}, textObject(confirm.title)), h('div', { class: 'text' }, textObject(confirm.text)),
      h('div', { class: 'dialog-foot' },
        h('button', { type: 'button', class: 'button', onclick: close(false) }, confirm.deny ? textObject(confirm.deny) : t('cancel')),
        h('button', { type: 'button', class: `button ${confirm.style === 'danger' ? 'danger' : 'primary'}`, 'data-confirm': '', onclick: close(true) },
          confirm.confirm ? textObject(confirm.confirm) : 'OK')));
    document.body.append(dialog);
    dialog.showModal();
  });
}

function select(part, props = {}) {
  const first = part.initial_option?.value;
  return h('select', { 'data-action-id': part.action_id, ...props },
    h('option', { value: '' }, part.type === 'overflow' ? '…' : part.placeholder?.text ?? t('choose')),
    part.options.map((option) => h('option', { value: option.value, selected: option.value === first }, textObject(option.text))));
}

function choices(part, name, onChange) {
  const several = part.type === 'checkboxes';
  const first = new Set([part.initial_option?.value, ...(part.initial_options ?? []).map((option) => option.value)]);
  const set = h('div', { class: 'choices', role: several ? 'group' : 'radiogroup', 'data-action-id': part.action_id },
    part.options.map((option) => h('label', {},
      h('input', { type: several ? 'checkbox' : 'radio', name, value: option.value, checked: first.has(option.value) }),
      h('span', {}, textObject(option.text), option.description && h('small', {}, textObject(option.description))))));
  if (onChange) set.addEventListener('change', () => onChange([...set.querySelectorAll('input:checked')].map((box) => box.value)));
  return set;
}

// Inputs of a modal ------------------------------------------------------------------------------------------------

function input(block, context) {
  const part = block.element;
  const id = `in-${context.viewId}-${block.block_id}`;
  const control = field(part, id, block);
  return h('div', { class: 'input' },
    h('label', { for: id, id: `${id}-label` }, textObject(block.label), block.optional && h('span', { class: 'faint' }, ' ', t('optional'))),
    control,
    block.hint && h('small', { class: 'faint', id: `${id}-hint` }, textObject(block.hint)),
    h('p', { class: 'error', id: `${id}-error`, 'data-error-for': block.block_id, role: 'alert', hidden: true }));
}

function field(part, id, block) {
  const shared = { id, 'data-action-id': part.action_id, 'aria-describedby': `${id}-hint ${id}-error`, placeholder: part.placeholder?.text };
  switch (part.type) {
    case 'plain_text_input':
      return part.multiline
        ? h('textarea', { ...shared, rows: 6, maxlength: part.max_length ?? 3000, value: part.initial_value ?? '', autofocus: part.focus_on_load })
        : h('input', { ...shared, type: 'text', maxlength: part.max_length ?? 3000, value: part.initial_value ?? '' });
    case 'number_input':
      return h('input', { ...shared, type: 'number', step: part.is_decimal_allowed ? 'any' : 1, min: part.min_value, max: part.max_value, value: part.initial_value ?? '' });
    case 'static_select': return select(part, shared);
    case 'multi_static_select': {
      const first = new Set((part.initial_options ?? []).map((option) => option.value));
      return h('select', { ...shared, multiple: true, size: Math.min(6, part.options.length) },
        part.options.map((option) => h('option', { value: option.value, selected: first.has(option.value) }, textObject(option.text))));
    }
    default: {
      const set = choices(part, id);
      set.id = id;
      set.setAttribute('aria-labelledby', `${id}-label`);
      set.setAttribute('data-block', block.block_id);
      return set;
    }
  }
}

// What stands in the inputs now, as the workspace takes it: {block_id: {action_id: value}}.
export function valuesOf(root, list) {
  const values = {};
  for (const block of list.filter((one) => one.type === 'input')) {
    const part = block.element;
    const node = root.querySelector(`[data-block-id="${CSS.escape(block.block_id)}"] [data-action-id="${CSS.escape(part.action_id)}"]`);
    const checked = () => [...node.querySelectorAll('input:checked')].map((box) => box.value);
    const value = {
      checkboxes: checked,
      radio_buttons: () => checked()[0] ?? null,
      multi_static_select: () => [...node.selectedOptions].map((option) => option.value),
    }[part.type] ?? (() => node.value);
    values[block.block_id] = { [part.action_id]: value() };
  }
  return values;
}
