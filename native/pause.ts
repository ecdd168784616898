import { readFileSync } from 'node:fs';
import { fileURLToPath } from 'node:url';

/** The program that holds a pod's namespaces (pause/pause.c), as an executable file's content. @throws Error when it is not built */
export function pauseProgram(): Buffer {
  const path = fileURLToPath(new URL('../native/build/pause', import.meta.url));
  try {
    return readFileSync(path);
  } catch (cause) {
    throw new Error(`the program ${path} cannot be read; native/build.sh builds it`, { cause });
  }
}
