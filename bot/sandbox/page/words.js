// The page's own words, in the chosen person's language.

const WORDS = {
  en: {
    workspace: 'Copydesk workspace', you: 'Who are you?', channels: 'Channels', dm: 'Direct messages', apps: 'Apps',
    home: 'Home', copywriter: 'Copywriter', lead: 'Team lead', app: 'App', language: 'Language',
    thread: 'Thread', close: 'Close', reply: 'Reply in thread', replies: (n) => (n === 1 ? '1 reply' : `${n} replies`),
    composeIn: (name) => `Message ${name}`, composeReply: 'Reply…', send: 'Send', onlyYou: 'Only visible to you',
    more: 'More actions', react: (emoji) => `React with ${emoji}`, edited: '(edited)', writing: 'Writing…',
    cancel: 'Cancel', choose: 'Choose…', connected: 'Copydesk is connected', disconnected: 'Copydesk is not connected',
    offline: 'Reconnecting to the workspace…', menu: 'Menu', noMessages: 'Nothing here yet. Ask @Copydesk for a text.',
    emptyDm: 'This is your conversation with Copydesk. Tell it what you need.', emptyHome: 'Opening Home…',
    hint: 'Enter sends, Shift+Enter starts a new line', noAnswer: 'Copydesk did not answer in time.',
    mentionHelp: 'Ask for a text', optional: '(optional)', working: 'Working…', failed: 'That did not work: ',
    helpful: 'Good', unhelpful: 'Bad', today: 'Today', channelTopic: 'Briefs, drafts, ratings and corrections',
  },
  zh: {
    workspace: 'Copydesk 工作区', you: '你是谁？', channels: '频道', dm: '私信', apps: '应用',
    home: '主页', copywriter: '文案', lead: '团队负责人', app: '应用', language: '语言',
    thread: '消息列', close: '关闭', reply: '在消息列中回复', replies: (n) => `${n} 条回复`,
    composeIn: (name) => `发送消息到 ${name}`, composeReply: '回复…', send: '发送', onlyYou: '仅你可见',
    more: '更多操作', react: (emoji) => `回应 ${emoji}`, edited: '（已编辑）', writing: '正在书写…',
    cancel: '取消', choose: '请选择…', connected: 'Copydesk 已连接', disconnected: 'Copydesk 未连接',
    offline: '正在重新连接工作区…', menu: '菜单', noMessages: '这里还没有消息。请 @Copydesk 写一段文案。',
    emptyDm: '这是你与 Copydesk 的对话，告诉它你需要什么。', emptyHome: '正在打开主页…',
    hint: 'Enter 发送，Shift+Enter 换行', noAnswer: 'Copydesk 没有及时回应。',
    mentionHelp: '请它写文案', optional: '（选填）', working: '处理中…', failed: '操作未成功：',
    helpful: '好', unhelpful: '不好', today: '今天', channelTopic: '需求、草稿、评分与修改',
  },
};
const REQUIRED = { 'Please complete this required field.': '请填写此必填项。' };

export let language = 'en';

export function speak(next) {
  language = WORDS[next] ? next : 'en';
  document.documentElement.lang = language === 'zh' ? 'zh-CN' : 'en';
}

export function t(name, ...given) {
  const word = WORDS[language][name];
  return typeof word === 'function' ? word(...given) : word;
}

export function clientError(text) {
  return language === 'zh' ? REQUIRED[text] ?? text : text;
}
