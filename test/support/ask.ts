import { request } from 'node:http';
import { text } from 'node:stream/consumers';

export interface Answer {
  readonly status: number;
  readonly headers: Record<string, string | string[] | undefined>;
  readonly body: string;
}

export interface Question {
  readonly method?: string;
  readonly headers?: Record<string, string>;
  readonly body?: string;
  /** The address it comes from: any of 127.0.0.0/8. */
  readonly from?: string;
}

/** Asks with the path as it is given, which fetch would put in order first. */
export async function ask(base: string, path: string, question: Question = {}): Promise<Answer> {
  const { hostname, port } = new URL(base);
  const { method = 'GET', headers = {}, body, from = '127.0.0.1' } = question;
  return await new Promise<Answer>((resolve, reject) => {
    const where = { hostname, port, path, localAddress: from, agent: false };
    const asked = request({ ...where, method, headers });
    asked.on('error', reject);
    asked.on('response', (response) => {
      const { statusCode, headers: answered } = response;
      text(response).then(
        (answer) => resolve({ status: statusCode!, headers: answered, body: answer }),
        reject,
      );
    });
    asked.end(body);
  });
}
