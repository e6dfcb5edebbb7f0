import { z } from 'zod';
import type { ClassRetention, Retention } from '../../registry/retention.ts';
import { defineRoute, type Route } from '../route.ts';
import { pageOf } from '../schemas.ts';
import { authorOf } from './devices.ts';

const days = z.int().min(1).max(36_500);
const classAnswer = z.object({
  class: z.enum(['raw', '1m', '1h', '1d']).describe('Readings as they came, and their aggregates.'),
  days: days.describe('Days that it is kept.'),
  daysMin: days.describe('The least that may be asked for.'),
  daysMax: days.describe('The most, and what is given to who asks for nothing.'),
  isDefault: z.boolean(),
});
const answers = {
  200: { description: 'One entry a class, from raw to 1d.', schema: pageOf(classAnswer) },
};

/** The routes of how long data is kept. */
export function retentionRoutes(retention: Retention): Route[] {
  return [
    defineRoute({
      method: 'GET',
      path: '/api/v1/retention',
      role: 'admin',
      tag: 'readings',
      summary: 'How long the organization keeps readings and aggregates',
      answers,
      async handle({ principal: { organizationId } }) {
        return { status: 200, body: bodyOf(await retention.get(organizationId)) };
      },
    }),
    defineRoute({
      method: 'PUT',
      path: '/api/v1/retention',
      role: 'admin',
      tag: 'readings',
      summary: 'Keep readings and aggregates for a shorter time',
      description:
        'Replaces what was asked for before; a class that is left out is kept as long as the settings say. What is then too old is deleted within the hour, for good.',
      body: z.strictObject({
        raw: days.optional().describe('Not less than READING_AGE_MAX_D.'),
        '1m': days.optional().describe('Not less than raw.'),
        '1h': days.optional().describe('Not less than 1m.'),
        '1d': days.optional().describe('Not less than 1h.'),
      }),
      answers,
      async handle({ principal, body }) {
        const asked = Object.fromEntries(
          Object.entries(body).filter(([, wanted]) => wanted !== undefined),
        );
        return { status: 200, body: bodyOf(await retention.put(authorOf(principal), asked)) };
      },
    }),
  ];
}

function bodyOf(classes: readonly ClassRetention[]): {
  data: z.input<typeof classAnswer>[];
  next: null;
} {
  const data = classes.map(({ name, isAsked, ...bounds }) => ({
    class: name,
    ...bounds,
    isDefault: !isAsked,
  }));
  return { data, next: null };
}
