/** Runs tasks one after the other, in the order they came. One that fails does not hold up the next. */
export class Queue {
  #last: Promise<unknown> = Promise.resolve();

  run<T>(task: () => Promise<T>): Promise<T> {
    const result = this.#last.then(task);
    this.#last = result.catch(() => undefined);
    return result;
  }

  /** Resolves when everything that has come so far is done, or has failed. */
  async idle(): Promise<void> {
    await this.#last;
  }
}
