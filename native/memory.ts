import { setFlagsFromString } from 'node:v8';
import { runInNewContext } from 'node:vm';
import { addon } from './addon.ts';

/**
 * Collects all garbage of the JavaScript heap and hands the empty pages back to the kernel, and those that malloc has and does not use
 * (malloc_trim(3)). Takes the event loop 30 to 90 ms.
 */
export function releaseMemory(): void {
  // Only the last resort hands pages back. It can be asked for where V8 shows its collector, and it shows it to new contexts only. Not
  // from the start on (`--expose-gc`): what Node has compiled of itself does not fit such a V8, and every start would take 30 ms more.
  setFlagsFromString('--expose-gc');
  const collect = runInNewContext('gc') as NodeJS.GCFunction;
  // What V8 compiles is kept under the flags that it has (dist/cache).
  setFlagsFromString('--no-expose-gc');
  collect({ type: 'major', execution: 'sync', flavor: 'last-resort' });
  addon().trimMemory();
}
