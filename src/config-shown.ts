import { loadConfig, type SettingName, SETTING_NAMES, settings, URL_NAMES } from './config.ts';

/** A setting as it is in effect, for people to read: nothing secret is in it. */
export interface ShownSetting {
  readonly name: string;
  readonly value: string;
  /** Whether the environment says so; otherwise it is the default. */
  readonly isSet: boolean;
}

const HIDDEN = '***';

/**
 * The settings in effect, without passwords.
 *
 * @throws {ConfigError} as {@link loadConfig} does.
 */
export function showSettings(env: NodeJS.ProcessEnv): ShownSetting[] {
  const { embeddedDirectory } = loadConfig(env);
  const unset: Partial<Record<SettingName, string>> = {
    DATABASE_URL: 'the embedded PostgreSQL',
    REDIS_URL: 'the queue is in PostgreSQL',
    GIFT_BUDGETS_EMBEDDED_DIRECTORY: embeddedDirectory,
  };
  return SETTING_NAMES.map((name) => {
    const given = env[name] || undefined;
    const value = given === undefined ? (unset[name] ?? defaultOf(name)) : hideSecrets(name, given);
    return { name, value: value ?? 'nothing', isSet: given !== undefined };
  });
}

/** The settings as they are documented: what each may be, and what it is unless set. */
export function describeSettings(): { name: string; expected: string; unset: string | null }[] {
  return SETTING_NAMES.map((name) => ({
    name,
    expected: settings[name].description!,
    unset: defaultOf(name),
  }));
}

function defaultOf(name: SettingName): string | null {
  const value: unknown = settings[name].parse(undefined);
  return value === undefined ? null : String(value);
}

function hideSecrets(name: SettingName, value: string): string {
  if (name === 'GIFT_BUDGETS_DASHBOARD_PASSWORD') return HIDDEN;
  if (!URL_NAMES.includes(name)) return value;
  const url = new URL(value);
  if (url.password !== '') url.password = HIDDEN;
  // What a URL says behind its question mark may hold a password too: only its names are shown.
  for (const key of url.searchParams.keys()) url.searchParams.set(key, HIDDEN);
  url.hash = '';
  return url.href;
}
