import { readFile, writeFile } from 'node:fs/promises';

/**
 * Puts a section into a page of results, in the place of the one with the same heading, or at the end.
 * Each tool writes its own part and leaves the others.
 * @param section begins with its heading, `## …`
 */
export async function replaceSection(path: string, section: string): Promise<void> {
  const page = await readPage(path);
  await writeFile(path, joinParts(withSection(splitParts(page), section)));
}

/** Puts what stands above the first section into a page, and leaves the sections. */
export async function replaceHead(path: string, head: string): Promise<void> {
  const [, ...sections] = splitParts(await readPage(path));
  await writeFile(path, joinParts([head, ...sections]));
}

/** What stands above the first `## `, and each section. */
export function splitParts(page: string): string[] {
  return page.split(/\n(?=## )/);
}

/** The parts of a page with one section replaced or added. */
export function withSection(parts: readonly string[], section: string): string[] {
  const heading = headingOf(section);
  const isThere = parts.some((part) => headingOf(part) === heading);
  if (!isThere) return [...parts, section];
  return parts.map((part) => (headingOf(part) === heading ? section : part));
}

function headingOf(part: string): string {
  return part.split('\n', 1)[0] ?? '';
}

function joinParts(parts: readonly string[]): string {
  return `${parts.map((part) => part.trim()).join('\n\n')}\n`;
}

/** A page that is not there yet is made. */
async function readPage(path: string): Promise<string> {
  return readFile(path, 'utf8').catch((error: NodeJS.ErrnoException) => {
    if (error.code === 'ENOENT') return '';
    throw error;
  });
}
