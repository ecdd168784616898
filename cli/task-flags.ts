/** The flags that say where a process's streams go, shared by all that start one. */
import { renameSync, writeFileSync } from 'node:fs';
import { basename, dirname, join, resolve } from 'node:path';
import type { Command } from 'commander';
import type { StdioOptions } from '../client/client.ts';
import { Failure } from './failure.ts';

export interface StreamFlags {
  readonly nullIo?: boolean;
  readonly logUri?: string;
  readonly fifoDir?: string;
  readonly detach?: boolean;
  readonly sigProxy: boolean;
}

export function addStreamFlags(command: Command): Command {
  return command
    .option('--null-io', 'connect the process to /dev/null')
    .option('--log-uri <uri>', 'log the output to file:///PATH or binary:///PATH')
    .option('--fifo-dir <directory>', 'where to make FIFOs')
    .option('-d, --detach', 'return when the process runs')
    .option('--no-sig-proxy', 'do not send signals on to the process');
}

/** @throws Failure for flags that exclude each other */
export function streamsOf(flags: StreamFlags, terminal: boolean): StdioOptions {
  const { nullIo = false, logUri, fifoDir } = flags;
  if (terminal && nullIo) throw new Failure('a terminal and --null-io cannot be used together');
  if (terminal && logUri !== undefined) throw new Failure('a terminal and --log-uri cannot be used together');
  if (logUri !== undefined && fifoDir !== undefined) {
    throw new Failure('--log-uri and --fifo-dir cannot be used together');
  }
  if (nullIo) return 'null';
  return logUri === undefined ? { terminal, fifoDirectory: fifoDir } : { log: logUri };
}

/** In one step, so that whoever waits for the file never reads half a number. */
export function writePidFile(file: string, pid: number): void {
  const path = resolve(file);
  const temporary = join(dirname(path), `.${basename(path)}`);
  writeFileSync(temporary, String(pid), { flag: 'wx' });
  renameSync(temporary, path);
}
