import { z } from 'zod';
import type { AdminPrincipal, DevicePrincipal } from '../registry/principal.ts';

/**
 * Who may use a route. `public`: anybody. `admin`: an admin key, within its own organization. `device`: a
 * key of a device, for itself.
 */
export type Role = 'public' | 'admin' | 'device';

/** Whose key a request carries, by the role of its route. */
export interface Principals {
  readonly public: null;
  readonly admin: AdminPrincipal;
  readonly device: DevicePrincipal;
}

/** A checked request, as a route's handler gets it. */
export interface RouteRequest<R extends Role, Params, Query, Body> {
  /** Whose key it is. Of a public route nobody's. */
  readonly principal: Principals[R];
  readonly params: Params;
  readonly query: Query;
  /** JSON as its schema says, or as {@link Route.input} says. */
  readonly body: Body;
  /** Of the body, without parameters and in lower case; empty when none was told. */
  readonly contentType: string;
  /** As announced; null when it was not. */
  readonly bodyBytes: number | null;
  /** Of the client, behind configured proxies too. */
  readonly address: string;
  /** Headers that say how a change is meant, as they came; null: not sent. */
  readonly conditions: RequestConditions;
  /** HEAD: the answer's headers are all that is asked for; a GET route serves it too. */
  readonly isHead: boolean;
  /** Aborted when the client is answered, or has gone and waits no more. */
  readonly gone: () => AbortSignal;
}

/** See {@link RouteRequest.conditions}. */
export interface RequestConditions {
  /** `Idempotency-Key`. */
  readonly idempotencyKey: string | null;
  /** `If-Match`. */
  readonly ifMatch: string | null;
  /** `Range`. */
  readonly range: string | null;
  /** `If-Range`. */
  readonly ifRange: string | null;
}

/** See {@link Route.input}. */
export type BodyInput = 'json' | 'bytes' | 'stream';

/**
 * What a handler answers. A string or a Buffer goes out as it is, a Readable too, which is destroyed when
 * the client goes; with a `content-length` of its own it is not sent in chunks. Everything else is JSON.
 */
export interface Answer {
  readonly status: number;
  readonly body?: unknown;
  readonly headers?: Readonly<Record<string, string>>;
}

/**
 * One answer in the OpenAPI document. It is not enforced at run time; tests hold answers against
 * it.
 */
export interface DocumentedAnswer {
  readonly description: string;
  /** Null: no body. */
  readonly schema: z.ZodType | null;
  /** `application/json` unless said otherwise. */
  readonly contentType?: string;
}

/** One line of the table of routes. A route without a role does not compile. */
export interface Route<
  R extends Role = Role,
  Params extends z.ZodType = z.ZodType,
  Query extends z.ZodType = z.ZodType,
  Body extends z.ZodType = z.ZodType,
> {
  readonly method: 'GET' | 'POST' | 'PUT' | 'PATCH' | 'DELETE';
  /** As OpenAPI writes it: `/api/v1/devices/{device}`. */
  readonly path: string;
  readonly role: R;
  readonly tag:
    | 'devices'
    | 'keys'
    | 'readings'
    | 'events'
    | 'ingest'
    | 'quarantine'
    | 'rules'
    | 'alerts'
    | 'silences'
    | 'notifications'
    | 'commands'
    | 'campaigns'
    | 'configuration'
    | 'updates'
    | 'diagnostics'
    | 'operation';
  /**
   * How the body comes. Left out: JSON. `bytes`: a Buffer of any content type, of at most `bodyBytesMax`.
   * `stream`: a Readable of any size, for as long as it takes; the handler bounds both.
   */
  readonly input?: BodyInput;
  /** Of `bytes`; 413 above it. */
  readonly bodyBytesMax?: number;
  readonly summary: string;
  readonly description?: string;
  readonly params: Params;
  readonly query: Query;
  readonly body: Body;
  readonly answers: Readonly<Record<number, DocumentedAnswer>>;
  handle(
    request: RouteRequest<R, z.output<Params>, z.output<Query>, z.output<Body>>,
  ): Promise<Answer>;
}

/** What a route takes that has no such part: nothing at all. */
export const NOTHING = z.strictObject({});
/** The body of a route that reads none. */
export const NO_BODY = z.unknown();

type NoMembers = typeof NOTHING;
type NoBody = typeof NO_BODY;

/** A route as it is written down; parts that it does not take are left out. */
type Definition<
  R extends Role,
  Params extends z.ZodType,
  Query extends z.ZodType,
  Body extends z.ZodType,
> = Omit<Route<R, Params, Query, Body>, 'params' | 'query' | 'body'> & {
  readonly params?: Params;
  readonly query?: Query;
  readonly body?: Body;
};

/**
 * Makes a line of the table. What is left out is refused: unknown members of a query are an error.
 */
export function defineRoute<
  R extends Role,
  Params extends z.ZodType = NoMembers,
  Query extends z.ZodType = NoMembers,
  Body extends z.ZodType = NoBody,
>(definition: Definition<R, Params, Query, Body>): Route {
  // The table holds routes of every shape; what a handler gets was checked with its own schemas.
  return { params: NOTHING, query: NOTHING, body: NO_BODY, ...definition } as unknown as Route;
}
