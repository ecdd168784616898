/** What a transfer has told so far: one item for each part of the image. */
import type { Progress } from '../client/client.ts';

export type State = 'waiting' | 'downloading' | 'uploading' | 'fetched' | 'unpacking' | 'done' | 'exists';

export interface Item {
  /** As the daemon calls it: `layer-sha256:…`. */
  readonly key: string;
  /** For people: `layer 4b3f1c2d9e0a`. */
  readonly title: string;
  state: State;
  /** Bytes. */
  progress: number;
  total: number;
  /** Bytes that were there before this transfer. */
  from: number;
}

/** What an event makes of the item it is about. */
const STATES: { readonly [event: string]: State } = {
  waiting: 'waiting',
  downloading: 'downloading',
  uploading: 'uploading',
  complete: 'fetched',
  'already exists': 'exists',
  extracting: 'unpacking',
  extracted: 'done',
};

/** Later states do not go back to earlier ones: layers are told of by the download and the unpacking, each in its own order. */
const ORDER: readonly State[] = [
  'waiting',
  'downloading',
  'uploading',
  'fetched',
  'exists',
  'unpacking',
  'done',
];

export class Board {
  readonly #items = new Map<string, Item>();

  get items(): readonly Item[] {
    return [...this.#items.values()];
  }

  /** Bytes that this transfer has moved. */
  get moved(): number {
    return this.items.reduce(
      (sum, { progress, from, state }) => sum + (state === 'exists' ? 0 : progress - from),
      0,
    );
  }

  /** @returns the item and the state it was in when its state has changed */
  update({ event, name, progress, total }: Progress): { item: Item; before: State | undefined } | undefined {
    const state = STATES[event];
    if (state === undefined || name === '') return undefined;
    const known = this.#items.get(name);
    if (known === undefined) {
      const isMoving = state === 'downloading' || state === 'uploading';
      // What unpacking tells first was there before.
      const from = isMoving || state === 'exists' || state === 'done' ? progress : 0;
      const item = { key: name, title: titleOf(name), state, progress, total, from };
      this.#items.set(name, item);
      return { item, before: undefined };
    }
    const before = known.state;
    if (total > 0) known.total = total;
    if (before === 'waiting' && (state === 'downloading' || state === 'exists')) known.from = progress;
    if (state === 'exists' && (before === 'unpacking' || before === 'done')) known.from = progress;
    if (state !== 'unpacking' && progress > known.progress) known.progress = progress;
    // A broken download that begins again is the only step back.
    if (state === 'downloading' && before === 'downloading') known.progress = progress;
    if (ORDER.indexOf(state) <= ORDER.indexOf(before)) return undefined;
    known.state = state;
    return { item: known, before };
  }
}

function titleOf(key: string): string {
  const match = /^([a-z]+)-[a-z0-9]+:([0-9a-f]{12})/.exec(key);
  return match === null ? key : `${match[1]} ${match[2]}`;
}
