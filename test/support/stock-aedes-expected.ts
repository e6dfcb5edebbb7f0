/**
 * Rows of docs/adr/0004-aedes-behind-one-wrapper.md whose test fails on Aedes 1.2.0 as it comes. A row
 * that passes there after an upgrade is a mend that can go.
 */
export const STOCK_AEDES_FAILURES: readonly number[] = [
  1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 16, 17, 18, 19, 20,
];
