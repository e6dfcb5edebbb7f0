/** Where a tool says how far it is. */
export interface Progress {
  /** Shows a line: rewritten in place on a terminal, else at most one line every five seconds. */
  show(line: string): void;
  /** Shows a line that a plain stream gets in any case: a new part of the work begins. */
  step(line: string): void;
  /** Ends the line that is shown, so that what follows stands below it. */
  end(): void;
}

const PLAIN_LINE_EVERY_MS = 5000;
const TERMINAL_LINE_EVERY_MS = 100;

/** Progress on a stream; standard output stays free for results when the stream is standard error. */
export function createProgress(stream: NodeJS.WriteStream): Progress {
  return stream.isTTY ? terminalProgress(stream) : plainProgress(stream);
}

function terminalProgress(stream: NodeJS.WriteStream): Progress {
  let isOpen = false;
  let shownAt = Number.NEGATIVE_INFINITY;
  const step = (line: string): void => {
    // Cut to the width: a wrapped line cannot be rewritten. Some terminals say that they have none.
    stream.write(`\r\x1b[K${line.slice(0, (stream.columns || 80) - 1)}`);
    isOpen = true;
    shownAt = performance.now();
  };
  return {
    show(line) {
      if (performance.now() - shownAt >= TERMINAL_LINE_EVERY_MS) step(line);
    },
    step,
    end() {
      if (isOpen) stream.write('\n');
      isOpen = false;
    },
  };
}

function plainProgress(stream: NodeJS.WriteStream): Progress {
  let shownAt = Number.NEGATIVE_INFINITY;
  const step = (line: string): void => {
    shownAt = performance.now();
    stream.write(`${line}\n`);
  };
  return {
    show(line) {
      if (performance.now() - shownAt >= PLAIN_LINE_EVERY_MS) step(line);
    },
    step,
    end() {
      shownAt = Number.NEGATIVE_INFINITY;
    },
  };
}
