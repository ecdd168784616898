import { addon } from './addon.ts';

/** Hands what malloc has and does not use back to the kernel (malloc_trim(3)). @returns whether there was any */
export function trimMemory(): boolean {
  return addon().trimMemory();
}
