/** Structured logs: one JSON object a line on stderr. */
import { type Logger, destination, pino } from 'pino';

export type { Logger } from 'pino';

/** The levels that `--log-level` takes, as containerd's daemon names them. */
export const levels = ['trace', 'debug', 'info', 'warn', 'error', 'fatal', 'panic'] as const;
export type Level = (typeof levels)[number];

export function isLevel(value: string): value is Level {
  return (levels as readonly string[]).includes(value);
}

/**
 * A log to a descriptor, stderr unless another is given. Written synchronously: the last line before a crash is the one that
 * matters.
 */
export function openLog(level: Level, fd = 2): Logger {
  return pino(
    {
      // Above fatal, where pino has nothing, there is only silence; panic is fatal's worse name in Go's logrus.
      level: level === 'panic' ? 'fatal' : level,
      base: null,
      timestamp: () => `,"time":"${new Date().toISOString()}"`,
      formatters: { level: (label) => ({ level: label }) },
    },
    destination({ fd, sync: true }),
  );
}
