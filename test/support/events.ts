import { expect } from 'bun:test';
import type { World } from './world.ts';

/** An event in docker's words, as `minirun events --format json` prints it. */
export interface DockerEvent {
  Type: string;
  Action: string;
  Actor: { ID: string; Attributes: Record<string, string> };
  time: number;
}

/** All events of a world so far, or those of some options. */
export async function eventsOf(world: World, ...options: string[]): Promise<DockerEvent[]> {
  const now = (Date.now() / 1000 + 1).toFixed(3);
  const period = ['--since', '0', '--until', options.includes('--until') ? '' : now].filter(Boolean);
  const { code, stdout, stderr } = await world.run(['events', '--format', 'json', ...period, ...options]);
  expect({ code, stderr }).toEqual({ code: 0, stderr: '' });
  return stdout
    .split('\n')
    .filter(Boolean)
    .map((line) => JSON.parse(line) as DockerEvent);
}

/**
 * Fails unless every happening so far has been told once: each container was created, then started and ended as often,
 * then destroyed; of networks what came has gone, but for those that are there.
 */
export async function expectOrderlyEvents(world: World): Promise<void> {
  const stories = new Map<string, { title: string; actions: string[] }>();
  for (const { Type, Action, Actor } of await eventsOf(world)) {
    const isPassing = Type === 'network' && Action.endsWith('connect');
    if (Type !== 'container' && Type !== 'network') continue;
    if (Type === 'container' && !['create', 'start', 'die', 'destroy'].includes(Action)) continue;
    const title = isPassing ? `${Actor.Attributes.name} of ${Actor.Attributes.container}` : `${Type} ${Actor.ID}`;
    const story = stories.get(title) ?? { title, actions: [] };
    story.actions.push(Action);
    stories.set(title, story);
  }
  for (const { title, actions } of stories.values()) {
    const orderly = title.startsWith('container ')
      ? /^create (start die )*(start )?(destroy )?$/
      : title.startsWith('network ')
        ? /^create (destroy )?$/
        : /^(connect disconnect )*(connect )?$/;
    const text = actions.map((action) => `${action} `).join('');
    expect(orderly.test(text) ? 'orderly' : `${title}: ${text}`).toBe('orderly');
  }
}
