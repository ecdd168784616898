/** What a daemon has for moving images, in a private folder. */
import { mkdirSync, mkdtempSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { NamespacedContent } from '../../content/namespaced-content.ts';
import { ContentStore } from '../../content/store.ts';
import { Differ } from '../../diff/differ.ts';
import { Differs } from '../../diff/differs.ts';
import { WalkingDiffer } from '../../diff/walking.ts';
import { parseNamespace } from '../../identifiers.ts';
import { ImageStore } from '../../images/store.ts';
import { openLog } from '../../log.ts';
import { MetadataStore } from '../../metadata/store.ts';
import { Snapshotters } from '../../snapshots/snapshotters.ts';
import { Distribution, type Session } from '../distribution.ts';
import type { Step } from '../progress.ts';
import type { RetryPolicy } from '../retry.ts';

export const here = parseNamespace('here');

/** Nobody waits long in a test. */
export const hasty: RetryPolicy = { attempts: 3, delay: 1, patience: 2000 };

export class Stage implements AsyncDisposable {
  readonly distribution: Distribution;
  readonly steps: Step[] = [];
  readonly #opened: AsyncDisposableStack;

  private constructor(distribution: Distribution, opened: AsyncDisposableStack) {
    this.distribution = distribution;
    this.#opened = opened;
  }

  static async open(): Promise<Stage> {
    const opened = new AsyncDisposableStack();
    const directory = mkdtempSync(join(tmpdir(), 'moor-distribution-'));
    opened.defer(() => rmSync(directory, { recursive: true }));
    const metadata = await MetadataStore.open(join(directory, 'metadata'));
    opened.defer(() => metadata.close());
    const { database, leases } = metadata;
    const content = new NamespacedContent(database, await ContentStore.open(join(directory, 'content')));
    opened.defer(() => content.close());
    const exchange = { publish: () => undefined };
    const images = new ImageStore(database, exchange);
    const surroundings = { database, exchange, log: openLog('fatal') };
    const snapshotters = await Snapshotters.open(directory, surroundings, {
      isDisabled: (name) => name !== 'overlayfs',
    });
    opened.defer(() => snapshotters.close());
    const folder = join(directory, 'differ');
    mkdirSync(folder);
    const differ = new Differ({ folder });
    opened.defer(() => differ.close());
    const differs = new Differs([new WalkingDiffer(differ, content)], ['walking']);
    return new Stage(new Distribution({ content, images, leases, snapshotters, differs }), opened);
  }

  session(signal = new AbortController().signal): Session {
    return { namespace: here, lease: undefined, signal, report: (step) => this.steps.push(step) };
  }

  [Symbol.asyncDispose](): Promise<void> {
    return this.#opened.disposeAsync();
  }
}
