/** This command's own terminal, handed to a process in a container. */
import { spawnSync } from 'node:child_process';
import type { WindowSize } from '../client/client.ts';

/** The terminal passes on every key and every byte as it is. The answer puts it back; so does Node at any exit. */
export function enterRawMode(): () => void {
  const { stdin } = process;
  if (!stdin.isTTY) return () => {};
  stdin.setRawMode(true);
  // Node's raw mode goes on turning \n into \r\n, which garbles programs that draw. Without stty it is only that.
  spawnSync('stty', ['-opost'], { stdio: ['inherit', 'ignore', 'ignore'] });
  return () => stdin.setRawMode(false);
}

/**
 * Tells the terminal's size whenever it changes, and when the answer is called.
 *
 * @param undo gets what ends that
 */
export function followSize(
  tell: (size: WindowSize) => Promise<void>,
  undo: (() => void)[],
): () => Promise<void> {
  const follow = async () => {
    const size = windowSize();
    if (size !== undefined) await tell(size);
  };
  const onResize = () => void follow();
  process.on('SIGWINCH', onResize);
  undo.push(() => process.off('SIGWINCH', onResize));
  return follow;
}

function windowSize(): WindowSize | undefined {
  const terminal = [process.stdout, process.stderr].find((stream) => stream.isTTY);
  if (terminal === undefined) return undefined;
  const [columns, rows] = terminal.getWindowSize();
  return { columns, rows };
}
