/** Waits until a condition holds; fails after the deadline with what was wanted. */
export async function eventually(
  wanted: string,
  holds: () => boolean | Promise<boolean>,
  deadlineMs = 20_000,
): Promise<void> {
  const end = performance.now() + deadlineMs;
  while (!(await holds())) {
    if (performance.now() > end) throw new Error(`not within ${deadlineMs} ms: ${wanted}`);
    await new Promise((resolve) => setTimeout(resolve, 20));
  }
}
