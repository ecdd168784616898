import { mkdirSync, openSync, writeSync } from 'node:fs';
import { Socket } from 'node:net';
import { dirname } from 'node:path';
import type { WindowSize } from '../native/native.ts';
import { pipe } from '../native/native.ts';
import { invalidArgument, messageOf } from '../ttrpc/errors.ts';
import { Console } from './console.ts';
import { Descriptor } from './descriptor.ts';
import {
  closeInlet,
  closeOutlet,
  openInlet,
  openOutlet,
  pipeInlet,
  type Inlet,
  type Outlet,
} from './fifo.ts';
import { Journal, type OutputStream } from './journal.ts';
import { JournalOutput, journalOutlet } from './journal-output.ts';
import type { Log } from './log.ts';
import { Logger, pathOf } from './logger.ts';
import { DirectOutput, NULL_OUTPUT, PumpedOutput, type Output, type Owner } from './output.ts';
import type { Reaper } from './reaper.ts';
import type { HandedStdio } from './runc.ts';

/**
 * What a client asks for: paths of FIFOs or files, `binary://` and `file://` URIs, `cri://` and `attach://` as a journal has them; empty
 * means /dev/null.
 */
export interface StdioRequest {
  readonly stdin: string;
  readonly stdout: string;
  readonly stderr: string;
  readonly terminal: boolean;
}

/** The standard descriptors of one process, from before its start until after its end. */
export interface ProcessStdio {
  readonly handed: HandedStdio;
  /** Where the runtime sends the terminal, if there is to be one. */
  readonly consoleSocket: string | undefined;
  /** Where the output is kept, and others get a copy of it. */
  readonly journal: Journal | undefined;
  /** The runtime has been spawned and has its descriptors. */
  spawned(): void;
  /** The runtime has succeeded; the process exists. */
  started(): void;
  /** The process has ended. */
  exited(): void;
  /** The input ends for the process when its client has closed it too. */
  closeStdin(): void;
  /** Does nothing without a terminal, as with containerd. */
  resize(size: WindowSize): void;
  /** Resolves when all output is delivered after the end; never rejects. */
  readonly settled: Promise<void>;
  /** Resolves when the client has read what it is to read before it hears of the end; never rejects. */
  readonly taken: Promise<void>;
  /** The process is being deleted: a logging program is to come to an end. */
  dismiss(): void;
  /** Closes everything now. */
  close(): void;
  /** Gives up the output that is kept for a client to come. */
  forsake(): void;
}

export interface StdioContext {
  readonly id: string;
  readonly namespace: string;
  readonly bundle: string;
  /** Other processes may outlive this one and hold its descriptors. */
  readonly outlived: boolean;
  readonly owner: Owner;
  readonly reaper: Reaper;
  readonly log: Log;
  readonly signal: AbortSignal;
}

/**
 * Opens what a process is to have as standard input, output and error.
 *
 * @throws RpcError InvalidArgument for what cannot be opened or understood; DeadlineExceeded when no client comes for the output
 */
export async function openStdio(request: StdioRequest, context: StdioContext): Promise<ProcessStdio> {
  return request.terminal ? openConsole(request, context) : openPlain(request, context);
}

async function openPlain(request: StdioRequest, context: StdioContext): Promise<ProcessStdio> {
  const journal = openJournal(request, ['stdout', 'stderr'], context);
  const inlet = openInput(request.stdin, journal);
  try {
    const [stdout, stderr] =
      journal === undefined
        ? await openOutputs(request, context)
        : (['stdout', 'stderr'] as const).map((stream) => new JournalOutput(journal, stream, context.owner));
    return new PlainStdio(inlet, stdout, stderr, journal);
  } catch (error) {
    if (inlet !== undefined) closeInlet(inlet);
    throw error;
  }
}

async function openConsole(request: StdioRequest, context: StdioContext): Promise<ProcessStdio> {
  const journal = openJournal(request, ['stdout'], context);
  const inlet = openInput(request.stdin, journal);
  let outlet: Outlet | undefined;
  try {
    outlet =
      journal === undefined ? await openConsoleOutlet(request.stdout, context) : journalOutlet(journal);
    return new Console(context.bundle, outlet, inlet, journal);
  } catch (error) {
    if (inlet !== undefined) closeInlet(inlet);
    if (outlet !== undefined) {
      closeOutlet(outlet);
      outlet.dismiss?.();
    }
    throw error;
  }
}

function openJournal(
  { stdout }: StdioRequest,
  streams: readonly OutputStream[],
  { log }: StdioContext,
): Journal | undefined {
  const uri = parseUri(stdout);
  return uri?.protocol === 'cri:' ? new Journal(uri, streams, log) : undefined;
}

function openInput(stdin: string, journal: Journal | undefined): Inlet | undefined {
  if (stdin === '') return undefined;
  if (journal === undefined || !stdin.startsWith('attach://')) return openInlet(stdin);
  const inlet = pipeInlet();
  journal.input = { inlet, once: parseUri(stdin)?.searchParams.get('once') === 'true' };
  return inlet;
}

