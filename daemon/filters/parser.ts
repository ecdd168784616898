/** Reads the text of one filter. */
import { invalidArgument, messageOf } from '../../ttrpc/errors.ts';
import type { Selector } from './filter.ts';
import { QuoteError, readQuoted } from './quote.ts';

/** @throws RpcError InvalidArgument that shows the place of the mistake */
export function parseSelectors(input: string): Selector[] {
  return new Parser(input).selectors();
}

class Parser {
  readonly #input: string;
  #at = 0;

  constructor(input: string) {
    this.#input = input;
  }

  selectors(): Selector[] {
    const selectors = [this.#selector()];
    while (this.#at < this.#input.length) {
      if (this.#input[this.#at] !== ',') throw this.#mistake(this.#at, 'unexpected input');
      this.#at += 1;
      selectors.push(this.#selector());
    }
    return selectors;
  }

  #selector(): Selector {
    const path = [this.#field()];
    while (this.#input[this.#at] === '.') {
      this.#at += 1;
      path.push(this.#field());
    }
    if (this.#at === this.#input.length || this.#input[this.#at] === ',')
      return { path, operator: 'present' };
    const operator = this.#operator();
    const start = this.#at;
    const value = this.#value(operator);
    return operator === '~='
      ? { path, operator, value: this.#expression(value, start) }
      : { path, operator, value };
  }

  #field(): string {
    this.#skipSpace();
    if (/["/|]/.test(this.#input[this.#at] ?? '')) return this.#quoted(false);
    const field = this.#take(/\w+/y);
    if (field === '') throw this.#mistake(this.#at, 'expected field or quoted');
    return field;
  }

  #operator(): '==' | '!=' | '~=' {
    this.#skipSpace();
    const start = this.#at;
    const operator = this.#take(/[=!~]+/y);
    if (operator === '==' || operator === '!=' || operator === '~=') return operator;
    if (operator === '') throw this.#mistake(start, 'expected an operator ("=="|"!="|"~=")');
    throw this.#mistake(start, `unsupported operator "${operator}"`);
  }

  #value(operator: '==' | '!=' | '~='): string {
    this.#skipSpace();
    const char = this.#input[this.#at] ?? '';
    if (/["/|]/.test(char)) return this.#quoted(operator === '~=');
    // What would be read as punctuation elsewhere cannot begin a value, though it may be inside of one.
    const value = /[.=!~]/.test(char) ? '' : this.#take(/[^\s,\p{Cc}]+/uy);
    if (value === '') throw this.#mistake(this.#at, 'expected value or quoted');
    return value;
  }

  /** Only a regular expression may be quoted by `/` or `|`. */
  #quoted(expression: boolean): string {
    if (!expression && this.#input[this.#at] !== '"')
      throw this.#mistake(this.#at, 'invalid quote encountered');
    try {
      const { value, end } = readQuoted(this.#input, this.#at);
      this.#at = end;
      return value;
    } catch (error) {
      if (error instanceof QuoteError) throw this.#mistake(error.position, error.message);
      throw error;
    }
  }

  #expression(source: string, position: number): RegExp {
    try {
      return compile(source);
    } catch (error) {
      throw this.#mistake(position, messageOf(error));
    }
  }

  #take(pattern: RegExp): string {
    pattern.lastIndex = this.#at;
    const found = pattern.exec(this.#input)?.[0] ?? '';
    this.#at += found.length;
    return found;
  }

  #skipSpace(): void {
    this.#take(/\s+/y);
  }

  #mistake(position: number, message: string): Error {
    const input = this.#input;
    const place =
      position < input.length
        ? `[${input.slice(0, position)} >|${input[position]}|< ${input.slice(position + 1)}]`
        : `[${input}]`;
    return invalidArgument(`filters: parse error: ${place}: ${message}: invalid argument`);
  }
}

/**
 * Compiles a regular expression in RE2's syntax, which is what clients write. What JavaScript spells otherwise is rewritten:
 * flags at the beginning, `(?P<name>`, `\A` and `\z`.
 *
 * @throws SyntaxError
 */
function compile(source: string): RegExp {
  const [whole = '', flags = ''] = /^\(\?([ims]+)\)/.exec(source) ?? [];
  const body = source
    .slice(whole.length)
    .replaceAll('(?P<', '(?<')
    .replaceAll(/\\[\s\S]/g, (escape) =>
      escape === '\\A' ? '(?<![\\s\\S])' : escape === '\\z' ? '(?![\\s\\S])' : escape,
    );
  return new RegExp(body, [...new Set(flags)].join(''));
}
