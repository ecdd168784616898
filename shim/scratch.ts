import { constants, fstatSync, openSync, readSync, unlinkSync, writeSync } from 'node:fs';
import { join } from 'node:path';
import { getPid } from '../native/native.ts';
import { Descriptor } from './descriptor.ts';

/** More than a million processes have pids, for which the OCI runtime is asked. */
const MOST_READ = 16 * 1024 * 1024;

let count = 0;

/**
 * A file without a name, for what a program reads or prints: unlike a pipe it needs nobody at the other end, so that neither a
 * program nor one that it has left behind is waited for. It goes with its last descriptor.
 *
 * @param folder where it has a name for a moment
 * @param content what whoever inherits it reads
 */
export function openScratch(folder: string, content = ''): Descriptor {
  const path = join(folder, `.scratch-${getPid()}-${count++}`);
  const { O_RDWR, O_CREAT, O_EXCL } = constants;
  const file = new Descriptor(openSync(path, O_RDWR | O_CREAT | O_EXCL, 0o600));
  try {
    unlinkSync(path);
    const bytes = Buffer.from(content);
    // At given places, so that the reader begins at the first.
    for (let written = 0; written < bytes.length;)
      written += writeSync(file.fd, bytes, written, bytes.length - written, written);
    return file;
  } catch (error) {
    file.close();
    throw error;
  }
}

/** What was printed. @throws Error when it is longer than any answer can be */
export function readScratch(file: Descriptor): string {
  const { size } = fstatSync(file.fd);
  if (size > MOST_READ) throw new Error(`a program has printed ${size} bytes, more than ${MOST_READ}`);
  const bytes = Buffer.alloc(size);
  const length = readSync(file.fd, bytes, 0, size, 0);
  return bytes.toString('utf8', 0, length);
}
