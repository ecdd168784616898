/** Commands for several things at once: what fails is told, and the others are done all the same. */
import { explain, FAILURE_STATUS } from '../failure.ts';
import type { Session } from '../session.ts';

export async function forEachOf(
  { globals }: Pick<Session, 'globals'>,
  ids: readonly string[],
  act: (id: string) => Promise<void>,
): Promise<void> {
  for (const id of ids) {
    try {
      await act(id);
    } catch (error) {
      for (const line of explain(error, globals)) console.error(line);
      process.exitCode = FAILURE_STATUS;
    }
  }
}
