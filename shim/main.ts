import { fstatSync, readFileSync, writeSync } from 'node:fs';
import { basename } from 'node:path';
import { messageOf } from '../ttrpc/errors.ts';
import { parseFlags, type Flags } from './flags.ts';
import { Log } from './log.ts';
import { SOCKET_FD } from './socket.ts';

const [STDIN, STDOUT, STDERR] = [0, 1, 2];
const PROGRAM = 'containerd-shim-moor-v1';

/** The commands of the shim binary contract, and `serve`, which is the shim itself. Each loads only what it needs. */
async function main(flags: Flags): Promise<void> {
  if (flags.version) return print((await import('./info.ts')).versionText(PROGRAM));
  if (flags.info) return print((await import('./info.ts')).encodeInfo(readInput()));
  if (flags.action === 'template') return serveForked(flags.bundle);
  if (flags.namespace === '') throw new Error('the namespace must be given');
  const { namespace, id, action } = flags;
  const log = new Log(STDERR, flags.debug ? 'debug' : 'info', { namespace, id });
  switch (action) {
    case 'start':
      return print((await import('./start.ts')).start(flags, readInput()));
    case 'delete':
      return print(await (await import('./delete.ts')).deleteTask(flags, log));
    case 'serve':
      return (await import('./serve.ts')).serve({ namespace, events: eventsPath(), log, socket: SOCKET_FD });
    default:
      throw new Error(`unknown action ${action || '(none)'}`);
  }
}

/** In the template, for ever; in each shim that it forks, until that shim is done. */
async function serveForked(scratch: string): Promise<void> {
  const [{ serve }, { serveTemplate }] = await Promise.all([import('./serve.ts'), import('./template.ts')]);
  const { namespace, id, debug, listener, sealedRunc } = await serveTemplate(scratch);
  const log = new Log(STDERR, debug ? 'debug' : 'info', { namespace, id });
  return serve({ namespace, events: eventsPath(), log, socket: listener, sealedRunc });
}

/** The path of the daemon's ttrpc socket, which some daemons write as a URI. */
function eventsPath(): string {
  return (process.env['TTRPC_ADDRESS'] ?? '').replace(/^unix:\/\//, '');
}

/** Standard input to its end, unless it is a terminal: somebody tries the program by hand. */
function readInput(): Uint8Array {
  return fstatSync(STDIN).isCharacterDevice() ? Buffer.alloc(0) : readFileSync(STDIN);
}

function print(output: string | Uint8Array): void {
  const bytes = Buffer.from(output);
  for (let written = 0; written < bytes.length;) written += writeSync(STDOUT, bytes, written);
}

try {
  await main(parseFlags(process.argv.slice(2)));
  process.exit(0);
} catch (error) {
  writeSync(STDERR, `${basename(PROGRAM)}: ${messageOf(error)}\n`);
  process.exit(1);
}
