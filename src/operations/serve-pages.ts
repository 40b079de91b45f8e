import type { Logger } from 'pino';
import type { Config } from '../config.ts';
import type { Credentials } from './access.ts';
import type { Monitor } from './monitor.ts';
import { overviewRoutes } from './overview-routes.ts';
import { readOverview } from './overview.ts';
import { probes } from './probes.ts';
import { queueBoard } from './queue-board.ts';
import { startWebServer, type WebPart, type WebServer } from './web-server.ts';

/** Serves the overview, bull-board, the probes and the metrics. */
export async function servePages(
  config: Config,
  monitor: Monitor,
  log: Logger,
): Promise<WebServer> {
  return await startWebServer(
    {
      host: config.dashboardHost,
      port: config.dashboardPort,
      credentials: credentialsOf(config),
      readOnly: config.dashboardReadOnly,
      onError: (error) => log.error({ err: error }, 'a page could not be served'),
    },
    pageParts(config, monitor),
  );
}

export function pageParts(config: Config, monitor: Monitor): WebPart[] {
  const { vitals, progress, metrics } = monitor;
  const overview = async () =>
    await readOverview(vitals, () => ({
      backend: monitor.backend,
      sweepMode: config.sweepMode,
      sweepIntervalMs: config.sweepIntervalMs,
      rates: monitor.rates(),
      sinceLastEventMs: monitor.sinceLastEventMs(),
      standsStill: progress.whatStandsStill(),
    }));
  return [
    overviewRoutes(overview),
    queueBoard(monitor.queue.queue, config.dashboardReadOnly),
    probes(vitals, progress, metrics),
  ];
}

export function credentialsOf({
  dashboardUser: user,
  dashboardPassword: password,
}: Config): Credentials | undefined {
  return user === undefined || password === undefined ? undefined : { user, password };
}
