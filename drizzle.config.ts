import { defineConfig } from 'drizzle-kit';

export default defineConfig({
  dialect: 'postgresql',
  schema: [
    './drizzle/schema.ts',
    './drizzle/rule-schema.ts',
    './drizzle/command-schema.ts',
    './drizzle/device-schema.ts',
  ],
  out: './drizzle/migrations',
});
