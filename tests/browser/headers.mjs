// The security headers, judged by Mozilla's HTTP Observatory behind a proxy that ends TLS, as an ingress does. Then the proxy
// removes one header after the other, and the Observatory must miss each.

import { createRequire } from "node:module";
import { createServer as plain, request } from "node:http";
import { createServer as secure } from "node:https";
import { mkdirSync, readFileSync, writeFileSync } from "node:fs";
import { dirname, join } from "node:path";
import { pathToFileURL } from "node:url";

const { WEB_URL, HTTP_PORT, HTTPS_PORT, TLS_CERT, TLS_KEY } = process.env;
const source = dirname(createRequire(import.meta.url).resolve("@mdn/mdn-http-observatory"));
// Which public hosts browsers know by heart; it is fetched when the package is installed with its scripts. Ours is none.
mkdirSync(join(source, "../conf"), { recursive: true });
writeFileSync(join(source, "../conf/hsts-preload.json"), "{}");
const part = (path) => import(pathToFileURL(join(source, path)));
const { retrieve } = await part("retriever/retriever.js");
const { ALL_TESTS } = await part("constants.js");

let removed = "";
const web = new URL(WEB_URL);
const proxy = secure({ cert: readFileSync(TLS_CERT), key: readFileSync(TLS_KEY) }, (incoming, outgoing) => {
  const { method, headers, url } = incoming;
  const onward = request({ host: web.hostname, port: web.port, path: url, method, headers }, (answer) => {
    const kept = Object.entries(answer.headers).filter(([name]) => name !== removed);
    outgoing.writeHead(answer.statusCode, Object.fromEntries(kept));
    answer.pipe(outgoing);
  });
  onward.on("error", (error) => outgoing.destroy(error));
  incoming.pipe(onward);
});
const redirect = plain((incoming, outgoing) => {
  outgoing.writeHead(301, { location: `https://localhost:${HTTPS_PORT}${incoming.url}` }).end();
});
for (const [server, port] of [[proxy, HTTPS_PORT], [redirect, HTTP_PORT]]) {
  await new Promise((done) => server.listen(Number(port), "127.0.0.1", done));
}

/** What the Observatory finds wrong with a page. */
async function findings(path) {
  const seen = await retrieve("localhost", { path, httpPort: Number(HTTP_PORT), httpsPort: Number(HTTPS_PORT) });
  if (!seen.responses.auto?.verified) throw new Error(`${path}: no answer by TLS`);
  return ALL_TESTS.map((test) => test(seen)).filter((found) => !found.pass).map((found) => found.result);
}

const wrong = [];
const paths = ["/pricing", "/signup", "/login", "/sales", "/account", "/verify?token=x", "/nothing-here", "/docs", "/v1/usage"];
for (const path of paths) {
  for (const finding of await findings(path)) wrong.push(`${path}: ${finding}`);
}
const missed = [];
for (removed of ["content-security-policy", "x-content-type-options", "strict-transport-security"]) {
  if ((await findings("/pricing")).length === 0) missed.push(removed);
}
proxy.close();
redirect.close();
if (wrong.length > 0 || missed.length > 0) {
  console.error([...wrong, ...missed.map((header) => `a missing ${header} is not reported`)].join("\n"));
  process.exit(1);
}
console.log(`${paths.length} paths judged`);
process.exit(0);
