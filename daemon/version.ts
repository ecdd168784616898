/** What this build calls itself. */
import manifest from '../package.json' with { type: 'json' };

export const version: string = manifest.version;

/** Put in by scripts/build. */
declare const MOOR_REVISION: string | undefined;

/** The commit it was built from; the version where that is not known. `docker info` shows nothing but this. */
export const revision: string = (typeof MOOR_REVISION === 'string' && MOOR_REVISION) || version;
