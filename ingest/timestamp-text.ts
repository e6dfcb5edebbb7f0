export { microsOf, timestampText } from '../drizzle/timestamp-text.ts';
