import { hasZodFastifySchemaValidationErrors } from 'fastify-type-provider-zod';
import { z } from 'zod';
import {
  AppError,
  InternalError,
  MessageRefusedError,
  RequestInvalidError,
  reasonOf,
} from '../errors.ts';
import { RuleInvalidError } from '../rule-errors.ts';
import { faultsOf } from '../rules/rule-faults.ts';

/** What the API answers when it cannot do what was asked: RFC 9457, `application/problem+json`. */
export const problemSchema = z.object({
  type: z.string().describe('A name for the kind of problem: urn:puback:error:{code}.'),
  title: z.string(),
  status: z.number().int(),
  code: z.string().describe('Stable; docs/errors.md lists all of them.'),
  detail: z.string(),
  errors: z.array(z.string()).optional().describe('One line for each fault of the request.'),
  refusal: z.string().optional().describe('Of a message that was refused: why, as on in/err.'),
  requestId: z.string().optional().describe('Of an unexpected error; the log has it too.'),
});

/** A problem, ready to be sent. */
export interface Problem {
  readonly status: number;
  readonly headers: Readonly<Record<string, string>>;
  readonly body: z.infer<typeof problemSchema>;
}

/** Media type of every problem. */
export const PROBLEM_TYPE = 'application/problem+json';
/** Seconds to wait before asking again, when the database is away. */
const RETRY_AFTER_S = 5;
const FAULTS_MAX = 20;
const FAULT_CHARS_MAX = 300;

/**
 * The error that a thrown value stands for: an {@link AppError} itself, a fault of the request as
 * {@link RequestInvalidError}, and anything else as {@link InternalError}.
 */
export function toAppError(error: unknown): AppError {
  if (error instanceof AppError) return error;
  if (hasZodFastifySchemaValidationErrors(error)) {
    const where = 'validationContext' in error ? String(error.validationContext) : 'request';
    // Zod's own issues, taken apart by the validator.
    const issues = error.validation.map(({ keyword, instancePath, message, params }) => ({
      ...params,
      code: keyword,
      path: instancePath.split('/').filter((part) => part !== ''),
      message: message ?? 'is not valid',
    })) as unknown as z.core.$ZodIssue[];
    const faults = faultsOf({ issues }).map(({ path, message }) => faultText(where, path, message));
    return new RequestInvalidError(faults.slice(0, FAULTS_MAX));
  }
  const status = clientStatusOf(error);
  if (status !== null) return new RequestInvalidError([reasonOf(error)], status, error);
  return new InternalError(error);
}

/** What is sent for an error. Of an unexpected one nothing but the request id is told. */
export function toProblem(error: AppError, requestId: string): Problem {
  return {
    status: error.status,
    headers: {
      'content-type': PROBLEM_TYPE,
      ...(error.status === 401 ? { 'www-authenticate': 'Bearer realm="puback"' } : {}),
      ...(error.retryable ? { 'retry-after': String(RETRY_AFTER_S) } : {}),
    },
    body: {
      type: `urn:puback:error:${error.code}`,
      title: titleOf(error.code),
      status: error.status,
      code: error.code,
      detail: error.message.slice(0, 2000),
      ...(error instanceof RequestInvalidError ? { errors: [...error.faults] } : {}),
      ...(error instanceof RuleInvalidError ? { errors: ruleFaults(error) } : {}),
      ...(error instanceof MessageRefusedError ? { refusal: error.refusal } : {}),
      ...(error instanceof InternalError ? { requestId } : {}),
    },
  };
}

function ruleFaults({ faults }: RuleInvalidError): string[] {
  return faults
    .slice(0, FAULTS_MAX)
    .map(({ path, message }) =>
      `${path === '' ? 'rule' : path}: ${message}`.slice(0, FAULT_CHARS_MAX),
    );
}

/** Fastify's own errors carry the status that they mean: 400, 413, 415. */
function clientStatusOf(error: unknown): number | null {
  if (!(error instanceof Error) || !('statusCode' in error)) return null;
  const { statusCode } = error;
  return typeof statusCode === 'number' && statusCode >= 400 && statusCode < 500
    ? statusCode
    : null;
}

function faultText(where: string, path: string, message: string): string {
  const place = where === 'querystring' ? 'query' : where;
  return `${path === '' ? place : `${place}.${path}`}: ${message}`.slice(0, FAULT_CHARS_MAX);
}

function titleOf(code: string): string {
  const words = code.toLowerCase().replaceAll('_', ' ');
  return words.charAt(0).toUpperCase() + words.slice(1);
}
