/** Content of registries. */
import { Readable } from 'node:stream';
import { fetchImage, type PullFlags } from '../image/pull.ts';
import { interruptible } from '../interrupt.ts';
import { copyOut } from '../output.ts';
import { registryOptions, type RegistryFlags } from '../registry-flags.ts';
import type { Session } from '../session.ts';

export type FetchFlags = Omit<PullFlags, 'unpack' | 'printChainid'>;

export async function fetch(session: Session, reference: string, flags: FetchFlags): Promise<void> {
  await fetchImage(session, reference, { ...flags, unpack: false });
}

/** Milliseconds. */
const LEASE_LIFE = 60 * 60 * 1000;

/** Fetched content is held until it has been printed. */
export async function fetchObjects(
  session: Session,
  reference: string,
  digests: readonly string[],
  flags: RegistryFlags,
): Promise<void> {
  const { client } = session;
  const registry = { ...(await registryOptions(flags, session)), ...tracing(flags) };
  await interruptible(session, 'nothing has been kept', async (call) => {
    const { id } = await client.leases.create({ ...call, expires: LEASE_LIFE });
    try {
      const leased = client.withLease(id);
      for (const digest of digests.length === 0 ? [''] : digests) {
        const found = await leased.transfers.fetchObject(reference, { ...call, ...registry, digest });
        await copyOut(Readable.from(client.content.read(found.digest, call)), 1);
      }
    } finally {
      await client.leases.delete(id);
    }
  });
}

export async function pushObject(
  session: Session,
  reference: string,
  object: { readonly digest: string; readonly mediaType: string },
  flags: RegistryFlags,
): Promise<void> {
  const registry = { ...(await registryOptions(flags, session)), ...tracing(flags) };
  await interruptible(session, 'nothing is to be undone', (call) =>
    session.client.transfers.pushObject(reference, object, { ...call, ...registry }),
  );
  console.log(`Pushed ${object.digest} ${object.mediaType}`);
}

/** What is told of exchanges goes to stderr, as stdout has the content. */
function tracing({ httpDump, httpTrace }: RegistryFlags): {
  onProgress?: (progress: { readonly event: string; readonly name: string }) => void;
} {
  if (httpDump !== true && httpTrace !== true) return {};
  return { onProgress: ({ event, name }) => event === 'http' && console.error(name) };
}
