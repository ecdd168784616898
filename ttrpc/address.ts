/** Names of unix sockets. */

/** As the kernel takes it: '@' at the beginning, as Go and ss(8) write abstract names, becomes a zero byte. */
export function addressOf(path: string): string {
  return path.startsWith('@') ? `\0${path.slice(1)}` : path;
}

/** As people read it. */
export function nameOf(path: string): string {
  return path.startsWith('\0') ? `@${path.slice(1)}` : path;
}

export function isAbstract(path: string): boolean {
  return path.startsWith('\0') || path.startsWith('@');
}
