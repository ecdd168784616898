/** What is on its way to a peer: gathered while the event loop is at one thing, and given to the kernel in one call. */
import type { Socket } from 'node:net';

/** Bytes on their way, above which data wait where they are. */
const HIGH_WATER = 256 << 10;

/** Bytes up to which joining pieces costs less than handing them over one by one. */
const WORTH_JOINING = 32 << 10;

export class Output {
  readonly #socket: Socket;
  readonly #onRoom: () => void;
  #pieces: Uint8Array[] = [];
  #bytes = 0;
  #sent: (() => void)[] = [];
  #isScheduled = false;

  /** @param onRoom called when data may be added that could not before, or might not */
  constructor(socket: Socket, onRoom: () => void) {
    this.#socket = socket;
    this.#onRoom = onRoom;
    socket.on('drain', onRoom);
  }

  /** @param sent called when the kernel has it */
  push(piece: Uint8Array, sent?: () => void): void {
    this.#pieces.push(piece);
    this.#bytes += piece.length;
    if (sent !== undefined) this.#sent.push(sent);
    if (this.#isScheduled) return;
    this.#isScheduled = true;
    setImmediate(this.#flush);
  }

  /** Bytes that the kernel has not taken. */
  get backlog(): number {
    return this.#bytes + this.#socket.writableLength;
  }

  /** Data may be added. */
  get hasRoom(): boolean {
    return this.backlog < HIGH_WATER;
  }

  /** Hands over what there is now. */
  flush(): void {
    const [pieces, bytes, sent] = [this.#pieces, this.#bytes, this.#sent];
    if (bytes === 0) return;
    this.#pieces = [];
    this.#bytes = 0;
    this.#sent = [];
    const socket = this.#socket;
    if (socket.destroyed || socket.writableEnded) return;
    const written = (error?: Error | null): void => {
      if (!error) for (const tell of sent) tell();
    };
    const last = sent.length === 0 ? undefined : written;
    if (bytes <= WORTH_JOINING) {
      socket.write(Buffer.concat(pieces, bytes), last);
      return;
    }
    socket.cork();
    const final = pieces.pop()!;
    for (const piece of pieces) socket.write(piece);
    socket.write(final, last);
    socket.uncork();
  }

  readonly #flush = (): void => {
    this.#isScheduled = false;
    const hadRoom = this.hasRoom;
    this.flush();
    if (!hadRoom && this.hasRoom) this.#onRoom();
  };
}
