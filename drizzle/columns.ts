import { customType, timestamp } from 'drizzle-orm/pg-core';

/** A column of bytes. */
export const bytea = customType<{ data: Buffer }>({ dataType: () => 'bytea' });

/** A time, to the microsecond. */
export const at = (name: string) =>
  timestamp(name, { withTimezone: true, precision: 6, mode: 'date' });
