import type { Started } from './app.ts';
import type { Config } from './config.ts';

/** Tells on stdout where everything listens and what to try; keys only when they are new. */
export function printWelcome(started: Started, config: Config): void {
  process.stdout.write(`${welcomeText(started, config)}\n`);
}

/** The text of {@link printWelcome}. */
export function welcomeText({ addresses, credentials, isIssued }: Started, config: Config): string {
  const lines = [
    'Puback is ready. A PUBACK means stored.',
    '',
    `  MQTT       ${addresses.mqttUrl}`,
    ...(addresses.mqttsUrl === null ? [] : [`  MQTT/TLS   ${addresses.mqttsUrl}`]),
    `  WebSocket  ${addresses.wsUrl}`,
    `  HTTP API   ${addresses.httpUrl}/api/v1   readable at ${addresses.httpUrl}/docs`,
    `  Database   ${addresses.database}`,
    `  Data       ${config.DATA_DIR}`,
  ];
  if (credentials === null) {
    lines.push('', '  No credentials.json here; npm start -- --new-admin-key makes one.');
    return lines.join('\n');
  }
  const { adminKey, device, deviceKey } = credentials;
  if (isIssued) {
    lines.push(
      '',
      `  Admin key  ${adminKey}`,
      `  Device     ${device}, key ${deviceKey}`,
      `  Both stand in ${config.DATA_DIR}/credentials.json and are not shown again.`,
    );
  }
  lines.push('', 'Try:', ...tryLines(addresses, isIssued ? credentials : null, config.DATA_DIR));
  return lines.join('\n');
}

/** Commands that work when pasted into another terminal. */
export function tryLines(
  addresses: Started['addresses'],
  shown: Started['credentials'],
  dataDir: string,
): string[] {
  const deviceKey = shown === null ? credentialText(dataDir, 'deviceKey') : shown.deviceKey;
  const adminKey = shown === null ? credentialText(dataDir, 'adminKey') : shown.adminKey;
  const { hostname, port } = new URL(addresses.mqttUrl);
  return [
    `  mosquitto_pub -h ${hostname} -p ${port} -q 1 -u device -P "${deviceKey}" -t v1/me/data -m '{"temp":21.5}'`,
    `  curl -H "Authorization: Bearer ${adminKey}" ${addresses.httpUrl}/api/v1/devices/first/latest`,
  ];
}

/** A key as a shell reads it out of credentials.json, so that it is shown nowhere. */
export function credentialText(dataDir: string, member: 'deviceKey' | 'adminKey'): string {
  return `$(node -p 'require("${resolved(dataDir)}").${member}')`;
}

function resolved(dataDir: string): string {
  const isPath = dataDir.startsWith('/') || dataDir.startsWith('.');
  return `${isPath ? dataDir : `./${dataDir}`}/credentials.json`;
}
