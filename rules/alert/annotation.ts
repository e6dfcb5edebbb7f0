/** Characters of a rendered annotation; what is longer is cut. */
export const ANNOTATION_CHARS_MAX = 1000;

const CUT_MARK = '…';
const TEMPLATE_PART = /\{\{([^{}]*)\}\}/g;
const NAMED = /^(metric|label)\s+(\S+)$/;

/** What a template may ask for. */
export interface AnnotationInputs {
  readonly device: string;
  readonly rule: string;
  readonly severity: string;
  /** Of the first metric of the rule. */
  readonly value: AnnotationValue;
  readonly labels: Readonly<Record<string, string>>;
  /** The newest value of a metric that the rule looks at; null when there is none. */
  metric(name: string): AnnotationValue;
}

/** A value for people; null: there is none. */
export type AnnotationValue = number | string | boolean | null;

/** Names that the templates of a rule may use. */
export interface AnnotationNames {
  readonly metrics: readonly string[];
  readonly labels: Readonly<Record<string, string>>;
}

/**
 * Fills in a template: `{{device}}`, `{{value}}`, `{{severity}}`, `{{rule}}`, `{{metric NAME}}` and
 * `{{label NAME}}`. Never throws: an unknown name stays as it stands. What is filled in is not looked at
 * again, so no value can bring a template with it.
 * @returns {@link ANNOTATION_CHARS_MAX} characters at most.
 */
export function renderAnnotation(template: string, inputs: AnnotationInputs): string {
  const text = template.replace(TEMPLATE_PART, (whole, name: string) => {
    const value = findValue(name.trim(), inputs);
    return value === undefined ? whole : shownValue(value);
  });
  return cutText(text);
}

/** Renders every annotation of a rule. */
export function renderAnnotations(
  templates: Readonly<Record<string, string>>,
  inputs: AnnotationInputs,
): Readonly<Record<string, string>> {
  const rendered: Record<string, string> = {};
  for (const [name, template] of Object.entries(templates)) {
    rendered[name] = renderAnnotation(template, inputs);
  }
  return rendered;
}

/** What is wrong with a template, for who wrote it; null: nothing. */
export function findTemplateFault(template: string, names: AnnotationNames): string | null {
  for (const [whole, name = ''] of template.matchAll(TEMPLATE_PART)) {
    const fault = findNameFault(name.trim(), names);
    if (fault !== null) return `${whole.slice(0, 80)}: ${fault}`;
  }
  const rest = template.replace(TEMPLATE_PART, '');
  return /\{\{|\}\}/.test(rest) ? 'has {{ or }} without its counterpart' : null;
}

/** A value as people write it: of a fraction ten digits, so that 0.1 + 0.2 is 0.3. */
export function shownValue(value: AnnotationValue): string {
  if (value === null) return 'none';
  if (typeof value !== 'number') return String(value);
  if (!Number.isFinite(value)) return 'none';
  return String(Number.isInteger(value) ? value : Number(value.toPrecision(10)));
}

function findValue(name: string, inputs: AnnotationInputs): AnnotationValue | undefined {
  switch (name) {
    case 'device':
      return inputs.device;
    case 'rule':
      return inputs.rule;
    case 'severity':
      return inputs.severity;
    case 'value':
      return inputs.value;
    default: {
      const [, kind, asked = ''] = NAMED.exec(name) ?? [];
      if (kind === 'metric') return inputs.metric(asked);
      return kind === 'label' && Object.hasOwn(inputs.labels, asked)
        ? inputs.labels[asked]
        : undefined;
    }
  }
}

function findNameFault(name: string, { metrics, labels }: AnnotationNames): string | null {
  if (['device', 'rule', 'severity', 'value'].includes(name)) return null;
  const [, kind, asked = ''] = NAMED.exec(name) ?? [];
  if (kind === 'metric') {
    return metrics.includes(asked) ? null : 'the rule does not look at this metric';
  }
  if (kind === 'label') {
    return Object.hasOwn(labels, asked) ? null : 'the rule does not have this label';
  }
  return 'must be device, value, severity, rule, metric NAME or label NAME';
}

/** Never between the halves of a surrogate pair, which PostgreSQL cannot store. */
function cutText(text: string): string {
  if (text.length <= ANNOTATION_CHARS_MAX) return text;
  const cut = text.slice(0, ANNOTATION_CHARS_MAX - CUT_MARK.length);
  return cut.replace(/[\uD800-\uDBFF]$/, '') + CUT_MARK;
}
