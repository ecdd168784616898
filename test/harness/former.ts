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

/** The commit to build; undefined, with the reason, where there is no history to take one from. */
export function formerCommit(): { readonly commit: string } | { readonly reason: string } {
  try {
    const commit =
      process.env['MOOR_UPGRADE_FROM'] ?? git('rev-list', '--max-count=1', `--skip=${BACK}`, 'HEAD');
    return commit === '' ? { reason: `there are no ${BACK} commits` } : { commit };
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

  /** Builds it, with the packages that are here. */
  static build(commit: string): Former {
    const former = new Former(mkdtempSync(join(tmpdir(), 'moor-former-')));
    const { directory } = former;
    const archive = execFileSync('git', ['-C', repository, 'archive', commit], { maxBuffer: 1 << 30 });
    execFileSync('tar', ['-x', '-C', directory], { input: archive });
    symlinkSync(join(repository, 'node_modules'), join(directory, 'node_modules'));
    // Compiling it takes longer than all the rest.
    if (git('diff', '--name-only', commit, '--', 'native/*.cc', 'native/*.h', 'native/build.sh') === '')
      cpSync(join(repository, 'native/build'), join(directory, 'native/build'), { recursive: true });
    execFileSync('bash', [join(directory, 'scripts/build')], { stdio: 'pipe' });
    return former;
  }

  get moord(): string {
    return join(this.directory, 'bin/moord');
  }

  [Symbol.dispose](): void {
    rmSync(this.directory, { recursive: true });
  }
}
