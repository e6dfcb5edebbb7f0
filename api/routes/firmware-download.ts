import { Readable } from 'node:stream';
import { z } from 'zod';
import type { Ota } from '../../ota/ota.ts';
import { defineRoute, type Route } from '../route.ts';

const LINK_CHARS_MAX = 64;
const BYTES_TYPE = 'application/octet-stream';
const bytes = z.string().meta({ format: 'binary' });

/** The route of the link that stands in a `sys.ota`. */
export function firmwareDownloadRoutes({ ota }: { readonly ota: Pick<Ota, 'downloads'> }): Route[] {
  return [
    defineRoute({
      method: 'GET',
      path: '/fw/{link}',
      role: 'public',
      tag: 'updates',
      summary: 'Fetch a firmware image by the link of a sys.ota command',
      description: `The link is for one device and one image. HEAD and one range with If-Range are served.
403: the link does not hold, or has expired; 503: too many devices are fetching, ask again later.`,
      params: z.strictObject({ link: z.string() }),
      query: z.strictObject({ t: z.string().max(LINK_CHARS_MAX) }),
      answers: {
        200: { description: 'The image.', schema: bytes, contentType: BYTES_TYPE },
        206: { description: 'A range of it.', schema: bytes, contentType: BYTES_TYPE },
        416: { description: 'The image has no such range.', schema: null },
      },
      async handle({ params: { link }, query: { t }, conditions, isHead }) {
        const { range, ifRange } = conditions;
        const download = await ota.downloads.open({ name: link, code: t, range, ifRange, isHead });
        const { status, headers, body } = download;
        // An empty stream leaves the length alone that the whole image has.
        return { status, headers, body: body ?? (isHead ? Readable.from([]) : undefined) };
      },
    }),
  ];
}
