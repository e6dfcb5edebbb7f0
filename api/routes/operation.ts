import type { Registry as MetricsRegistry } from 'prom-client';
import { z } from 'zod';
import { defineRoute, type Answer, type Route } from '../route.ts';

/** One thing that must work for the program to be ready. */
export interface HealthCheck {
  readonly name: string;
  readonly isOk: boolean;
  /** What is wrong, in a few words for anybody to read: no addresses, no names of tenants. */
  readonly detail?: string;
}

/** How the program is. */
export interface Health {
  /** True once everything listens, and for ever after. */
  isStarted(): boolean;
  /** Looks now. Never rejects. */
  check(): Promise<readonly HealthCheck[]>;
}

const healthAnswer = z.object({
  status: z.enum(['ok', 'failed', 'starting']),
  version: z.string(),
  checks: z
    .array(z.object({ name: z.string(), ok: z.boolean(), detail: z.string().optional() }))
    .optional(),
});

/**
 * The routes for those who run the program. They are public: they tell nothing of any organization.
 */
export function operationRoutes(
  health: Health,
  metricsRegistry: MetricsRegistry,
  version: string,
): Route[] {
  return [
    healthRoute('live', 'Whether the program runs; restart it when not', async () => ({
      status: 200,
      body: { status: 'ok', version },
    })),
    healthRoute('startup', 'Whether the start is over', async () =>
      health.isStarted()
        ? { status: 200, body: { status: 'ok', version } }
        : { status: 503, body: { status: 'starting', version } },
    ),
    healthRoute(
      'ready',
      'Whether the program can do its work; if not, which check fails',
      async () => readiness(health, version),
    ),
    defineRoute({
      method: 'GET',
      path: '/metrics',
      role: 'public',
      tag: 'operation',
      summary: 'Prometheus metrics. No label names a device or an organization',
      answers: {
        200: { description: 'Text format.', schema: z.string(), contentType: 'text/plain' },
      },
      async handle() {
        const headers = { 'content-type': metricsRegistry.contentType };
        return { status: 200, body: await metricsRegistry.metrics(), headers };
      },
    }),
  ];
}

function healthRoute(
  name: 'live' | 'ready' | 'startup',
  summary: string,
  answer: () => Promise<Answer>,
): Route {
  return defineRoute({
    method: 'GET',
    path: `/health/${name}`,
    role: 'public',
    tag: 'operation',
    summary,
    answers: {
      200: { description: 'Yes.', schema: healthAnswer },
      503: { description: 'No.', schema: healthAnswer },
    },
    async handle() {
      const { status, body } = await answer();
      return { status, body, headers: { 'cache-control': 'no-store' } };
    },
  });
}

async function readiness(health: Health, version: string): Promise<Answer> {
  const checks = await health.check();
  const isReady = health.isStarted() && checks.every((check) => check.isOk);
  return {
    status: isReady ? 200 : 503,
    body: {
      status: isReady ? 'ok' : health.isStarted() ? 'failed' : 'starting',
      version,
      checks: checks.map(({ name, isOk, detail }) => ({ name, ok: isOk, detail })),
    },
  };
}
