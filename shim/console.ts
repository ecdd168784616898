import { randomBytes } from 'node:crypto';
import { mkdtempSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { acceptUnix, listenUnix, receiveFd, setWindowSize, type WindowSize } from '../native/native.ts';
import { internal } from '../ttrpc/errors.ts';
import { Descriptor } from './descriptor.ts';
import {
  afterExit,
  closeInlet,
  closeOutlet,
  taken,
  type Inlet,
  type Outlet,
  type Unclaimed,
} from './fifo.ts';
import type { Journal } from './journal.ts';
import { LINGER_MS } from './output.ts';
import { Pump } from './pump.ts';
import type { HandedStdio } from './runc.ts';
import type { ProcessStdio } from './stdio.ts';

/** A unix socket's path has room for so many bytes (unix(7)). */
const LONGEST_SOCKET_PATH = 107;

/** A terminal: the runtime makes it and sends its master here; what comes and goes is copied between it and the client. */
export class Console implements ProcessStdio {
  readonly handed: HandedStdio = ['ignore', 'ignore', 'ignore'];
  readonly consoleSocket: string;
  readonly settled: Promise<void>;
  readonly journal: Journal | undefined;
  readonly #folder: string;
  readonly #listening: Descriptor;
  #outlet: Outlet;
  readonly #inlet: Inlet | undefined;
  readonly #closed = Promise.withResolvers<void>();
  #master: Descriptor | undefined;
  #output: Pump | undefined;
  #input: Pump | undefined;
  #linger: NodeJS.Timeout | undefined;
  #hasExited = false;
  #isOver = false;
  #unclaimed: Unclaimed | undefined;

  /** Takes the descriptors over. `bundle` is where the socket goes, if its path is short enough. */
  constructor(bundle: string, outlet: Outlet, inlet: Inlet | undefined, journal?: Journal) {
    this.journal = journal;
    this.settled = this.#closed.promise.then(() => outlet.delivered?.());
    this.#outlet = outlet;
    this.#inlet = inlet;
    this.#folder = socketFolder(bundle);
    this.consoleSocket = join(this.#folder, 'pty.sock');
    this.#listening = new Descriptor(listenUnix(this.consoleSocket, 1));
  }

  get taken(): Promise<void> {
    return this.#outlet.isPrompt === true ? this.settled : this.#closed.promise;
  }

  spawned(): void {}

  /** The runtime is done, and has sent the master before: takes it and begins to copy. */
  started(): void {
    using connection = new Descriptor(acceptUnix(this.#listening.fd) ?? noConsole());
    const master = new Descriptor(receiveFd(connection.fd) ?? noConsole());
    this.#master = master;
    this.#forgetSocket();
    this.#output = new Pump(master.fd, this.#outlet.writer.fd);
    void this.#output.done.then(() => this.#outputEnded());
    if (this.#inlet !== undefined) this.#input = new Pump(this.#inlet.reader.fd, master.fd);
  }

  exited(): void {
    this.#hasExited = true;
    if (this.#output === undefined || this.#isOver) return this.#release();
    this.#outlet = afterExit(this.#outlet);
    this.#linger = setTimeout(() => this.#output?.finish(), LINGER_MS);
  }

  closeStdin(): void {
    this.#inlet?.keeper?.close();
  }

  resize(size: WindowSize): void {
    if (this.#master?.isOpen === true) setWindowSize(this.#master.fd, size);
  }

  dismiss(): void {
    this.#outlet.dismiss?.();
  }

  close(): void {
    this.#release();
    this.dismiss();
  }

  #release(): void {
    clearTimeout(this.#linger);
    this.#forgetSocket();
    this.#output?.close();
    this.#input?.close();
    if (this.#unclaimed === undefined) closeOutlet(this.#outlet);
    if (this.#inlet !== undefined) closeInlet(this.#inlet);
    this.#master?.close();
    this.#closed.resolve();
  }

  forsake(): void {
    this.#unclaimed?.close();
  }

  /**
   * A process that closes its terminal ends the output, but may live on. It keeps its master: losing that would be a SIGHUP.
   */
  async #outputEnded(): Promise<void> {
    const isFifo = this.#outlet.delivered === undefined;
    if (isFifo) this.#unclaimed = await taken(this.#outlet);
    else closeOutlet(this.#outlet);
    this.#isOver = true;
    if (this.#hasExited) this.#release();
  }

  #forgetSocket(): void {
    this.#listening.close();
    rmSync(this.#folder, { recursive: true, force: true });
  }
}

/** A new folder that only root may enter: who connects to the socket could hand in a terminal of his own. */
function socketFolder(bundle: string): string {
  const near = join(bundle, 'pty-');
  const fits = Buffer.byteLength(`${near}XXXXXX/pty.sock`) <= LONGEST_SOCKET_PATH;
  return mkdtempSync(fits ? near : join(tmpdir(), `moor-${randomBytes(4).toString('hex')}-`));
}

function noConsole(): never {
  throw internal('the OCI runtime has sent no terminal');
}
