/** Asking for a password: on a terminal, without showing it. */
import { Failure } from './failure.ts';

/** @throws Failure when there is no terminal to ask on, or nothing was answered */
export async function askPassword(question: string): Promise<string> {
  const { stdin, stderr } = process;
  if (!stdin.isTTY)
    throw new Failure(
      'a password is needed, and there is no terminal to ask for it',
      'give it: --user NAME:PASSWORD',
    );
  // Before the question: whoever answers at once is not to see the answer.
  stdin.setRawMode(true);
  stdin.setEncoding('utf8');
  stderr.write(`${question}: `);
  let password = '';
  try {
    for await (const text of stdin as AsyncIterable<string>) {
      for (const key of text) {
        if (key === '\r' || key === '\n' || key === '\u0004') return whole(password);
        // Ctrl-C is no signal in raw mode.
        if (key === '\u0003') throw new Failure('interrupted');
        if (key === '\u007F' || key === '\b') password = password.slice(0, -1);
        else if (key === '\u0015') password = '';
        else password += key;
      }
    }
    return whole(password);
  } finally {
    stdin.setRawMode(false);
    stdin.pause();
    stderr.write('\n');
  }
}

function whole(password: string): string {
  if (password === '') throw new Failure('no password was given');
  return password;
}
