import { Counter, type Registry as MetricsRegistry } from 'prom-client';
import type { KeyAnswer, KeyDenial } from '../../firmware-protocol/key-request.ts';

/** Steps of rotations that are counted. */
export type RotationStep = 'asked' | 'issued' | 'activated' | 'old_key_used' | 'rolled_back';

/** What boards were told that asked for a key; `unavailable`: to ask again, since nobody could decide. */
export type KeyAnswerOutcome = 'ok' | 'wait' | 'unavailable' | KeyDenial;

/** What is counted of rotations and claims. */
export interface KeyMetrics {
  rotation(step: RotationStep): void;
  /** A device that changes its key, or a board that claims a name, was answered. */
  answered(by: 'rotation' | 'claim', outcome: KeyAnswerOutcome): void;
}

/** Makes the metrics of rotations and claims. */
export function createKeyMetrics(registry: MetricsRegistry): KeyMetrics {
  const rotations = new Counter({
    name: 'puback_registry_key_rotation_steps_total',
    help: 'Steps of changes of the keys of devices.',
    labelNames: ['step'],
    registers: [registry],
  });
  const answers = new Counter({
    name: 'puback_registry_key_answers_total',
    help: 'What boards were told that asked for a key, by what they asked with.',
    labelNames: ['by', 'outcome'],
    registers: [registry],
  });
  return {
    rotation: (step) => rotations.inc({ step }),
    answered: (by, outcome) => answers.inc({ by, outcome }),
  };
}

/** What an answer is counted as. */
export function outcomeOf(answer: KeyAnswer): KeyAnswerOutcome {
  return answer.st === 'no' ? answer.code : answer.st;
}
