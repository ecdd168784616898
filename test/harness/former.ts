/** A former version of the programs, built from the history of the repository. */
import { execFileSync } from 'node:child_process';
import { cpSync, mkdtempSync, rmSync, symlinkSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join, resolve } from 'node:path';

const repository = resolve(import.meta.dirname, '../..');
/** As many commits ago as make a difference. */
const BACK = 50;

const git = (...args: string[]): string =>
  execFileSync('git', ['-C', repository, ...args], { encoding: 'utf8' }).trim();

/** Commits that do not build by themselves, one after the other, before the history is given up. */
const BROKEN = 10;

/** The commits to choose from, the first that builds; without any, the reason: there is no history to take them from. */
export function formerCommits(): { readonly commits: readonly string[] } | { readonly reason: string } {
  const named = process.env['MOOR_UPGRADE_FROM'];
  if (named) return { commits: [named] };
  try {
    const commits = git('rev-list', `--max-count=${BROKEN}`, `--skip=${BACK}`, 'HEAD');
    return commits === '' ? { reason: `there are no ${BACK} commits` } : { commits: commits.split('\n') };
  } catch {
    return { reason: 'there is no git history' };
  }
}

/** A former version, in a directory of its own. */
export class Former implements Disposable {
  readonly directory: string;

  private constructor(directory: string) {
    this.directory = directory;
  }

  /** Builds the first of them that can be built, with the packages that are here. */
  static build(commits: readonly string[]): Former {
    const failures: unknown[] = [];
    for (const commit of commits) {
      const former = new Former(mkdtempSync(join(tmpdir(), 'moor-former-')));
      try {
        former.#build(commit);
        return former;
      } catch (error) {
        former[Symbol.dispose]();
        failures.push(error);
      }
    }
    throw new AggregateError(failures, `none of ${commits.join(', ')} can be built`);
  }

  #build(commit: string): void {
    const { directory } = this;
    const archive = execFileSync('git', ['-C', repository, 'archive', commit], { maxBuffer: 1 << 30 });
    execFileSync('tar', ['-x', '-C', directory], { input: archive });
    symlinkSync(join(repository, 'node_modules'), join(directory, 'node_modules'));
    // Compiling it takes longer than all the rest.
    if (git('diff', '--name-only', commit, '--', 'native/*.cc', 'native/*.h', 'native/build.sh') === '')
      cpSync(join(repository, 'native/build'), join(directory, 'native/build'), { recursive: true });
    execFileSync('bash', [join(directory, 'scripts/build')], { stdio: 'pipe' });
  }

  get moord(): string {
    return join(this.directory, 'bin/moord');
  }

  [Symbol.dispose](): void {
    rmSync(this.directory, { recursive: true });
  }
}
