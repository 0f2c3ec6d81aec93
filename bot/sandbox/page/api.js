// What the page asks of the workspace. A refusal is an Error with Slack's code in `code`.

async function read(response) {
  const body = await response.json();
  if (!body.ok) {
    const details = body.response_metadata?.messages?.join('; ');
    throw Object.assign(new Error(details || body.error), { code: body.error });
  }
  return body;
}

export async function look(person) {
  return read(await fetch(`/sandbox/state?person=${encodeURIComponent(person)}`));
}

export async function act(name, body) {
  const headers = { 'Content-Type': 'application/json' };
  return read(await fetch(`/sandbox/${name}`, { method: 'POST', headers, body: JSON.stringify(body) }));
}

export function follow(person, after, onChange, onState) {
  const source = new EventSource(`/sandbox/feed?person=${encodeURIComponent(person)}&after=${after}`);
  source.onmessage = (event) => onChange(JSON.parse(event.data));
  source.onopen = () => onState(true);
  source.onerror = () => onState(false);
  return source;
}
