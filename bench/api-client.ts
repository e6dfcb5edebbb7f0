import { reasonOf, ToolFailedError } from '../errors.ts';

/** One value of a page of history. Booleans come as 1/0 or true/false, texts as text. */
export interface HistoryRow {
  time: string;
  metric: string;
  value: number | boolean | string | null;
}

/** A key as the API lists it. The secret is not in it. */
export interface ListedKey {
  keyId: string;
  name: string;
  state: string;
}

/** An alert with why each of its steps was taken. */
export interface ExplainedAlert {
  alertId: string;
  rule: string;
  device: string;
  transitions: {
    sequence: number;
    at: string;
    from: string;
    to: string;
    words: string;
    operands: { name: string; value: number | string | boolean | null }[];
  }[];
}

/** A command, as the API shows it. */
export interface ToldCommand {
  id: string;
  device: string;
  command: string;
  args: Record<string, unknown>;
  state: string;
  result: unknown;
  code: string | null;
  origin: string;
  createdAt: string;
  /** Its steps; not in lists. */
  events?: { time: string; state: string }[];
}

const TIMEOUT_MS = 30_000;
/** Rows that one page of history asks for: the default of PAGE_ROWS_MAX. */
const PAGE_ROWS = 10_000;

/** The few calls of Puback's HTTP API that the tools need. Every call throws {@link ToolFailedError}. */
export class ApiClient {
  readonly #httpUrl: string;
  readonly #adminKey: string;

  constructor(httpUrl: string, adminKey: string) {
    this.#httpUrl = httpUrl.replace(/\/+$/, '');
    this.#adminKey = adminKey;
  }

  /** @throws {ToolFailedError} when no program answers there, with the command that starts one. */
  async assertReady(): Promise<void> {
    const answer = await fetch(`${this.#httpUrl}/health/ready`, {
      signal: AbortSignal.timeout(TIMEOUT_MS),
    }).catch((error: unknown) => {
      throw new ToolFailedError(
        `Puback does not answer at ${this.#httpUrl} (${connectReason(error)}). Start it in another terminal: npm start`,
      );
    });
    if (answer.ok) return;
    const text = (await answer.text()).slice(0, 300);
    throw new ToolFailedError(
      `Puback at ${this.#httpUrl} is not ready: HTTP ${answer.status} ${text}`,
    );
  }

