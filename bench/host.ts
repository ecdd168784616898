/** The machine and the programs that took part, for whoever reads the numbers later. */
import { execFileSync } from 'node:child_process';
import { cpus, release, totalmem } from 'node:os';
import type { Daemon } from '../test/harness/daemon.ts';
import { VersionDefinition } from '../proto/gen/containerd/services/version.ts';

export function machine(): string {
  const model = cpus()[0]?.model.trim() ?? 'unknown processor';
  const memory = Math.round(totalmem() / 1024 ** 3);
  return `${model}, ${cpus().length} cores, ${memory} GiB, Linux ${release()}`;
}

const firstLine = (command: string, ...args: string[]) =>
  (execFileSync(command, args, { encoding: 'utf8' }).split('\n')[0] ?? '').trim();

/** Versions by program; those of the daemons as they say themselves. */
export async function versions(daemons: readonly Daemon[]): Promise<Record<string, string>> {
  const named: Record<string, string> = {};
  for (const daemon of daemons) {
    using connection = daemon.connect();
    const { version } = await connection.service(VersionDefinition).version({});
    named[daemon.peer] = version;
  }
  named['runc'] = firstLine('runc', '--version').replace(/^runc version /, '');
  named['ctr'] = firstLine('ctr', '--version').split(' ').at(-1) ?? '';
  named['node'] = process.version;
  return named;
}
