/** One after the other: who works on the same thing waits, in order, and can give up waiting. */
export class Turns {
  readonly #last = new Map<string, Promise<void>>();

  isTaken(key: string): boolean {
    return this.#last.has(key);
  }

  /** Runs the action when all before it under the same key are done. @throws what it throws, or what the signal was aborted with */
  async take<T>(key: string, signal: AbortSignal | undefined, action: () => Promise<T>): Promise<T> {
    const before = this.#last.get(key);
    const { promise, resolve } = Promise.withResolvers<void>();
    const mine = before === undefined ? promise : before.then(() => promise);
    this.#last.set(key, mine);
    try {
      if (before !== undefined) await untilAborted(before, signal);
      return await action();
    } finally {
      resolve();
      if (this.#last.get(key) === mine) this.#last.delete(key);
    }
  }
}

/** A number of places; who finds none waits for one. */
export class Places {
  #free: number;
  readonly #waiting: (() => void)[] = [];

  constructor(count: number) {
    this.#free = count;
  }

  async take<T>(signal: AbortSignal | undefined, action: () => Promise<T>): Promise<T> {
    signal?.throwIfAborted();
    if (this.#free > 0) this.#free -= 1;
    else await this.#wait(signal);
    try {
      return await action();
    } finally {
      const next = this.#waiting.shift();
      if (next === undefined) this.#free += 1;
      else next();
    }
  }

  async #wait(signal: AbortSignal | undefined): Promise<void> {
    const { promise, resolve } = Promise.withResolvers<void>();
    this.#waiting.push(resolve);
    try {
      await untilAborted(promise, signal);
    } catch (error) {
      const index = this.#waiting.indexOf(resolve);
      if (index >= 0) this.#waiting.splice(index, 1);
      // The place has come at the same moment as the end.
      else this.#pass();
      throw error;
    }
  }

  #pass(): void {
    const next = this.#waiting.shift();
    if (next === undefined) this.#free += 1;
    else next();
  }
}

/** @throws what the signal is aborted with, if that comes first */
export async function untilAborted<T>(promise: Promise<T>, signal: AbortSignal | undefined): Promise<T> {
  if (signal === undefined) return promise;
  signal.throwIfAborted();
  const { promise: aborted, reject } = Promise.withResolvers<never>();
  const onAbort = (): void => reject(signal.reason as Error);
  signal.addEventListener('abort', onAbort, { once: true });
  try {
    return await Promise.race([promise, aborted]);
  } finally {
    signal.removeEventListener('abort', onAbort);
  }
}

/**
 * Does everything at once. When one part fails the others are told to stop, and have stopped when this rejects.
 *
 * @throws what the first one failed with
 */
export async function together(parts: readonly Promise<unknown>[], stop: AbortController): Promise<void> {
  const failures: unknown[] = [];
  const watched = parts.map((part) =>
    part.then(
      () => undefined,
      (error: unknown) => {
        failures.push(error);
        stop.abort(error);
      },
    ),
  );
  await Promise.all(watched);
  if (failures.length > 0) throw failures[0] as Error;
}
