import { randomBytes } from 'node:crypto';
import { Readable } from 'node:stream';
import { Failure } from '../failure.ts';
import { type SnapshotterFlags, snapshotterOf } from '../image/platforms.ts';
import { interruptible } from '../interrupt.ts';
import { parseLabels } from '../labels.ts';
import { copyOut } from '../output.ts';
import type { Snapshots } from '../../client/client.ts';
import type { Session } from '../session.ts';
import { rootLabel } from './verbs.ts';

export interface DiffFlags {
  readonly mediaType: string;
  readonly ref?: string;
  readonly keep?: boolean;
  readonly label?: readonly string[];
}

/** Milliseconds. */
const LEASE_LIFE = 24 * 60 * 60 * 1000;

/** The layer leads from the first to the second: from a to b, or from a's parent to a. */
export async function diff(
  session: Session,
  which: SnapshotterFlags,
  a: string,
  b: string | undefined,
  flags: DiffFlags,
): Promise<void> {
  const { client } = session;
  if (process.stdout.isTTY && flags.keep !== true)
    throw new Failure('a layer is not for a terminal', 'send stdout to a file or to tar -tz');
  await interruptible(session, 'nothing has been kept', async (call) => {
    const { id } = await client.leases.create({ ...call, expires: LEASE_LIFE });
    try {
      const leased = client.withLease(id);
      const snapshots = leased.snapshots(snapshotterOf(which));
      const [lower, upper] = b === undefined ? [(await snapshots.stat(a, call)).parent, a] : [a, b];
      const { mediaType, ref = '', label = [], keep = false } = flags;
      const labels = { ...parseLabels(label), ...(keep && rootLabel()) };
      await using lowerMounts = await mountsOf(session, snapshots, lower, call);
      await using upperMounts = await mountsOf(session, snapshots, upper, call);
      const layer = await leased.diffs.compare(lowerMounts.mounts, upperMounts.mounts, {
        ...call,
        mediaType,
        ref,
        labels,
      });
      await copyOut(Readable.from(client.content.read(layer.digest, call)), 1);
    } finally {
      await client.leases.delete(id);
    }
  });
}

type Mounts = Awaited<ReturnType<Snapshots['mounts']>>;

/** A committed snapshot is looked at through a view, which is removed afterwards. */
async function mountsOf(
  { sdk }: Session,
  snapshots: Snapshots,
  key: string,
  call: Session['call'],
): Promise<AsyncDisposable & { readonly mounts: Mounts }> {
  const kind = key === '' ? undefined : (await snapshots.stat(key, call)).kind;
  if (kind !== undefined && sdk.kindName(kind) !== 'COMMITTED')
    return { mounts: await snapshots.mounts(key, call), async [Symbol.asyncDispose]() {} };
  const view = `${key}-view-${randomBytes(6).toString('hex')}`;
  const mounts = await snapshots.view(view, key, call);
  return { mounts, [Symbol.asyncDispose]: () => snapshots.remove(view) };
}
