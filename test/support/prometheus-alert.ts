/**
 * One alert as Prometheus evaluates it: the body of `AlertingRule.Eval` of rules/alerting.go, for one set
 * of labels. The reference that our state machine is held against.
 */
export class PrometheusAlert {
  state: 'inactive' | 'pending' | 'firing' = 'inactive';
  activeAt = NaN;
  #keepFiringSince: number | null = null;
  readonly #holdDuration: number;
  readonly #keepFiringFor: number;

  constructor(holdDuration: number, keepFiringFor: number) {
    this.#holdDuration = holdDuration;
    this.#keepFiringFor = keepFiringFor;
  }

  evaluate(holds: boolean, time: number): void {
    if (holds) {
      if (this.state === 'inactive') {
        this.state = 'pending';
        this.activeAt = time;
      }
      this.#keepFiringSince = null;
    } else if (!this.#isKept(time)) {
      this.state = 'inactive';
      this.#keepFiringSince = null;
      return;
    }
    if (this.state === 'pending' && time - this.activeAt >= this.#holdDuration)
      this.state = 'firing';
  }

  #isKept(time: number): boolean {
    if (this.state !== 'firing' || this.#keepFiringFor === 0) return false;
    this.#keepFiringSince ??= time;
    return time - this.#keepFiringSince < this.#keepFiringFor;
  }
}
