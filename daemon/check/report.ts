/** A check's report as people and scripts read it. */
import type { Checked, Report } from './check.ts';
import { isProblem } from './finding.ts';

/** Exit codes: nothing is wrong any more; something is. What could not be checked at all ends with 1. */
export const Outcome = { Sound: 0, Wrong: 2 } as const;

const isLeft = (finding: Checked): boolean => isProblem(finding) && finding.outcome !== 'repaired';

export function exitCodeOf({ findings }: Report): number {
  return findings.some(isLeft) ? Outcome.Wrong : Outcome.Sound;
}

export function formatReport(report: Report): string {
  const { daemon, counts, findings } = report;
  const lines: string[] = [];
  if (daemon !== undefined)
    lines.push(`${daemon}: nothing is changed, and what it is just changing is passed over`);
  for (const finding of findings) {
    lines.push(`${finding.kind}: ${finding.object}: ${finding.problem}`);
    const done = finding.outcome === 'repaired' ? `repaired: ${finding.repair!.done}` : undefined;
    for (const line of [done, finding.advice]) if (line !== undefined) lines.push(`    ${line}`);
  }
  const seen = Object.entries(counts).map(([what, count]) => `${count} ${what}`);
  const left = findings.filter(isLeft).length;
  const repaired = findings.filter(({ outcome }) => outcome === 'repaired').length;
  const mended = repaired > 0 ? `, ${repaired} repaired` : '';
  lines.push(`${seen.join(', ')}: ${left === 0 ? 'nothing wrong' : `${left} wrong`}${mended}`);
  return `${lines.join('\n')}\n`;
}

export function formatJson(report: Report): string {
  const findings = report.findings.map(({ repair, outcome, ...finding }) => ({
    ...finding,
    outcome,
    repairable: repair !== undefined,
    ...(outcome === 'repaired' ? { done: repair!.done } : {}),
  }));
  return `${JSON.stringify({ ...report, daemon: report.daemon ?? null, findings }, undefined, 2)}\n`;
}
