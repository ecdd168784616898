/** What a check has to say of one thing. */
export interface Finding {
  /** What it is about, by the name that clients or the disk have for it: `blob sha256:…`, `bundle default/web`. */
  readonly object: string;
  readonly problem: string;
  /**
   * - damaged: it is there and is not what it should be
   * - missing: something needs it, and it is not there
   * - leftover: nothing needs it
   * - note: the daemon knows how to live with it, or puts it in order at its next start
   */
  readonly kind: 'damaged' | 'missing' | 'leftover' | 'note';
  /** What can be done about it by hand. */
  readonly advice?: string | undefined;
  readonly repair?: Repair | undefined;
}

export interface Repair {
  /** What it does, as a sentence that says it has been done: `the file has been removed`. */
  readonly done: string;
  run(): Promise<void>;
}

/** Whether it keeps the whole from being called sound. */
export function isProblem({ kind }: Finding): boolean {
  return kind !== 'note';
}