  /** Makes a device; one that exists already is left as it is. */
  async ensureDevice(device: string, displayName: string, tags: readonly string[]): Promise<void> {
    const { status, body } = await this.#send('POST', '/api/v1/devices', {
      device,
      displayName,
      tags,
    });
    if (status === 201 || codeOf(body) === 'DEVICE_EXISTS') return;
    throw refusal(`device ${device} cannot be made`, status, body);
  }

  /** The keys of a device, revoked ones too. */
  async listKeys(device: string): Promise<ListedKey[]> {
    const { status, body } = await this.#send('GET', `${devicePath(device)}/keys`);
    if (status !== 200) throw refusal(`keys of ${device} cannot be listed`, status, body);
    return (body as { data: ListedKey[] }).data;
  }

  /** Makes a key; this is the only time that it is shown. */
  async makeKey(device: string, name: string): Promise<{ keyId: string; key: string }> {
    const { status, body } = await this.#send('POST', `${devicePath(device)}/keys`, { name });
    if (status !== 201) throw refusal(`a key for ${device} cannot be made`, status, body);
    return body as { keyId: string; key: string };
  }

  /** Revokes a key; one that is gone already is not an error. */
  async revokeKey(device: string, keyId: string): Promise<void> {
    const { status, body } = await this.#send('DELETE', `${devicePath(device)}/keys/${keyId}`);
    if (status === 204 || status === 404) return;
    throw refusal(`key ${keyId} of ${device} cannot be revoked`, status, body);
  }

  /** History between two times, page by page, oldest first. */
  async *history(device: string, fromMs: number, toMs: number): AsyncGenerator<HistoryRow[]> {
    const query = new URLSearchParams({
      from: new Date(fromMs).toISOString(),
      to: new Date(toMs).toISOString(),
      order: 'asc',
      limit: String(PAGE_ROWS),
    });
    for (;;) {
      const path = `${devicePath(device)}/readings?${query.toString()}`;
      const { status, body } = await this.#send('GET', path);
      if (status !== 200) throw refusal(`history of ${device} cannot be read`, status, body);
      const page = body as { data: HistoryRow[]; next: string | null };
      yield page.data;
      if (page.next === null) return;
      query.set('cursor', page.next);
    }
  }

  /** Makes something of a collection. @returns it, as it was answered. */
  async make(path: string, content: object): Promise<Record<string, unknown>> {
    const { status, body } = await this.#send('POST', path, content);
    if (status !== 200 && status !== 201) throw refusal(`POST ${path}`, status, body);
    return body as Record<string, unknown>;
  }

  /** Reads one thing. */
  async read(path: string): Promise<Record<string, unknown>> {
    const { status, body } = await this.#send('GET', path);
    if (status !== 200) throw refusal(`GET ${path}`, status, body);
    return body as Record<string, unknown>;
  }

  /** Makes an alert rule; one that has its name already is left as it is. */
  async ensureRule(rule: { readonly name: string }): Promise<void> {
    const { status, body } = await this.#send('POST', '/api/v1/rules', rule);
    if (status === 201 || codeOf(body) === 'RULE_EXISTS') return;
    throw refusal(`rule "${rule.name}" cannot be made`, status, body);
  }

  /** The last hundred alerts of a rule that began at a time or behind it, oldest first. */
  async alertsOf(rule: string, fromMs: number): Promise<{ id: string }[]> {
    const query = new URLSearchParams({ rule, from: new Date(fromMs).toISOString() });
    const { status, body } = await this.#send('GET', `/api/v1/alerts?${query.toString()}`);
    if (status !== 200) throw refusal(`alerts of "${rule}" cannot be listed`, status, body);
    return (body as { data: { id: string }[] }).data.toReversed();
  }

  /** Why an alert did what it did. */
  async explain(alertId: string): Promise<ExplainedAlert> {
    const { status, body } = await this.#send('GET', `/api/v1/alerts/${alertId}/explain`);
    if (status !== 200) throw refusal(`alert ${alertId} cannot be explained`, status, body);
    return body as ExplainedAlert;
  }

  /** Sends a command. @returns it as it was queued. */
  async sendCommand(device: string, command: object): Promise<ToldCommand> {
    const { status, body } = await this.#send('POST', `${devicePath(device)}/commands`, command);
    if (status > 202) throw refusal(`a command for ${device} cannot be sent`, status, body);
    return body as ToldCommand;
  }

  /** The newest commands of all devices, newest first. */
  async listCommands(limit: number): Promise<ToldCommand[]> {
    const { status, body } = await this.#send('GET', `/api/v1/commands?limit=${limit}`);
    if (status !== 200) throw refusal('commands cannot be listed', status, body);
    return (body as { data: ToldCommand[] }).data;
  }

  /** A command with its steps. */
  async getCommand(id: string): Promise<ToldCommand> {
    const { status, body } = await this.#send('GET', `/api/v1/commands/${id}`);
    if (status !== 200) throw refusal(`command ${id} cannot be read`, status, body);
    return body as ToldCommand;
  }

  /** The samples of the Prometheus page, by name with labels as it stands there. */
  async metrics(): Promise<Map<string, number>> {
    const { status, body } = await this.#send('GET', '/metrics');
    if (status !== 200) throw refusal('/metrics cannot be read', status, body);
    const samples = new Map<string, number>();
    for (const line of String(body).split('\n')) {
      const cut = line.lastIndexOf(' ');
      if (!line.startsWith('#') && cut > 0)
        samples.set(line.slice(0, cut), Number(line.slice(cut)));
    }
    return samples;
  }

  async #send(
    method: string,
    path: string,
    content?: object,
  ): Promise<{ status: number; body: unknown }> {
    try {
      const answer = await fetch(this.#httpUrl + path, {
        method,
        headers: {
          authorization: `Bearer ${this.#adminKey}`,
          ...(content === undefined ? {} : { 'content-type': 'application/json' }),
        },
        ...(content === undefined ? {} : { body: JSON.stringify(content) }),
        signal: AbortSignal.timeout(TIMEOUT_MS),
      });
      const text = await answer.text();
      const isJson = answer.headers.get('content-type')?.includes('json') === true;
      return { status: answer.status, body: isJson ? JSON.parse(text) : text };
    } catch (error) {
      throw new ToolFailedError(`${method} ${path.split('?')[0]}: ${connectReason(error)}`, {
        cause: error,
      });
    }
  }
}

function devicePath(device: string): string {
  return `/api/v1/devices/${encodeURIComponent(device)}`;
}

function codeOf(body: unknown): unknown {
  return typeof body === 'object' && body !== null && 'code' in body ? body.code : undefined;
}

function refusal(what: string, status: number, body: unknown): ToolFailedError {
  const text = typeof body === 'string' ? body : JSON.stringify(body);
  return new ToolFailedError(`${what}: HTTP ${status} ${text.slice(0, 300)}`);
}

/** fetch says only "fetch failed"; the reason stands in its cause. */
function connectReason(error: unknown): string {
  const cause = error instanceof Error ? error.cause : undefined;
  if (cause instanceof Error) {
    return 'code' in cause && typeof cause.code === 'string' ? cause.code : reasonOf(cause);
  }
  return reasonOf(error);
}
