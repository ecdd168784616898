/**
 * A process that unpacks layers and makes them, one job after the other, cut off from the host's mounts. Started and ended
 * by the daemon (daemon/diff/process.ts); its argument is an existing folder to hang its mounts under. It ends when its stdin
 * does, so that no daemon leaves one behind.
 */
import { closeSync, writeSync } from 'node:fs';
import { createInterface } from 'node:readline';
import { receiveFd } from '../../../native/native.ts';
import { messageOf, toRpcError, unavailable } from '../../../ttrpc/errors.ts';
import { type Answer, type Archive, parseJob } from '../job.ts';
import { apply } from './apply.ts';
import { compare } from './compare.ts';
import { Enclosure } from './enclosure.ts';

const FILES = 3;

async function main([folder]: readonly string[]): Promise<void> {
  if (folder === undefined) throw new Error('usage: differ FOLDER');
  process.umask(0);
  const enclosure = await Enclosure.open(folder);
  const lines = createInterface({ input: process.stdin });
  // At once, not when the job is done: whoever asked for it has gone.
  process.stdin.once('end', () => process.exit(0));
  for await (const line of lines) writeSync(1, `${JSON.stringify(await answer(line, enclosure))}\n`);
}

async function answer(line: string, enclosure: Enclosure): Promise<Answer> {
  try {
    return { done: await work(line, enclosure) };
  } catch (error) {
    const { code, message } = toRpcError(error);
    return { failed: { code, message } };
  }
}

async function work(line: string, enclosure: Enclosure): Promise<Archive> {
  // Sent before the line, so that it is there by now.
  const file = receiveFd(FILES);
  if (file === undefined) throw unavailable('a job came without its file');
  try {
    const job = parseJob(line);
    return job.job === 'apply' ? await apply(job, file, enclosure) : await compare(job, file, enclosure);
  } finally {
    closeSync(file);
  }
}

try {
  await main(process.argv.slice(2));
} catch (error) {
  process.stderr.write(`differ: ${messageOf(error)}\n`);
  process.exitCode = 1;
}
