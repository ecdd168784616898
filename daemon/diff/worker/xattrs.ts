import { type ByteString, getXattr, listXattrs, setXattr } from '../../../native/native.ts';

/** By these overlayfs keeps its books. Taken from an archive, they would let a layer rearrange the layers below it. */
const BOOKKEEPING = /^(trusted|user)\.overlay\./;

/** Sets extended attributes; those that the filesystem does not have, or not for this kind of file, are left out. */
export function setXattrs(path: ByteString, xattrs: ReadonlyMap<ByteString, Uint8Array>): void {
  for (const [name, value] of xattrs) {
    if (BOOKKEEPING.test(name)) continue;
    try {
      setXattr(path, name, value);
    } catch (error) {
      const { code } = error as NodeJS.ErrnoException;
      // Only files and folders have attributes of users (xattr(7)).
      if (code !== 'ENOTSUP' && !(code === 'EPERM' && name.startsWith('user.'))) throw error;
    }
  }
}

/** The extended attributes of a file, but overlayfs's own. */
export function xattrsOf(path: ByteString): Map<ByteString, Buffer> {
  const xattrs = new Map<ByteString, Buffer>();
  for (const name of listXattrs(path)) {
    const value = BOOKKEEPING.test(name) ? undefined : getXattr(path, name);
    if (value !== undefined) xattrs.set(name, value);
  }
  return xattrs;
}

/** Those that belong into a layer: not the labels that this host's security modules have put on. */
export function recordedXattrs(path: ByteString): Map<ByteString, Buffer> {
  const xattrs = xattrsOf(path);
  for (const name of xattrs.keys()) {
    if (name.startsWith('security.') && name !== 'security.capability') xattrs.delete(name);
  }
  return xattrs;
}