async function openOutputs(request: StdioRequest, context: StdioContext): Promise<[Output, Output]> {
  const { stdout, stderr } = request;
  const { owner } = context;
  const uri = parseUri(stdout);
  if (uri?.protocol === 'binary:') {
    const logger = await Logger.start(uri, context);
    return [
      new DirectOutput(outletTo(logger, logger.stdout), owner),
      new DirectOutput(outletTo(logger, logger.stderr), owner),
    ];
  }
  if (uri?.protocol === 'file:') {
    const file = new DirectOutput({ writer: openFile(uri), keeper: undefined }, owner);
    return [file, file];
  }
  const out = await openOutput(stdout, context);
  if (stdout === stderr) return [out, out];
  try {
    return [out, await openOutput(stderr, context)];
  } catch (error) {
    out.close();
    throw error;
  }
}

async function openOutput(path: string, { outlived, owner, signal }: StdioContext): Promise<Output> {
  if (path === '') return NULL_OUTPUT;
  const outlet = await openOutlet(path, signal);
  const isFifo = outlet.keeper !== undefined;
  return outlived && isFifo ? new PumpedOutput(outlet, owner) : new DirectOutput(outlet, owner);
}

async function openConsoleOutlet(stdout: string, context: StdioContext): Promise<Outlet> {
  const uri = parseUri(stdout);
  if (uri?.protocol === 'binary:') {
    const logger = await Logger.start(uri, context);
    logger.stderr.close();
    return outletTo(logger, logger.stdout);
  }
  if (uri?.protocol === 'file:') return appendTo(openFile(uri));
  if (stdout === '') return appendTo(new Descriptor(openSync('/dev/null', 'w')));
  return openOutlet(stdout, context.signal);
}

function outletTo(logger: Logger, writer: Descriptor): Outlet {
  return {
    writer,
    keeper: undefined,
    delivered: () => logger.ended,
    dismiss: () => void logger.dismiss(),
  };
}

/**
 * A pipe whose bytes are appended to a file: splice(2) moves nothing from a terminal into a file, as neither is a pipe, nor into
 * any file that is open for appending.
 */
function appendTo(file: Descriptor): Outlet {
  const { read, write } = pipe();
  const { promise, resolve } = Promise.withResolvers<void>();
  const input = new Socket({ fd: read, readable: true, writable: false });
  input
    .on('data', (bytes: Buffer) => {
      try {
        writeSync(file.fd, bytes);
      } catch {
        // The disk is full. The process may go on all the same, as it may when a file is its output.
      }
    })
    .on('close', () => {
      file.close();
      resolve();
    });
  return { writer: new Descriptor(write), keeper: undefined, delivered: () => promise };
}

function parseUri(text: string): URL | undefined {
  const scheme = /^([a-z][a-z0-9+.-]*):\/\//.exec(text)?.[1];
  if (scheme === undefined) return undefined;
  if (!['binary', 'file', 'cri', 'attach'].includes(scheme))
    throw invalidArgument(`unknown stdio scheme ${scheme} in ${text}`);
  try {
    return new URL(text);
  } catch (error) {
    throw invalidArgument(`stdio ${text}: ${messageOf(error)}`, error);
  }
}

function openFile(uri: URL): Descriptor {
  const path = pathOf(uri);
  try {
    mkdirSync(dirname(path), { recursive: true, mode: 0o755 });
    return new Descriptor(openSync(path, 'a', 0o644));
  } catch (error) {
    throw invalidArgument(`failed to open ${path}: ${messageOf(error)}`, error);
  }
}

/** Standard descriptors without a terminal. */
class PlainStdio implements ProcessStdio {
  readonly handed: HandedStdio;
  readonly consoleSocket = undefined;
  readonly settled: Promise<void>;
  readonly #inlet: Inlet | undefined;
  readonly #outputs: readonly Output[];
  readonly journal: Journal | undefined;

  constructor(inlet: Inlet | undefined, stdout: Output, stderr: Output, journal: Journal | undefined) {
    this.journal = journal;
    this.#inlet = inlet;
    this.#outputs = [...new Set([stdout, stderr])];
    this.handed = [inlet?.reader.fd ?? 'ignore', stdout.handed, stderr.handed];
    this.settled = Promise.all(this.#outputs.map((output) => output.settled)).then(() => undefined);
  }

  get taken(): Promise<void> {
    return Promise.all(this.#outputs.map((output) => output.taken)).then(() => undefined);
  }

  spawned(): void {
    this.#inlet?.reader.close();
    for (const output of this.#outputs) output.spawned();
  }

  started(): void {
    for (const output of this.#outputs) output.started();
  }

  exited(): void {
    if (this.#inlet !== undefined) closeInlet(this.#inlet);
    for (const output of this.#outputs) output.exited();
  }

  closeStdin(): void {
    this.#inlet?.keeper?.close();
  }

  resize(): void {}

  dismiss(): void {
    for (const output of this.#outputs) output.dismiss();
  }

  close(): void {
    if (this.#inlet !== undefined) closeInlet(this.#inlet);
    for (const output of this.#outputs) output.close();
  }

  forsake(): void {
    for (const output of this.#outputs) output.forsake();
  }
}
