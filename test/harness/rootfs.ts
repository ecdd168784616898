/** Root file systems for containers, made of Debian's static busybox. */
import { copyFileSync, mkdirSync, mkdtempSync, rmSync, symlinkSync, writeFileSync } from 'node:fs';
import { execFileSync } from 'node:child_process';
import { join } from 'node:path';

const busybox = '/bin/busybox';

/**
 * Makes a root file system in `directory` (which must not exist): /bin with all applets, and the directories runc mounts
 * on. Containers may share it.
 */
export function makeRootfs(directory: string): string {
  const bin = join(directory, 'bin');
  for (const name of ['bin', 'dev', 'etc', 'proc', 'root', 'run', 'sys', 'tmp'])
    mkdirSync(join(directory, name), { recursive: true });
  copyFileSync(busybox, join(bin, 'busybox'));
  const applets = execFileSync(busybox, ['--list'], { encoding: 'utf8' }).trim().split('\n');
  // The list names busybox itself, which must not become a link to itself.
  for (const applet of applets) if (applet !== 'busybox') symlinkSync('busybox', join(bin, applet));
  writeFileSync(join(directory, 'etc/passwd'), 'root:x:0:0:root:/root:/bin/sh\n');
  writeFileSync(join(directory, 'etc/group'), 'root:x:0:\n');
  return directory;
}

let shared: string | undefined;

/** One root file system for all containers of this test process; removed when the process exits. */
export function sharedRootfs(): string {
  if (shared === undefined) {
    const parent = mkdtempSync('/tmp/mr-');
    process.on('exit', () => rmSync(parent, { recursive: true, force: true }));
    shared = makeRootfs(join(parent, 'fs'));
  }
  return shared;
}

let scripts = 0;

/** Puts a shell script into the shared root file system; returns the command that runs it, which has no flags. */
export function script(text: string): string[] {
  scripts += 1;
  const name = `script-${scripts}`;
  writeFileSync(join(sharedRootfs(), name), text);
  return ['/bin/sh', `/${name}`];
}
