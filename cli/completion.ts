/** Shell completion, made from the tree of commands, so that it never lags behind it. */
import { Argument, type Command, type Option } from 'commander';

const SHELLS = ['bash', 'zsh', 'fish'] as const;
type Shell = (typeof SHELLS)[number];

export function addCompletion(program: Command): void {
  program
    .command('completion')
    .summary('print a script for the completion of this command by a shell')
    .description(
      'Print a script for the completion of this command by a shell.\n' +
        '  bash: source <(moor completion bash)\n' +
        '  zsh:  source <(moor completion zsh)\n' +
        '  fish: moor completion fish | source',
    )
    .addArgument(new Argument('<shell>').choices(SHELLS))
    .action((shell: Shell) => console.log(scripts[shell](nodesOf(program)).join('\n')));
}

/** A command, by all the ways to name it. */
interface Node {
  /** `tasks ls`; empty for the program. */
  readonly path: string;
  readonly commands: readonly Command[];
  readonly options: readonly Option[];
}

function nodesOf(command: Command, paths: readonly string[] = ['']): Node[] {
  const help = command.createHelp();
  const commands = help.visibleCommands(command).filter((each) => each.name() !== 'help');
  const options = help.visibleOptions(command);
  return [
    ...paths.map((path) => ({ path, commands, options })),
    ...commands.flatMap((each) => {
      const names = [each.name(), ...each.aliases()];
      return nodesOf(
        each,
        paths.flatMap((path) => names.map((name) => `${path} ${name}`.trim())),
      );
    }),
  ];
}

const wordsOf = ({ commands, options }: Node): string =>
  [...commands.flatMap((each) => [each.name(), ...each.aliases()]), ...options.flatMap(flagsOf)].join(' ');

function flagsOf({ short, long }: Option): string[] {
  return [long, short].filter((flag) => flag !== undefined);
}

const takesValue = ({ required, optional }: Option): boolean => required || optional;

/**
 * Finds out which command the words before the cursor name, and offers what it has. A word after an option that takes a
 * value is that value: it is no command, and files are offered for it.
 */
function bash(nodes: readonly Node[]): string[] {
  const valued = [...new Set(nodes.flatMap(({ options }) => options.filter(takesValue).flatMap(flagsOf)))];
  return [
    '_moor() {',
    '  local word path= next previous=${COMP_WORDS[COMP_CWORD-1]} current=${COMP_WORDS[COMP_CWORD]}',
    '  local skip= index',
    '  for ((index = 1; index < COMP_CWORD; index++)); do',
    '    word=${COMP_WORDS[index]}',
    '    if [[ -n $skip ]]; then skip=; continue; fi',
    '    case $word in',
    `      ${valued.join('|')}) skip=1; continue ;;`,
    '      -*) continue ;;',
    '    esac',
    '    next="${path:+$path }$word"',
    '    case $next in',
    `      ${nodes
      .filter(({ path }) => path !== '')
      .map(({ path }) => `"${path}"`)
      .join('|')}) path=$next ;;`,
    '    esac',
    '  done',
    '  if [[ -n $skip ]]; then COMPREPLY=($(compgen -f -- "$current")); return; fi',
    '  case $path in',
    ...nodes.map(
      (node) => `    "${node.path}") COMPREPLY=($(compgen -W "${wordsOf(node)}" -- "$current")) ;;`,
    ),
    '  esac',
    '  [[ ${#COMPREPLY[@]} -gt 0 ]] || COMPREPLY=($(compgen -f -- "$current"))',
    '}',
    'complete -o filenames -F _moor moor',
  ];
}

/** zsh runs bash's functions; its own would say the same at greater length. */
function zsh(nodes: readonly Node[]): string[] {
  return [
    'autoload -U +X compinit && compinit',
    'autoload -U +X bashcompinit && bashcompinit',
    ...bash(nodes),
  ];
}

function fish(nodes: readonly Node[]): string[] {
  const quote = (text: string) => `'${text.replaceAll('\\', '\\\\').replaceAll("'", String.raw`\'`)}'`;
  const valued = [...new Set(nodes.flatMap(({ options }) => options.filter(takesValue).flatMap(flagsOf)))];
  const lines = [
    'function __moor_at',
    '    set -l path',
    '    set -l skip 0',
    '    for word in (commandline -opc)[2..-1]',
    '        if test $skip = 1; set skip 0; continue; end',
    `        if contains -- $word ${valued.join(' ')}; set skip 1; continue; end`,
    "        string match -q -- '-*' $word; and continue",
    '        set path $path $word',
    '    end',
    '    test "$path" = "$argv"',
    'end',
    'complete -c moor -n "not __fish_seen_subcommand_from run" -f',
  ];
  for (const { path, commands, options } of nodes) {
    const at = `-n ${quote(`__moor_at ${path}`.trim())}`;
    for (const each of commands) {
      for (const name of [each.name(), ...each.aliases()]) {
        lines.push(`complete -c moor ${at} -a ${name} -d ${quote(each.summary() || each.description())}`);
      }
    }
    for (const option of options) {
      const long = option.long === undefined ? '' : ` -l ${option.long.slice(2)}`;
      const short = option.short === undefined ? '' : ` -s ${option.short.slice(1)}`;
      lines.push(
        `complete -c moor ${at}${long}${short}${takesValue(option) ? ' -r' : ''} -d ${quote(option.description)}`,
      );
    }
  }
  return lines;
}

const scripts: { readonly [shell in Shell]: (nodes: readonly Node[]) => string[] } = { bash, zsh, fish };
