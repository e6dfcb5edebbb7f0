import { makeUuidV7 } from '../../drizzle/uuid-v7.ts';
import type { Route } from '../../api/route.ts';
import type { TestApi } from './api.ts';

let made = 0;

/** A receiver that every organization may make. */
export function newReceiver(): Record<string, unknown> {
  made += 1;
  return {
    name: `receiver ${made}`,
    kind: 'webhook',
    settings: { url: 'https://example.com/hook' },
    secret: 'a secret that nobody sees',
  };
}

/** Makes what the path of a route of notifications names, for this request alone. */
export async function notifyPath(t: TestApi, path: string): Promise<string> {
  if (!/\{(?:receiver|route|notification)Id\}/.test(path)) return path;
  const receiverId = (await t.send('POST', '/api/v1/receivers', newReceiver())).body.id;
  if (path.includes('{receiverId}')) return path.replace('{receiverId}', receiverId);
  if (path.includes('{routeId}')) {
    const body = { name: 'a route', receivers: [receiverId] };
    const { id } = (await t.send('POST', '/api/v1/notification-routes', body)).body;
    return path.replace('{routeId}', id);
  }
  const notificationId = makeUuidV7(Date.now());
  await t.test.database.pool.query(
    `INSERT INTO notification (notification_id, organization_id, receiver_id, group_key, kind,
       state, reason, content) VALUES ($1, $2, $3, 'x', 'alert', 'dead', '500', '{"alerts":[]}')`,
    [notificationId, t.acme.author.organizationId, receiverId],
  );
  return path.replace('{notificationId}', notificationId);
}

/** A body that a route of notifications accepts; null: it is none of them, or takes none. */
export async function notifyBody(
  t: TestApi,
  { method, path }: Pick<Route, 'method' | 'path'>,
): Promise<unknown> {
  if (method === 'GET' || method === 'DELETE') return null;
  if (path === '/api/v1/notification-policy') return { stopped: false };
  if (path === '/api/v1/notifications/preview') return { labels: { site: 'north' } };
  if (path.startsWith('/api/v1/notification-routes')) {
    const receiverId = (await t.send('POST', '/api/v1/receivers', newReceiver())).body.id;
    return { name: 'a route', receivers: [receiverId] };
  }
  if (path === '/api/v1/receivers') return newReceiver();
  return path === '/api/v1/receivers/{receiverId}' ? { name: newReceiver()['name'] } : null;
}
