// Signs over HTTP/2, all requests at one time on one connection, by Node.js's http2 module (nghttp2).
//
// Reads one JSON object from standard input: {"url", "path", "bodies", "authority" (if it is not the url's)}; with TLS
// also {"ca", "cert", "key"} (PEM). Prints a list of {"status", "body"}, in the order of the bodies.

const http2 = require("node:http2");

function ask(session, headers, body) {
  return new Promise((resolve, reject) => {
    const stream = session.request({ ":method": "POST", "content-type": "application/json", ...headers });
    let status;
    let text = "";
    stream.setEncoding("utf8");
    stream.on("response", (headers) => (status = headers[":status"]));
    stream.on("data", (chunk) => (text += chunk));
    stream.on("end", () => resolve({ status, body: JSON.parse(text) }));
    stream.on("error", reject);
    stream.end(JSON.stringify(body));
  });
}

async function main() {
  let input = "";
  for await (const chunk of process.stdin) input += chunk;
  const { url, path, authority, bodies, ...tls } = JSON.parse(input);
  const headers = { ":path": path, ...(authority && { ":authority": authority }) };
  const session = http2.connect(url, tls);
  const answers = await Promise.all(bodies.map((body) => ask(session, headers, body)));
  session.close();
  console.log(JSON.stringify(answers));
}

main();
