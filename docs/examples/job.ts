/**
 * Runs a command in a container of an image, looks into it while it runs, and leaves nothing behind.
 *
 *     job.ts IMAGE COMMAND…
 *
 * IMAGE is an archive (an OCI layout, or what `docker save` has written) or a reference to pull. The daemon's socket is MOOR_ADDRESS.
 */
import { createReadStream, existsSync } from 'node:fs';
import { pipeline } from 'node:stream/promises';
// In your program: `from 'moor'`.
import { Code, connect, isCode, type Client } from '../../client/client.ts';

const [, , source, ...args] = process.argv;
if (source === undefined || args.length === 0) {
  process.stderr.write('usage: job.ts IMAGE COMMAND…\n');
  process.exit(2);
}

/** Ctrl-C ends every call that is waiting, and with them this program, in good order. */
const interrupted = new AbortController();
process.once('SIGINT', () => interrupted.abort());
const { signal } = interrupted;

/** The image's name in the daemon. */
async function imageOf(client: Client, archiveOrReference: string): Promise<string> {
  if (!existsSync(archiveOrReference)) {
    const onProgress = ({ event, name }: { event: string; name: string }): void => {
      if (event === 'complete') process.stderr.write(`${name} is here\n`);
    };
    return (await client.transfers.pull(archiveOrReference, { signal, onProgress })).name;
  }
  const [name] = await client.transfers.import(createReadStream(archiveOrReference), { signal });
  if (name === undefined) throw new Error(`${archiveOrReference} has no image with a name`);
  return name;
}

/** Tells what happens to one container, until `done`. */
async function tell(client: Client, id: string, done: AbortSignal): Promise<void> {
  try {
    for await (const { topic, message } of client.events([`namespace==${client.namespace}`], {
      signal: done,
    })) {
      if (JSON.stringify(message, printable).includes(`"${id}"`)) process.stderr.write(`event ${topic}\n`);
    }
  } catch (error) {
    if (!isCode(error, Code.Cancelled)) throw error;
  }
}

/** JSON knows no bigint. */
function printable(_: string, value: unknown): unknown {
  return typeof value === 'bigint' ? String(value) : value;
}

async function run(image: string, command: readonly string[]): Promise<number> {
  const client = await connect({
    address: process.env['MOOR_ADDRESS'],
    namespace: 'jobs',
    patience: 5000,
    signal,
  });
  using _ = client;
  const name = await imageOf(client, image);
  const id = `job-${process.pid}`;
  const done = new AbortController();
  const telling = tell(client, id, done.signal);
  try {
    // Disposed in the opposite order, whatever happens: the task is killed if it runs, then the container and its snapshot go.
    await using container = await client.containers.createFromImage(id, name, {
      spec: { args: [...command] },
    });
    await using task = await container.createTask();
    const output = pipeline(task.stdout!, process.stdout, { end: false });
    const exited = task.wait({ signal, patience: 60_000 });
    await task.start();

    // A second process in the container. Its streams are pipes, as the first one's are.
    await using look = await task.exec({ args: ['hostname'] });
    const heard = Array.fromAsync(look.stdout as AsyncIterable<Buffer>);
    const looked = look.wait({ signal });
    await look.start();
    const { code: lookCode } = await looked;
    if (lookCode === 0) process.stderr.write(`exec says ${Buffer.concat(await heard).toString()}`);

    // With patience it is waited for over restarts of the daemon, too: the container does not notice them.
    const { code } = await exited;
    await output;
    return code;
  } finally {
    await client.images.delete(name, { sync: true });
    done.abort();
    await telling;
  }
}

try {
  process.exitCode = await run(source, args);
} catch (error) {
  // Every failure of the SDK is an RpcError, with a code and words for people.
  process.stderr.write(`job: ${(error as Error).message}\n`);
  process.exitCode = 1;
}
