/** What this build calls itself. */
import manifest from '../package.json' with { type: 'json' };

export const version: string = manifest.version;

/** The commit it was built from; empty when that is not known, as it is not when run from sources. */
export const revision = '';
