/**
 * Hands lmdb its addon. In the daemon's bundle this stands for the package that lmdb asks for it (scripts/build): a search through
 * folders and a question for the C library, which took a third of the time that loading lmdb takes.
 */
import { createRequire } from 'node:module';
import { dirname, join } from 'node:path';

/** Fits every Node that has Node-API, with the C library of the Node that the project brings. */
const PREBUILT = `@lmdb/lmdb-${process.platform}-${process.arch}/node.napi.glibc.node`;

/** @throws Error when there is none for this machine */
export default function loadAddon(): unknown {
  const near = createRequire(import.meta.url);
  try {
    return near(PREBUILT);
  } catch (error) {
    if ((error as NodeJS.ErrnoException).code !== 'MODULE_NOT_FOUND') throw error;
  }
  // Compiled on this machine, since nobody has done it for such a one.
  const search = near('node-gyp-build-optional-packages') as (folder: string) => unknown;
  return search(join(dirname(near.resolve('lmdb')), '..'));
}
