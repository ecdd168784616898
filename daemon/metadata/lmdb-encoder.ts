/**
 * In the daemon's bundle this stands for the encoder that lmdb brings (scripts/build), which has an addon of its own to load: records
 * are messages that the stores encode, and lmdb is given bytes.
 *
 * @throws Error always; it is a constructor to lmdb
 */
export function Encoder(): never {
  throw new Error('a database of the daemon is opened with the encoding "binary"');
}
